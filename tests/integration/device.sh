#!/bin/bash
# device.sh VENEER DEVICE_TEST: block devices as disks, and disks whose sectors have 4096 bytes, by loop devices. Needs root and
# loop devices; it is skipped where there are none.
set -eu
veneer=$(realpath "$1")
device_test=$(realpath "$2")
here=$(cd "$(dirname "$0")" && pwd)
. "$here/refused.sh"
skip() {
    echo "skipped: $1"
    exit 77
}
[ "$(id -u)" = 0 ] || skip "loop devices need root"
command -v losetup >/dev/null && command -v mkfs.ext4 >/dev/null || skip "losetup or mkfs.ext4 is not installed"
folder=$(mktemp -d -p /var/tmp)
devices=()
finish() {
    status=$?
    cd /
    umount "$folder/mounted" 2>/dev/null || true
    for device in "${devices[@]}"; do losetup -d "$device" || true; done
    [ $status = 0 ] || [ $status = 77 ] || cat "$folder/log" 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT
cd "$folder"

# device FILE BYTES OPTION...: makes a loop device of a new file; its name is in $made.
device() {
    truncate -s "$2" "$1"
    made=$(losetup -f --show "${@:3}" "$1" 2>"$folder/why") || skip "no loop device: $(cat "$folder/why")"
    devices=("$made" "${devices[@]}")
}

for sector in 512 4096; do
    device "small$sector" 4M -b "$sector"
    "$device_test" "$made" "$sector" 4194304 "truncate -s 8M small$sector && losetup -c $made"
done

# In a guest: a device of large sectors; files on a file system that lies on one; and a device that cannot be written to. All but the
# last with O_DIRECT.
device large 32M -b 4096
large=$made
device below 96M -b 4096
mkfs.ext4 -q "$made"
mkdir mounted
mount "$made" mounted
refused 'the host uses the device' "$veneer" disk resize "$made" 1G --disk-format raw
truncate -s 16M mounted/file
"$veneer" disk create mounted/image 16M
printf 'written before' >constant
device constant 1M -r
refused "option 'ro'" "$veneer" disk resize "$made" 2M --disk-format raw
cat >init <<'X'
#!/bin/sh
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
load-modules
set -e
trap 'echo "FAILED: $done"; poweroff -f' EXIT
sizes() { done="sizes of $1"; [ "$(cd /sys/block/$1/queue && cat logical_block_size physical_block_size | xargs) $(cat /sys/block/$1/ro)" = "$2" ]; }
sizes vda '4096 4096 0'
sizes vdb '512 4096 0'
sizes vdc '512 4096 0'
sizes vdd '512 512 1'
done='a file system on large sectors'
mke2fs -b 4096 /dev/vda >/dev/null
mount -t ext4 /dev/vda /tmp
cp /bin/busybox /tmp/copy
umount /tmp
mount -t ext4 /dev/vda /tmp
cmp /bin/busybox /tmp/copy
umount /tmp
for disk in vdb vdc; do
    done="single sectors of $disk"
    dd if=/dev/urandom of=/random bs=512 count=40 2>/dev/null
    for i in $(seq 0 39); do
        dd if=/random of=/dev/$disk bs=512 count=1 skip=$i seek=$((i + 33)) oflag=direct 2>/dev/null &
        [ $((i % 8)) != 7 ] || wait
    done
    wait
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/dev/$disk bs=512 skip=33 count=40 2>/dev/null | cmp - /random
    done="discard of $disk"
    blkdiscard -o 1048576 -l 1048576 /dev/$disk
    dd if=/dev/$disk bs=512 skip=33 count=40 2>/dev/null | cmp - /random
done
done='a constant device'
[ "$(head -c 14 /dev/vdd)" = 'written before' ]
if dd if=/random of=/dev/vdd bs=512 count=1 conv=fsync 2>/dev/null; then exit 1; fi
trap - EXIT
echo PASSED
poweroff -f
X
"$here/../../scripts/initramfs.sh" initrd init virtio_pci virtio_blk
"$veneer" run --engine translate --memory 256M --kernel "$("$here/../../scripts/kernel.sh")" --initrd initrd \
    --append 'console=ttyS0 quiet panic=-1' --disk "$large,format=raw,direct" --disk mounted/file,format=raw,direct \
    --disk mounted/image,direct --disk "$made,format=raw,ro" </dev/null >log 2>&1
grep -q PASSED log
e2fsck -fn "$large" >log 2>&1
qemu-img check -q mounted/image >log 2>&1
[ "$(stat -c %s mounted/file)" = 16777216 ]
