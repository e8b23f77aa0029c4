# shellcheck shell=bash
# Shared by the unison-*.sh scripts: settings, one call to the node, state that survives a crash.
# Sourced, never run. Settings come from the environment (/etc/unison/backup.env under systemd):
#
#   NAMESPACE    what is backed up                       users
#   UNISON_URL   the node on this machine                http://localhost:8080
#   DATA_DIR     its data directory                      /var/unison/data
#   STATE_DIR    where the scripts remember              /var/lib/unison
#   REMOTE       where copies go (aws s3 addresses)      s3://backups/unison
#   TOKEN_FILE   a bearer token, when the node wants one (none)

NAMESPACE=${NAMESPACE:-users}
UNISON_URL=${UNISON_URL:-http://localhost:8080}
DATA_DIR=${DATA_DIR:-/var/unison/data}
STATE_DIR=${STATE_DIR:-/var/lib/unison}
REMOTE=${REMOTE:-s3://backups/unison}
export BACKUP_ROOT="$DATA_DIR/backups/$NAMESPACE"

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || die "'$tool' is missing on this machine"
    done
}

# One run at a time: a timer may fire while the last upload is still under way.
only_one() {
    mkdir -p "$STATE_DIR"
    exec 9>"$STATE_DIR/$1.lock"
    flock -n 9 || { say 'another run is under way, nothing to do'; exit 0; }
}

# post PATH BODY: prints the answer; anything but 200 with a JSON object is an error, said in the
# node's own words, and leaves every state file as it was.
post() {
    local answer status auth=()
    [ -z "${TOKEN_FILE:-}" ] || auth=(-H "Authorization: Bearer $(<"$TOKEN_FILE")")
    answer=$(curl -sS -w '\n%{http_code}' -X POST "${auth[@]}" \
        -H 'Content-Type: application/json' -d "$2" "$UNISON_URL/api/v1/$NAMESPACE$1") ||
        die "no answer from $UNISON_URL: is the node running?"
    status=${answer##*$'\n'}
    answer=${answer%$'\n'*}
    if [ "$status" != 200 ]; then
        die "$1: $(jq -r '.error' <<<"$answer" 2>/dev/null || printf '%s' "$answer") (HTTP $status)"
    fi
    jq -e 'type == "object"' >/dev/null 2>&1 <<<"$answer" || die "$1: not a JSON object: $answer"
    printf '%s\n' "$answer"
}

# last_segment FILE: the id of the last segment that is safely away; 0 when there is none. A file
# that is there but not readable as such stops the run: starting from 0 again would be a guess.
last_segment() {
    [ -s "$1" ] || { echo 0; return; }
    jq -er '.lastSegmentId | select(type == "number")' "$1" 2>/dev/null ||
        die "$1 does not hold a lastSegmentId: mend it, or remove it to archive everything again"
}

# save FILE TEXT: whole or not at all, also over a power cut.
save() {
    local tmp="$1.tmp.$$"
    printf '%s\n' "$2" >"$tmp"
    sync "$tmp"
    mv "$tmp" "$1"
    sync "$(dirname "$1")"
}

state_json() {
    jq -nc --argjson id "$1" --arg at "$(date -Iseconds)" '{lastSegmentId: $id, timestamp: $at}'
}

# give FILE...: to the user that the service runs as, when that is not us. A file copied by root
# is one that the node cannot open.
give_to_service() {
    if [ "$(id -u)" -eq 0 ] && id unison >/dev/null 2>&1; then
        chown -R unison:unison "$@"
    fi
}

# snapshots_until DAY COUNT: the names of the newest COUNT snapshots in REMOTE that were taken on
# DAY (YYYYMMDD) or before, oldest first. The digits in the names are compared with the day: a whole
# name, compared as text, lies above every day.
export ANY_DAY=99999999
snapshots_until() {
    aws s3 ls "$REMOTE/$NAMESPACE/snapshots/" | awk '{print $4}' |
        { grep -E '^btree-[0-9]{8}(-[0-9]{4})?\.db\.zst$' || true; } | LC_ALL=C sort |
        awk -v day="$1" '{ d = substr($0, 7, 8) + 0; if (d <= day + 0) print }' | tail -n "$2"
}

# wait_ready URL SECONDS
wait_ready() {
    local end=$((SECONDS + $2))
    until curl -fsS -o /dev/null "$1/readyz" 2>/dev/null; do
        [ "$SECONDS" -lt "$end" ] || die "$1 is not ready after $2 s: $(curl -s "$1/health" || true)"
        sleep 0.2
    done
}

# After a restore: the archive must learn of the new history before somebody restores from it to the
# latest moment, so the next backup takes a snapshot, whether today has one or not.
new_history() {
    mkdir -p "$STATE_DIR"
    rm -f "$STATE_DIR/snapshot-day-$NAMESPACE"
    say 'the next unison-backup.sh takes a snapshot of what was restored'
}
