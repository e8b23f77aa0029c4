#!/usr/bin/env bash
# Ships the WAL segments that are new since the last run, one by one, oldest first.
#
# The state moves on only after a segment has arrived: an upload that fails is tried again at the
# next run, and no hole can come about. What is shipped is what the node answered, not what `find`
# thinks is young. Cron or unison-wal-archive.timer, every 15 minutes.
set -euo pipefail
# shellcheck source=deploy/scripts/unison-common.sh
. "$(dirname "$(readlink -f "$0")")/unison-common.sh"
need curl jq gzip aws flock
only_one "wal-archive-$NAMESPACE"

STATE_FILE="$STATE_DIR/wal-archive-state-$NAMESPACE.json"
last=$(last_segment "$STATE_FILE")
answer=$(post /wal/backup "$(jq -nc --argjson after "$last" \
    '{afterSegmentId: $after, backupDir: "wal/archive"}')")

shipped=0
while IFS=$'\t' read -r id path; do
    [ -n "$id" ] || continue
    # -n: no name and no time in the header, so the same segment makes the same .gz every time.
    gzip -n -c "$path" >"$path.gz.tmp"
    mv "$path.gz.tmp" "$path.gz"
    aws s3 cp --only-show-errors "$path.gz" "$REMOTE/$NAMESPACE/wal/"
    save "$STATE_FILE" "$(state_json "$id")"
    rm -f "$path" "$path.sha256" "$path.gz"
    shipped=$((shipped + 1))
done < <(jq -r '.backups[] | [.segmentId, .path] | @tsv' <<<"$answer")

say "$shipped segments shipped, the last is $(last_segment "$STATE_FILE")"
