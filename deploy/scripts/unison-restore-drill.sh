#!/usr/bin/env bash
# Restore drill: unison-restore-drill.sh [KEY...]
#
# Restores the newest snapshot into a folder of its own, starts a second node over it beside the
# running one, and fails unless that node says it is well, holds the state that the backup
# described, and has each KEY. Monthly, or after every change to the backups.
set -euo pipefail
# shellcheck source=deploy/scripts/unison-common.sh
. "$(dirname "$(readlink -f "$0")")/unison-common.sh"
need curl jq zstd aws unisondb

DRILL_ADDR=${DRILL_ADDR:-localhost:9999}
drill="http://$DRILL_ADDR"
test_dir=$(mktemp -d "${TMPDIR:-/tmp}/restore-test.XXXXXX")
pid=''
cleanup() {
    if [ -n "$pid" ]; then
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    fi
    rm -rf "$test_dir"
}
trap cleanup EXIT

snapshot=$(snapshots_until "$ANY_DAY" 1)
[ -n "$snapshot" ] || die "no snapshot in $REMOTE/$NAMESPACE/snapshots/"
say "drill with $snapshot"
mkdir -p "$test_dir"/{data/db,data/wal}
aws s3 cp --only-show-errors "$REMOTE/$NAMESPACE/snapshots/$snapshot" "$test_dir/"
zstd -q -d "$test_dir/$snapshot" -o "$test_dir/data/db/data.mdb"

unisondb --data-dir "$test_dir/data" --http-addr "$DRILL_ADDR" >"$test_dir/log" 2>&1 &
pid=$!
end=$((SECONDS + ${DRILL_SECONDS:-600}))
until curl -fsS -o /dev/null "$drill/readyz" 2>/dev/null; do
    kill -0 "$pid" 2>/dev/null || { cat "$test_dir/log" >&2; die 'the restored node did not start'; }
    [ "$SECONDS" -lt "$end" ] || { cat "$test_dir/log" >&2; die 'the restored node is not ready'; }
    sleep 0.2
done

health=$(curl -fsS "$drill/health")
[ "$(jq -r .status <<<"$health")" = ok ] || die "the restored node is not well: $health"

# The digest of the whole state, against the one that the backup wrote down.
description="${snapshot%.zst}.json"
if aws s3 cp --only-show-errors "$REMOTE/$NAMESPACE/snapshots/$description" "$test_dir/" 2>/dev/null; then
    lsn=$(jq -r .lsn "$test_dir/$description")
    want=$(jq -r .digest "$test_dir/$description")
    have=$(curl -fsS "$drill/api/v1/$NAMESPACE/digest?lsn=$lsn" | jq -r .digest)
    [ "$have" = "$want" ] || die "digest at LSN $lsn is $have, the backup said $want"
    say "digest at LSN $lsn is as the backup said"
fi

for key in "$@"; do
    curl -fsS -G --data-urlencode "key=$key" "$drill/api/v1/$NAMESPACE/kv" | jq -e .found >/dev/null ||
        die "key '$key' is not in the restored database"
done
say "restore test completed successfully: $(jq -c '{status, namespaces}' <<<"$health")"
