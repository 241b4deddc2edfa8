/* image_debian.c - what makes Debian's packages a guest of veneer. docs/images.md argues each choice. */
#include "host/image_private.h"

/* Besides what is essential: the smallest system that a person would call Debian. */
const char debian_packages[] =
    "linux-image-cloud-amd64,initramfs-tools,lz4,kmod,udev,systemd,systemd-sysv,dbus,e2fsprogs,"
    "debian-archive-keyring,ca-certificates,procps,iproute2,less,nano,login,passwd,mount";

const char debian_extract_hook[] =
    "set -e\n"
    "mkdir -p \"$1/etc/kernel\"\n"
    "echo 'ro quiet' >\"$1/etc/kernel/cmdline\"\n"
    "cat >\"$1/etc/fstab\" <<'EOF'\n"
    "# <file system> <mount point> <type> <options> <dump> <pass>\n"
    "LABEL=root / ext4 errors=remount-ro 0 1\n"
    "EOF\n";

/* Root logs in on the console without a password, since who has the console has the disk. Timers that want a network or do
 * housekeeping for disks that live for years stay off. The modules that are not loaded ahead come with their first use, or
 * have no use in a virtual machine. Users and groups of packages are as their installation left them (.updated), so
 * systemd-sysusers has nothing to do until /usr changes. */
const char debian_customize_hook[] =
    "set -e\n"
    "echo debian >\"$1/etc/hostname\"\n"
    "printf '127.0.0.1 localhost\\n127.0.1.1 debian\\n::1 localhost ip6-localhost ip6-loopback\\n' >\"$1/etc/hosts\"\n"
    "echo 'LANG=C.UTF-8' >\"$1/etc/default/locale\"\n"
    "mkdir -p \"$1/etc/systemd/system/serial-getty@.service.d\"\n"
    "cat >\"$1/etc/systemd/system/serial-getty@.service.d/autologin.conf\" <<'EOF'\n"
    "[Service]\n"
    "ExecStart=\n"
    "ExecStart=-/sbin/agetty -o '-p -f -- \\\\u' --autologin root --noclear --keep-baud 115200,57600,38400,9600 - $TERM\n"
    "EOF\n"
    /* systemd looks for hvc0 before udev has loaded its driver, so it would have no login. */
    "mkdir -p \"$1/etc/udev/rules.d\"\n"
    "echo 'SUBSYSTEM==\"tty\", KERNEL==\"hvc0\", TAG+=\"systemd\", ENV{SYSTEMD_WANTS}+=\"serial-getty@hvc0.service\"' \\\n"
    "    >\"$1/etc/udev/rules.d/70-hvc0-login.rules\"\n"
    "for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service dpkg-db-backup.timer"
    " getty@tty1.service; do\n"
    "    chroot \"$1\" systemctl -q disable \"$unit\"\n"
    "done\n"
    "for module in dm_mod drm efi_pstore loop; do\n"
    "    ln -s /dev/null \"$1/etc/systemd/system/modprobe@$module.service\"\n"
    "done\n"
    "if [ -e \"$1/usr/lib/systemd/system/veneer-agent.service\" ]; then\n"
    "    echo vmw_vsock_virtio_transport >\"$1/usr/lib/modules-load.d/veneer-agent.conf\"\n"
    "    chmod 755 \"$1/usr/lib/veneer/veneer-agent\"\n"
    "    chroot \"$1\" systemctl -q enable veneer-agent.service\n"
    "fi\n"
    "rm -f \"$1/etc/apt/apt.conf.d/99mmdebstrap\" \"$1\"/etc/ssh/ssh_host_*\n"
    ": >\"$1/etc/machine-id\"\n"
    "rm -f \"$1/var/lib/dbus/machine-id\" \"$1/etc/resolv.conf\"\n"
    "touch \"$1/etc/.updated\" \"$1/var/.updated\"\n";
