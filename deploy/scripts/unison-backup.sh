#!/usr/bin/env bash
# A snapshot on the first run of each day, new WAL segments on every run, both sent to REMOTE.
#
# "First of the day" is remembered, not guessed from the minute: a run that starts a minute late
# still takes the snapshot. The state moves on only after the upload. Local copies go after 7 days.
set -euo pipefail
# shellcheck source=deploy/scripts/unison-common.sh
. "$(dirname "$(readlink -f "$0")")/unison-common.sh"
need curl jq zstd tar aws flock
only_one "backup-$NAMESPACE"

DATE=$(date +%Y%m%d-%H%M)
TODAY=${DATE%-*}

# 1. Snapshot. Its answer (LSN, digest, sha256) goes beside it: the restore drill compares.
DAY_FILE="$STATE_DIR/snapshot-day-$NAMESPACE"
if [ "$(cat "$DAY_FILE" 2>/dev/null || true)" != "$TODAY" ]; then
    say "snapshot btree-$DATE.db"
    snapshot="$BACKUP_ROOT/snapshots/btree-$DATE.db"
    answer=$(post /btree/backup "{\"path\": \"snapshots/btree-$DATE.db\"}")
    zstd -q -f "$snapshot" -o "$snapshot.zst"
    jq -c . <<<"$answer" >"$snapshot.json"
    # The description first: a snapshot that is there is then always described.
    aws s3 cp --only-show-errors "$snapshot.json" "$REMOTE/$NAMESPACE/snapshots/"
    aws s3 cp --only-show-errors "$snapshot.zst" "$REMOTE/$NAMESPACE/snapshots/"
    save "$DAY_FILE" "$TODAY"
    rm -f "$snapshot" "$snapshot.sha256"
fi

# 2. WAL segments. A run whose upload failed is repeated whole, into a folder of its own.
STATE_FILE="$STATE_DIR/wal-state-$NAMESPACE.json"
last=$(last_segment "$STATE_FILE")
answer=$(post /wal/backup "$(jq -nc --argjson after "$last" --arg dir "wal/$DATE" \
    '{afterSegmentId: $after, backupDir: $dir}')")
newest=$(jq -r '.backups[-1].segmentId // 0' <<<"$answer")
if [ "$newest" != 0 ]; then
    say "segments $(jq -r '.backups[0].segmentId' <<<"$answer") to $newest"
    archive="$BACKUP_ROOT/wal-$DATE.tar.gz"
    # Exactly the segments of this answer, whatever else another run put into the folder.
    jq -r --arg dir "wal/$DATE" '.backups[].path | "\($dir)/" + sub(".*/"; "")' <<<"$answer" |
        tar -czf "$archive.tmp" -C "$BACKUP_ROOT" -T -
    mv "$archive.tmp" "$archive"
    aws s3 cp --only-show-errors "$archive" "$REMOTE/$NAMESPACE/wal/"
    save "$STATE_FILE" "$(state_json "$newest")"
fi

# 3. Local copies older than 7 days: files and emptied folders of the backups, never the root.
find "$BACKUP_ROOT" -mindepth 1 -type f -mtime +7 -delete
find "$BACKUP_ROOT" -mindepth 2 -type d -empty -mtime +7 -delete
say 'backup completed'
