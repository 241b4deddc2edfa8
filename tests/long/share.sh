#!/bin/bash
# share.sh VENEER [FILES]: tests/integration/share.py with FILES (default 10,000) files a tree, under both engines in software, with one
# and two CPUs and with two guests. Some minutes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
gcc -O2 -static -o "$folder/init" "$here/../integration/share-init.c"
status=0
for engine in translate interpret; do
    for cpus in 1 2 two; do
        LIMIT=${LIMIT:-3000} "$here/../integration/share.py" "$1" "$folder/init" "$engine" "${2:-10000}" "$cpus" || status=1
    done
done
exit $status
