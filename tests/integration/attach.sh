#!/bin/bash
# attach.sh VENEER INIT: disks, shares and memory given to a running machine, and taken back, by veneer's commands; INIT is the static
# program of hotplug-init.c.
set -eu
veneer=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
. "$here/refused.sh"
kernel=$("$here/../../scripts/kernel.sh")
folder=$(mktemp -d)
export VENEER_RUNTIME=$folder/run
name=plug$$
machine=
finish() {
    status=$?
    [ -z "$machine" ] || { "$veneer" stop --force "$name" || kill "$machine"; wait "$machine" || true; } 2>/dev/null
    [ $status = 0 ] || tail -n 40 "$folder/log"
    rm -rf "$folder"
}
trap finish EXIT
mkdir -m 700 "$folder/run"
mkdir "$folder/share"
"$here/hotplug-initrd.sh" "$2" devices "$kernel" "$folder/initrd"

# Waits for a line of the console; the test's own time-out ends what never comes.
saw() {
    until grep -aq "^$1" "$folder/log"; do
        kill -0 "$machine" 2>/dev/null || { echo "the machine ended before '$1'"; exit 1; }
        sleep 0.1
    done
}

printf '\005\000\000\000' >"$folder/disk"
truncate -s 1M "$folder/disk"
echo 7 >"$folder/share/number"
: >"$folder/log"
"$veneer" run --engine translate --memory 256M --name "$name" --kernel "$kernel" --initrd "$folder/initrd" \
    --console "file:$folder/log" </dev/null >"$folder/run.log" 2>&1 &
machine=$!
saw READY
cd "$folder" # a relative path is the command's, not the machine's
[ "$("$veneer" disk attach "$name" disk,format=raw)" = disk0 ]
saw 'DISK vda 5'
refused disk "$veneer" disk attach "$name" disk,format=raw
refused 'No such file' "$veneer" disk attach "$name" nothing
"$veneer" disk resize --machine "$name" disk0 2M
[ "$(stat -c %s disk)" = 2097152 ]
"$veneer" disk detach "$name" disk0
saw 'NODISK vda'
refused "no device 'disk0'" "$veneer" disk detach "$name" disk0
"$veneer" share attach "$name" share:tag:ro
saw 'SHARE 7'
refused tag "$veneer" share attach "$name" share:tag
refused "'share-tag' is no disk but a share" "$veneer" disk detach "$name" share-tag
refused "'rng' is no disk but a device of the machine's own" "$veneer" disk detach "$name" rng
"$veneer" share detach "$name" tag
refused 'no device' "$veneer" share detach "$name" tag
[ "$("$veneer" disk attach "$name" disk,format=raw --id share-data)" = share-data ]
refused "'share-data' is no share but a disk" "$veneer" share detach "$name" data
"$veneer" disk detach "$name" share-data
said() {
    "$veneer" memory "$name" --format json | tr -d '\n ' | grep -q "$1" || { echo "memory does not say $1"; exit 1; }
}
said '"size":268435456,"resident":[1-9]'
said '"target":0,"actual":0'
"$veneer" memory "$name" --balloon 64M | grep -q '^balloon  *0.0M, to be 64.0M$' # there is no driver that would give it
said '"target":67108864'
refused 'the guest has' "$veneer" memory "$name" --balloon 300M
refused 'not a size' "$veneer" memory "$name" --balloon much
refused 'no machine' "$veneer" memory "$name-not"
said '"target":67108864'
[ "$("$veneer" disk attach "$name" disk,format=raw --id data)" = data ] # what is left goes with the machine
"$veneer" stop --force "$name"
wait "$machine" || true
machine=
if grep -aE 'ACPI (Error|Exception|Warning)|BUG:|WARNING:|Oops' "$folder/log"; then
    exit 1
fi
