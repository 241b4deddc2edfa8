#!/bin/sh
# initramfs.sh OUTPUT INIT: an initramfs of Debian's static busybox with the file INIT as /init, and
# guest/debug-exit.c as /bin/debug-exit.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
output=$1
init=$2
busybox=$(command -v busybox) || { echo "initramfs.sh: busybox is not installed (package busybox-static)" >&2; exit 1; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/tmp"
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
"${CC:-cc}" -O2 -static -nostdlib -fno-stack-protector -o "$root/bin/debug-exit" "$here/guest/debug-exit.c"
cp "$init" "$root/init"
chmod 755 "$root/init"
mkdir -p "$(dirname "$output")"
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$output"
