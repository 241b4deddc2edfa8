#!/bin/bash
# services.sh SERVICES_TEST INIT ENGINE RINGS: sockets and balloon with the modules of Debian's kernel; INIT is the static
# program of services-init.c.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kernel=$("$here/../../scripts/kernel.sh")
modules=$(echo "$(dirname "$kernel")"/../lib/modules/*/kernel)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/root" "$folder/root/proc" "$folder/root/sys" "$folder/root/dev" "$folder/root/modules"
cp "$2" "$folder/root/init"
number=10
for module in drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_legacy_dev \
    drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci drivers/virtio/virtio_balloon net/vmw_vsock/vsock \
    net/vmw_vsock/vmw_vsock_virtio_transport_common net/vmw_vsock/vmw_vsock_virtio_transport \
    drivers/char/virtio_console; do
    cp "$modules/$module.ko" "$folder/root/modules/$number-${module##*/}.ko"
    number=$((number + 1))
done
(cd "$folder/root" && find . | cpio --quiet -o -H newc -R 0:0) >"$folder/initrd"
"$1" "$3" "$kernel" "$folder/initrd" "$4"
