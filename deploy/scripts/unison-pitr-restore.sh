#!/usr/bin/env bash
# Point-in-time recovery: unison-pitr-restore.sh 2025-01-08T14:30:00Z [--exclusive]
#
# Restores to the state after the last record stamped at or before that moment (with --exclusive:
# before it). Fetches the snapshots up to that day and every archived segment, in the layout of
# either script; `udbctl restore` chooses the base, checks everything, names what is missing, and
# writes nothing unless the moment is reached. The node is stopped only once the plan is good. What
# was there before is kept in trash/. Run as root on the node.
set -euo pipefail
# shellcheck source=deploy/scripts/unison-common.sh
. "$(dirname "$(readlink -f "$0")")/unison-common.sh"
need curl zstd aws udbctl systemctl

[ $# -ge 1 ] || die 'usage: unison-pitr-restore.sh TIME [--exclusive]'
target=$1
exclusive=()
[ "${2:-}" != --exclusive ] || exclusive=(--exclusive)
# Names carry the local day of the machine that took the snapshot: one day more, to be sure. A base
# past the target does no harm, udbctl looks inside.
day=$(date -d "$target + 1 day" +%Y%m%d) || die "$target is not a time such as 2025-01-08T14:30:00Z"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/snapshots" "$work/wal" "$work/plan"

snapshots_until "$day" 8 >"$work/names"
[ -s "$work/names" ] || die "no snapshot taken by $target in $REMOTE/$NAMESPACE/snapshots/"
while IFS= read -r name; do
    aws s3 cp --only-show-errors "$REMOTE/$NAMESPACE/snapshots/$name" "$work/snapshots/"
    zstd -q -d --rm "$work/snapshots/$name"
done <"$work/names"
aws s3 sync --only-show-errors "$REMOTE/$NAMESPACE/wal/" "$work/wal/"

restore=(udbctl restore --namespace "$NAMESPACE" --from "$work/snapshots" --wal "$work/wal"
    --to-time "$target" "${exclusive[@]}")
say 'the plan:'
"${restore[@]}" --data-dir "$work/plan" --dry-run

systemctl stop unisondb
"${restore[@]}" --data-dir "$DATA_DIR" --force
give_to_service "$DATA_DIR/$NAMESPACE"
systemctl start unisondb

wait_ready "$UNISON_URL" 600
curl -fsS "$UNISON_URL/health"
new_history
say "restored to $target"
