#!/bin/bash
# hotplug-initrd.sh INIT cards|devices|packed KERNEL OUTPUT: an initramfs with INIT as /init and, but for cards, the modules of their
# drivers from beside KERNEL.
set -eu
modules=$(echo "$(dirname "$3")"/../lib/modules/*/kernel)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir "$root/proc" "$root/sys" "$root/dev" "$root/mnt" "$root/modules"
cp "$1" "$root/init"
if [ "$2" != cards ]; then
    number=10
    for module in drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_legacy_dev \
        drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci drivers/block/virtio_blk fs/fuse/fuse fs/fuse/virtiofs; do
        cp "$modules/$module.ko" "$root/modules/$number-${module##*/}.ko"
        number=$((number + 1))
    done
fi
(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$4"
