#!/usr/bin/env bash
# Full restore: unison-full-restore.sh [SNAPSHOT]   (default: the newest in REMOTE)
#
# The snapshot replaces the database; the WAL on this machine is left in place, and what it holds
# beyond the snapshot is replayed: nothing acknowledged is lost when only the database was. To go
# *back* on purpose use unison-pitr-restore.sh. Verified before anything is stopped or replaced;
# the replaced database is kept in trash/. Run as root on the node.
set -euo pipefail
# shellcheck source=deploy/scripts/unison-common.sh
. "$(dirname "$(readlink -f "$0")")/unison-common.sh"
need curl zstd aws udbctl systemctl

snapshot=${1:-$(snapshots_until "$ANY_DAY" 1)}
[ -n "$snapshot" ] || die "no snapshot in $REMOTE/$NAMESPACE/snapshots/"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "restoring $snapshot"
aws s3 cp --only-show-errors "$REMOTE/$NAMESPACE/snapshots/$snapshot" "$work/"
zstd -q -d "$work/$snapshot" -o "$work/restore.db"
udbctl verify "$work/restore.db"

systemctl stop unisondb
here="$DATA_DIR/$NAMESPACE"
if [ -e "$here/db/data.mdb" ]; then
    aside="$DATA_DIR/trash/$NAMESPACE-db-$(date +%Y%m%d-%H%M%S)"
    mkdir -p "$DATA_DIR/trash"
    mv "$here/db" "$aside"
    say "the replaced database is in $aside"
fi
mkdir -p "$here/db"
# Whole under its name or not there: a copy that a power cut ends is never mistaken for a database.
cp "$work/restore.db" "$here/db/data.mdb.tmp"
sync "$here/db/data.mdb.tmp"
mv "$here/db/data.mdb.tmp" "$here/db/data.mdb"
give_to_service "$here"
systemctl start unisondb

wait_ready "$UNISON_URL" 600
curl -fsS "$UNISON_URL/health"
new_history
say 'restored'
