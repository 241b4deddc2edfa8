#!/bin/sh
# The image store by the program alone, without network and without running a guest: import of an archive, of raw and of
# qcow2 disks, list, export (judged by qemu-img), delete, and what is refused. Usage: image.sh VENEER
set -u
veneer=$1
failures=0
count=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export VENEER_STORE="$dir/store"
PATH=$PATH:/usr/sbin:/sbin

check() { # check NAME CONDITION...: the condition, a command, succeeds
    name=$1
    shift
    count=$((count + 1))
    if ! "$@" >"$dir/out" 2>&1; then
        failures=$((failures + 1))
        echo "failed: $name: $*"
        cat "$dir/out"
    fi
}
refused() { # refused STATUS 'TEXT' ARG...: veneer image ARG... ends with STATUS and an error that holds TEXT
    want=$1
    text=$2
    shift 2
    count=$((count + 1))
    "$veneer" image "$@" >"$dir/out" 2>"$dir/err" </dev/null
    got=$?
    if [ "$got" != "$want" ] || ! grep -qF -- "$text" "$dir/err"; then
        failures=$((failures + 1))
        echo "veneer image $*: status $got (due: $want), error: $(cat "$dir/err") (due: $text)"
    fi
}
lists() { # the names that `image list` shows
    "$veneer" image list --format json | sed -n 's/^ *"name": *"\([^"]*\)".*/\1/p' | tr '\n' ' '
}
field() { # field KEY: of the one image named tiny
    "$veneer" image list --format json | tr -d '\n' | sed 's/.*"name": *"tiny"//' | sed -n "s/[^}]*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p"
}

mkdir -p "$dir/root/boot" "$dir/root/etc/kernel"
head -c 300000 /dev/urandom >"$dir/root/boot/vmlinuz-6.1.0-9"
head -c 300000 /dev/urandom >"$dir/root/boot/initrd.img-6.1.0-9"
echo 'ID=testos' >"$dir/root/etc/os-release"
echo 'ro quiet' >"$dir/root/etc/kernel/cmdline"
tar -C "$dir/root" --numeric-owner --owner=0 --group=0 -cf "$dir/root.tar" .

check 'an archive' "$veneer" image import "$dir/root.tar" tiny --size 64M
check 'its list' [ "$(lists)" = 'tiny ' ]
check 'its system' [ "$(field os)" = testos ]
check 'its kernel' [ "$(field kernel)" = /boot/vmlinuz-6.1.0-9 ]
check 'its size' [ "$(field size)" = 67108864 ]
check 'export' "$veneer" image export tiny "$dir/tiny.raw"
check 'the digest is that of the raw disk' [ "$(field sha256)" = "$(sha256sum <"$dir/tiny.raw" | cut -d' ' -f1)" ]
check 'its partition table' sfdisk --verify "$dir/tiny.raw"
check 'export as qcow2' "$veneer" image export tiny "$dir/tiny.qcow2" --disk-format qcow2
check 'is sound' qemu-img check "$dir/tiny.qcow2"
check 'is the same' qemu-img compare "$dir/tiny.raw" "$dir/tiny.qcow2"
check 'import of raw' "$veneer" image import "$dir/tiny.raw" again
digest=$(field sha256)
check 'delete' "$veneer" image delete tiny
check 'import of qcow2' "$veneer" image import --disk-format qcow2 "$dir/tiny.qcow2" tiny
check 'has the digest' [ "$(field sha256)" = "$digest" ]
check 'list' [ "$(lists)" = 'again tiny ' ]
qemu-img convert -O qcow2 -c "$dir/tiny.raw" "$dir/other.qcow2"
check "import of qemu-img's" "$veneer" image import "$dir/other.qcow2" tiny
check 'has the digest too' [ "$(field sha256)" = "$digest" ]
dd if="$dir/tiny.raw" of="$dir/bare" bs=1M skip=1 count=62 conv=sparse 2>/dev/null
check 'a bare file system' "$veneer" image import "$dir/bare" bare
check 'text' sh -c "'$veneer' image list | grep -q '^tiny  *testos'"

head -c 1048576 /dev/zero >"$dir/zero"
refused 1 'no ext4 file system' import "$dir/zero" x
refused 1 "$dir/none" import "$dir/none" x
refused 1 'no name for an image' import "$dir/tiny.raw" '../x'
refused 1 'there is no image' export nothing "$dir/x"
refused 1 'File exists' export tiny "$dir/tiny.raw"
refused 1 'there is no image' delete nothing
refused 2 'give build, list, import' walk
refused 2 'image needs a verb'
refused 2 'usage: veneer image import FILE NAME' import onlyone
refused 2 'is no format of disks' export tiny "$dir/x" --disk-format vmdk
refused 2 'is no format; give text or json' list --format xml
refused 2 'is no size for a disk' build debian --size 1M
refused 1 'cannot be built' build windows
refused 1 'is no suite' build debian --suite 'a b'
refused 1 'is no list of packages' build debian --packages 'a;b'
refused 2 'is no address' build debian --mirror nowhere
head -c 60000 "$dir/root.tar" >"$dir/cut.tar"
refused 1 'ends in the middle' import "$dir/cut.tar" x
check 'nothing is left of what failed' [ "$(ls "$dir/store/images" | wc -l)" = 3 ]
check 'deletion' "$veneer" image delete again
check 'three names are two' [ "$(lists)" = 'bare tiny ' ]
echo "$count checks, $failures failures"
[ $failures = 0 ]
