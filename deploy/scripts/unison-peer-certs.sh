#!/usr/bin/env bash
# Certificates for the peer side of a cluster: an authority of its own, and one pair a node.
#
#   unison-peer-certs.sh FOLDER NAME:HOST[,HOST]...
#
# HOST is a name or an address by which other nodes reach that node, without the port. Makes, in FOLDER:
#
#   ca.pem, ca.key        the authority. ca.pem goes to every node, ca.key to none: keep it away from them
#   NAME.pem, NAME.key    what a node shows
#
# What is there is kept: a second run with further nodes uses the same authority. To renew a node's,
# remove its two files and run again; nodes read theirs at their start.
#
#   CA_DAYS, NODE_DAYS    how long they hold          3650, 1825
set -euo pipefail
[ "$#" -ge 2 ] || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2; }
command -v openssl >/dev/null || { echo "${0##*/}: 'openssl' is missing on this machine" >&2; exit 1; }

folder=$1
shift
umask 077
mkdir -p "$folder"
work=$(mktemp -d "$folder/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT

# key FILE: a new private key.
key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

if [ ! -e "$folder/ca.pem" ]; then
    key "$work/ca.key"
    openssl req -x509 -new -key "$work/ca.key" -days "${CA_DAYS:-3650}" -subj '/CN=UnisonDB peers' \
        -addext 'basicConstraints=critical,CA:TRUE' \
        -addext 'keyUsage=critical,keyCertSign,cRLSign' -out "$work/ca.pem"
    # The key first: an authority that is there can sign.
    mv "$work/ca.key" "$folder/ca.key"
    mv "$work/ca.pem" "$folder/ca.pem"
fi

for node in "$@"; do
    name=${node%%:*} hosts=${node#*:}
    if ! [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ && $node == *:?* ]]; then
        echo "${0##*/}: '$node' is not NAME:HOST[,HOST]..." >&2
        exit 2
    fi
    [ "$name" != ca ] || { echo "${0##*/}: 'ca' is the authority's name" >&2; exit 2; }
    if [ -e "$folder/$name.pem" ]; then
        echo "$folder/$name.pem is there, and kept"
        continue
    fi
    names=()
    IFS=, read -ra listed <<<"$hosts"
    for host in "${listed[@]}"; do
        if [[ $host =~ ^[0-9.]+$ || $host == *:* ]]; then names+=("IP:$host"); else names+=("DNS:$host"); fi
    done
    key "$work/$name.key"
    openssl req -new -key "$work/$name.key" -subj "/CN=$name" -out "$work/request"
    # Each node is both ends: it connects, and is connected to.
    openssl x509 -req -in "$work/request" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" \
        -days "${NODE_DAYS:-1825}" -out "$work/$name.pem" 2>"$work/said" -extfile <(
        IFS=,
        printf '%s\n' 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' \
            'extendedKeyUsage=serverAuth,clientAuth' "subjectAltName=${names[*]}"
    ) || { cat "$work/said" >&2; exit 1; }
    mv "$work/$name.key" "$folder/$name.key"
    mv "$work/$name.pem" "$folder/$name.pem"
    echo "$folder/$name.pem for $hosts"
done
