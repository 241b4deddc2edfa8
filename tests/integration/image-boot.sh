#!/bin/bash
# image-boot.sh VENEER ENGINE: `veneer run IMAGE` with a tiny image, Debian's kernel and a busybox that mounts its disk: the
# kernel, the initramfs and the command line come out of the disk, a named instance goes on where it was, one without a
# name does not, and what a guest writes to /etc/kernel/cmdline counts at its next start.
set -eu
veneer=$1
engine=$2
here=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export VENEER_STORE="$dir/store" VENEER_RUNTIME="$dir/run"

kernel=$("$here/scripts/kernel.sh")
version=${kernel##*/vmlinuz-}
modules=${kernel%/boot/*}/lib/modules/$version/kernel/drivers
cat >"$dir/init" <<'EOF'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module"; done
mount /dev/vda1 /mnt && read count </mnt/count
echo "tiny: start $count, cmdline $(cat /proc/cmdline)"
echo $((count + 1)) >/mnt/count
echo 'quiet written-by-the-guest' >/mnt/etc/kernel/cmdline
umount /mnt
poweroff -f
EOF
"$here/scripts/initramfs.sh" "$dir/base" "$dir/init"
mkdir -p "$dir/extra/modules" "$dir/extra/mnt" "$dir/root/boot" "$dir/root/etc/kernel"
n=0
for module in virtio/virtio_ring virtio/virtio virtio/virtio_pci_legacy_dev virtio/virtio_pci_modern_dev virtio/virtio_pci block/virtio_blk; do
    n=$((n + 1))
    cp "$modules/$module.ko" "$dir/extra/modules/$n-${module##*/}.ko"
done
# Linux takes several archives, one after another.
(cat "$dir/base"; cd "$dir/extra" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$dir/root/boot/initrd.img-$version"
cp "$kernel" "$dir/root/boot/vmlinuz-$version"
echo 0 >"$dir/root/count"
echo 'quiet from-the-image' >"$dir/root/etc/kernel/cmdline"
tar -C "$dir/root" --numeric-owner --owner=0 --group=0 -cf "$dir/root.tar" .
"$veneer" image import "$dir/root.tar" tiny --size 128M 2>/dev/null

boot() { # boot TEXT ARG...: `veneer run tiny ARG...` prints TEXT and ends well
    want=$1
    shift
    if ! "$veneer" run tiny --engine "$engine" "$@" </dev/null >"$dir/out" 2>"$dir/err" || ! grep -q "$want" "$dir/out"; then
        echo "veneer run tiny $*: lacks '$want':"
        cat "$dir/out" "$dir/err"
        exit 1
    fi
}
boot '^tiny: start 0, cmdline root=PARTUUID=[0-9a-f-]* console=ttyS0 quiet from-the-image' --name kept
boot '^tiny: start 1, cmdline root=PARTUUID=[0-9a-f-]* console=ttyS0 quiet written-by-the-guest more' --name kept --append more
boot '^tiny: start 0, .*from-the-image'
[ "$(ls "$dir/store/instances")" = kept ] || { echo "a temporary instance is left: $(ls "$dir/store/instances")"; exit 1; }
[ "$("$veneer" list | awk 'NR > 1 {$1 = $1; print}')" = 'kept stopped - - - - - tiny no' ] || { echo "veneer list: $("$veneer" list)"; exit 1; }
for key in pid engine cpus memory started agent; do
    "$veneer" list --format json | grep -q "\"$key\": *null" || { echo "$key of a stopped machine is not null: $("$veneer" list --format json)"; exit 1; }
done
if "$veneer" image delete tiny 2>"$dir/err" || ! grep -q 'used by kept' "$dir/err"; then
    echo "an image in use was deleted: $(cat "$dir/err")"
    exit 1
fi
"$veneer" delete kept
"$veneer" image delete tiny
[ -z "$(ls "$dir/store/instances" "$dir/store/images" | grep -v :)" ] || { echo "files are left in the store"; exit 1; }
echo "3 starts as they should be"
