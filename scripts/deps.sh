#!/bin/sh
# deps.sh [--check] GROUP...: installs the Debian packages that each group needs and that are missing;
# with --check, only says what is missing and exits 1. Groups: build, demo, test.
set -eu

packages() {
    case $1 in
    build) echo gcc libc6-dev meson ninja-build pkg-config libzydis-dev liblz4-dev libzstd-dev zlib1g-dev liblzma-dev liburing-dev libext2fs-dev libsqlite3-dev libjson-c-dev nettle-dev libarchive-dev musl-tools ;;
    demo) echo ca-certificates busybox-static cpio gzip mmdebstrap debian-archive-keyring e2fsprogs uidmap ;;
    test) echo python3 binutils acpica-tools qemu-system-x86 qemu-utils e2fsprogs fdisk ;;
    *) echo "deps.sh: there is no group '$1'; give build, demo or test" >&2; exit 2 ;;
    esac
}

check=
[ "${1:-}" = --check ] && { check=yes; shift; }
missing=
for group in "$@"; do
    for package in $(packages "$group"); do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
done
[ -n "$missing" ] || exit 0
if [ -n "$check" ]; then
    echo "Missing Debian packages:$missing" >&2
    echo "'make deps' installs them (as root or with sudo); so do 'make demo' and 'make test'." >&2
    exit 1
fi
as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "Installing$missing needs root or sudo." >&2; exit 1; }
    as_root=sudo
fi
echo "Installing$missing"
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
