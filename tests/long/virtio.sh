#!/bin/bash
# virtio.sh BUILD [ROUNDS] [SECONDS] [FORMAT]: under both software engines and with both forms of rings, Debian's kernel verifies a disk under load, has its
# driver unbound and bound again with requests under way (200 rounds unless given), and verifies it again. FORMAT: raw (the default), or qcow2,
# a clone of a raw file, which qemu-img checks afterwards.
#
# A load that begins while Linux deletes the disk finds it gone or empty. That this is Linux's doing, and the device never says 0, is
# checked: guest/diskwatch.c asks the device itself all the time, and each new driver must have been told the right size.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
build=$1
rounds=${2:-200}
seconds=${3:-20}
format=${4:-raw}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
kernel=$("$here/scripts/kernel.sh")

cat >"$dir/init" <<'INIT'
#!/bin/sh
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
load-modules
for word in $(cat /proc/cmdline); do
    case $word in rounds=*) rounds=${word#*=} ;; seconds=*) seconds=${word#*=} ;; esac
done
for device in /sys/bus/virtio/devices/*; do
    [ -d "$device/block" ] && name=${device##*/}
done
diskload /dev/vda verify 4096 32 "$seconds" || echo "verification failed"
diskwatch /dev/vda "$(dirname "$(readlink -f "/sys/bus/virtio/devices/$name")")" 131072 &
watch=$!
dmesg -c >/dev/null
i=0
late=0
while [ $i -lt "$rounds" ]; do
    i=$((i + 1))
    diskload /dev/vda verify 4096 32 1000 $i >/tmp/out 2>&1 &
    load=$!
    usleep $((i * 317 % 30000))
    echo "$name" >/sys/bus/virtio/drivers/virtio_blk/unbind || echo "unbinding failed"
    wait $load
    status=$?
    case $status in
        3) ;; # requests failed
        4) late=$((late + 1)) ;; # Linux had deleted the disk, or was about to
        *) echo "the load ended with $status"; cat /tmp/out ;;
    esac
    echo "$name" >/sys/bus/virtio/drivers/virtio_blk/bind || { echo "binding failed"; break; }
    n=0
    while [ ! -b /dev/vda ]; do
        usleep 1000
        n=$((n + 1))
        [ $n -lt 5000 ] || { echo "the disk has not come back"; break; }
    done
    dmesg -c >/tmp/out
    grep -q '\[vda\] 131072 512-byte logical blocks' /tmp/out || { echo "the driver was told what differs from the size"; cat /tmp/out; }
done
kill $watch
wait $watch || echo "watching failed"
echo "$late loads came too late"
diskload /dev/vda verify 4096 32 "$seconds" || echo "verification failed"
echo "done: $i rounds"
poweroff -f
INIT
chmod 755 "$dir/init"
"$here/scripts/initramfs.sh" "$dir/initrd" "$dir/init" virtio_pci virtio_blk
mkdir -p "$dir/extra/bin"
for program in diskload diskwatch; do
    cc -O2 -static -D_GNU_SOURCE -o "$dir/extra/bin/$program" "$here/guest/$program.c"
done
(cd "$dir/extra" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >>"$dir/initrd"
truncate -s 64M "$dir/base"
status=0
for engine in translate interpret; do
    for rings in split packed; do
        cp --sparse=always "$dir/base" "$dir/disk"
        if [ "$format" = qcow2 ]; then
            rm "$dir/disk"
            "$build/veneer" disk create "$dir/disk" --backing "$dir/base" --backing-format raw
        fi
        "$build/veneer" run --engine $engine --cpus 2 --virtio-rings $rings --kernel "$kernel" --initrd "$dir/initrd" \
            --append "console=ttyS0 quiet panic=-1 iomem=relaxed rounds=$rounds seconds=$seconds" --disk "$dir/disk,format=$format,queues=4" >"$dir/out" 2>&1 </dev/null || status=1
        if ! grep -q "done: $rounds rounds" "$dir/out" || grep -qE 'failed|ended with|not come back|differs from|BUG|WARNING' "$dir/out" ||
            [ "$(grep -c 'nothing differs' "$dir/out")" != 2 ] || ! grep -q 'Linux emptied the disk [1-9]' "$dir/out"; then
            echo "$engine, $rings rings: failed"
            tail -n 30 "$dir/out"
            status=1
        elif [ "$format" = qcow2 ] && ! qemu-img check -q "$dir/disk"; then
            echo "$engine, $rings rings: the image is damaged"
            status=1
        else
            echo "$engine, $rings rings: $rounds rounds, verified; $(sed -n 's/^diskwatch: //p' "$dir/out" | tr -d '\r')"
        fi
    done
done
exit $status
