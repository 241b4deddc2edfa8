#!/bin/bash
# initrd.sh FILE: makes the initramfs of the long tests, with init.c as /init.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/proc" "$folder/dev"
gcc -O1 -static -o "$folder/init" "$here/init.c"
[ "$(id -u)" != 0 ] || mknod "$folder/dev/console" c 5 1
(cd "$folder" && find . | cpio --quiet -o -H newc -R 0:0) >"$1"
