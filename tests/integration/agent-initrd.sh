#!/bin/sh
# agent-initrd.sh KERNEL_ROOT AGENT OUTPUT: an initramfs of busybox that loads the drivers for vsock out of an unpacked kernel
# package and runs veneer's agent: the smallest guest that serves `veneer exec`. Powers off when the agent ends.
set -eu
kernel=$1 agent=$2 output=$3
modules=$(echo "$kernel"/lib/modules/*)/kernel
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/tmp" "$root/etc" "$root/modules"
chmod 755 "$root"
chmod 1777 "$root/tmp"
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in $(busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
cp "$agent" "$root/bin/veneer-agent"
for module in drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_legacy_dev \
    drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci net/vmw_vsock/vsock \
    net/vmw_vsock/vmw_vsock_virtio_transport_common net/vmw_vsock/vmw_vsock_virtio_transport; do
    cp "$modules/$module.ko" "$root/modules/"
    basename "$module" >>"$root/modules/order"
done
echo root:x:0:0:root:/:/bin/sh >"$root/etc/passwd"
echo user:x:1000:1000:user:/tmp:/bin/sh >>"$root/etc/passwd"
echo root:x:0: >"$root/etc/group"
echo user:x:1000: >>"$root/etc/group"
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts -o gid=5,mode=620 devpts /dev/pts
for module in $(cat /modules/order); do
    insmod /modules/$module.ko || echo "no $module"
done
case $(cat /proc/cmdline) in
*agent=none*) sleep 1000 ;;
*agent=panic*) exit 1 ;;
esac
veneer-agent
poweroff -f
INIT
chmod 755 "$root/init"
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$output"
