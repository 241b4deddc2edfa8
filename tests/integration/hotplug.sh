#!/bin/bash
# hotplug.sh HOTPLUG_TEST INIT ENGINE ROUNDS [cards|devices]: hot-plug in Debian's kernel; INIT is the static program of
# hotplug-init.c. "devices" brings the modules of its virtio drivers.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kernel=$("$here/../../scripts/kernel.sh")
modules=$(echo "$(dirname "$kernel")"/../lib/modules/*/kernel)
kind=${5:-cards}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/root" "$folder/root/proc" "$folder/root/sys" "$folder/root/dev" "$folder/root/mnt" "$folder/root/modules"
cp "$2" "$folder/root/init"
if [ "$kind" = devices ]; then
    number=10
    for module in drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_legacy_dev \
        drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci drivers/block/virtio_blk fs/fuse/fuse fs/fuse/virtiofs; do
        cp "$modules/$module.ko" "$folder/root/modules/$number-${module##*/}.ko"
        number=$((number + 1))
    done
fi
(cd "$folder/root" && find . | cpio --quiet -o -H newc -R 0:0) >"$folder/initrd"
"$1" "$3" "$4" "$kernel" "$folder/initrd" "$kind"
