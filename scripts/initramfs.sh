#!/bin/sh
# initramfs.sh OUTPUT INIT [MODULE...]: an initramfs of Debian's static busybox with the file INIT as /init, and
# guest/debug-exit.c as /bin/debug-exit. The modules (virtio_blk ...) and what they depend on come from the kernel that
# kernel.sh prints, or from the folder MODULES_DIR; /bin/load-modules in the guest inserts them.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
output=$1
init=$2
shift 2
busybox=$(command -v busybox) || { echo "initramfs.sh: busybox is not installed (package busybox-static)" >&2; exit 1; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/tmp"
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
"${CC:-cc}" -O2 -static -nostdlib -fno-stack-protector -o "$root/bin/debug-exit" "$here/guest/debug-exit.c"

# add_module NAME: copies it after what it depends on, once. File names may have - where names have _.
add_module() {
    grep -qsx "$1.ko" "$root/lib/modules/order" && return
    file=$(find "$modules" -name "$(echo "$1" | sed 's/[-_]/[-_]/g').ko" | head -n 1)
    [ -n "$file" ] || { echo "initramfs.sh: the kernel has no module $1" >&2; exit 1; }
    for dependency in $(tr '\0' '\n' <"$file" | sed -n 's/^depends=//p' | tr ',' ' '); do
        add_module "$dependency"
    done
    file=$(find "$modules" -name "$(echo "$1" | sed 's/[-_]/[-_]/g').ko" | head -n 1)
    cp "$file" "$root/lib/modules/$1.ko"
    echo "$1.ko" >>"$root/lib/modules/order"
}
if [ $# -gt 0 ]; then
    modules=${MODULES_DIR:-$(dirname "$("$here/scripts/kernel.sh")")/../lib/modules}
    mkdir -p "$root/lib/modules"
    for module in "$@"; do
        add_module "$module"
    done
    printf '%s\n' '#!/bin/sh' 'while read -r file; do insmod "/lib/modules/$file" || exit 1; done </lib/modules/order' \
        >"$root/bin/load-modules"
    chmod 755 "$root/bin/load-modules"
fi
cp "$init" "$root/init"
chmod 755 "$root/init"
mkdir -p "$(dirname "$output")"
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$output"
