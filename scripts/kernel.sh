#!/bin/sh
# kernel.sh: fetches Debian's cloud kernel from the package mirror into the cache, unpacks it, and prints
# the path of the bzImage. The file is used byte for byte as Debian ships it. Several may run at once: the first fetches,
# the others wait for it.
set -eu
cache=${VENEER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/veneer}
mkdir -p "$cache/kernel"
cd "$cache/kernel"
found() { ls -1v "$cache"/kernel/root/boot/vmlinuz-*-cloud-amd64 2>/dev/null | tail -n 1; }
if [ -z "$(found)" ]; then
    exec 9>lock
    flock 9
fi
if [ -z "$(found)" ]; then
    # linux-image-cloud-amd64 depends on the package that holds the current kernel.
    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    if [ -z "$package" ]; then
        echo "The package lists lack linux-image-cloud-amd64; run 'apt-get update' (Debian 12 is expected)." >&2
        exit 1
    fi
    echo "Fetching $package" >&2
    rm -f ./*.deb
    apt-get download -qq -o APT::Sandbox::User=root "$package" >&2
    rm -rf root.new root
    dpkg-deb -x ./*.deb root.new
    rm -f ./*.deb
    mv root.new root
fi
found
