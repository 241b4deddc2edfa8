#!/bin/sh
# veneer disk, judged by qemu-img; and what it refuses. Usage: disk.sh VENEER
set -u
veneer=$(realpath "$1")
failures=0
count=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

# ok COMMAND...: it succeeds.
ok() {
    count=$((count + 1))
    "$@" >out 2>err || {
        failures=$((failures + 1))
        echo "$*: status $?: $(cat out err)"
    }
}

# refused STATUS 'TEXT' ARG...: veneer disk ARG... ends with STATUS and says TEXT.
refused() {
    want=$1
    text=$2
    shift 2
    count=$((count + 1))
    "$veneer" disk "$@" >out 2>err
    got=$?
    if [ "$got" != "$want" ] || ! grep -qF -- "$text" err; then
        failures=$((failures + 1))
        echo "veneer disk $*: status $got (due: $want), error: $(cat err) (due: $text)"
    fi
}

# json FILE EXPRESSION: what info says of a file, as python sees it.
json() {
    ok "$veneer" disk info "$1" --format json
    count=$((count + 1))
    python3 -c "import json,sys; d = json.load(open('out')); sys.exit(not ($2))" || {
        failures=$((failures + 1))
        echo "info of $1: not $2: $(cat out)"
    }
}

ok "$veneer" disk create a.qcow2 3G
ok qemu-img check -q a.qcow2
json a.qcow2 "d['format'] == 'qcow2' and d['size'] == 3 << 30 and d['cluster_size'] == 65536 and d['backing'] is None"
ok "$veneer" disk resize a.qcow2 5G
ok qemu-img check -q a.qcow2
json a.qcow2 "d['size'] == 5 << 30"
refused 1 'cannot be made smaller' resize a.qcow2 1G
refused 1 'File exists' create a.qcow2 1G

head -c 3000000 /dev/urandom >base.raw
truncate -s 8M base.raw
ok "$veneer" disk create clone.qcow2 --backing base.raw --backing-format raw --cluster-size 4K
ok qemu-img compare -q -f qcow2 -F raw clone.qcow2 base.raw
ok qemu-io -f qcow2 -c 'write -q -P 5 1M 100k' clone.qcow2
json clone.qcow2 "d['backing'] == 'base.raw' and d['backing_format'] == 'raw' and d['cluster_size'] == 4096"
ok "$veneer" disk info clone.qcow2
ok "$veneer" disk convert clone.qcow2 whole.qcow2
ok qemu-img check -q whole.qcow2
ok qemu-img compare -q clone.qcow2 whole.qcow2
ok "$veneer" disk convert whole.qcow2 whole.raw --to raw
ok qemu-img compare -q -F raw clone.qcow2 whole.raw
json whole.raw "d['format'] == 'raw' and d['size'] == 8 << 20 and d['stored'] < 4 << 20 and 'backing' not in d"
ok "$veneer" disk create b.raw 1M --disk-format raw
ok "$veneer" disk resize b.raw 2M --disk-format raw
json b.raw "d['size'] == 2 << 20 and d['stored'] == 0"
ok qemu-img convert -c -O qcow2 base.raw packed.qcow2
ok "$veneer" disk convert packed.qcow2 unpacked.raw --to raw
ok cmp base.raw unpacked.raw

refused 2 'disk needs a verb'
refused 2 "there is no 'make'; give create, info, resize, attach, detach or convert" make
refused 2 'usage: veneer disk create FILE [SIZE]' create
refused 2 'usage: veneer disk convert FROM TO' convert a.qcow2
refused 2 "option '--cluster-size': '3K' is no size of clusters" create c.qcow2 1G --cluster-size 3K
refused 2 "option '--to': 'vmdk' is no format of disks" convert a.qcow2 b --to vmdk
refused 1 'give a size' create c.qcow2
refused 1 "the size '0'" create c.qcow2 0
refused 1 'the format of the backing file base.raw must be given' create c.qcow2 --backing base.raw
refused 1 'a raw disk has neither' create c.raw 1G --disk-format raw --backing base.raw --backing-format raw
refused 1 'No such file' info nowhere
refused 1 'neither a file nor a block device' info /dev/null
refused 1 'is not a qcow2 image' resize base.raw 16M --disk-format qcow2
[ -e c.qcow2 ] && { failures=$((failures + 1)); echo "c.qcow2 was left behind"; }
printf 'QFI\373' >short
refused 1 'ends within its header' info short
ok "$veneer" disk create loop.qcow2 --backing base.raw --backing-format raw
ok qemu-img rebase -u -f qcow2 -b loop.qcow2 -F qcow2 loop.qcow2
refused 1 'chain of backing files' convert loop.qcow2 c.qcow2

echo "$count checks, $failures failures"
[ "$failures" = 0 ]
