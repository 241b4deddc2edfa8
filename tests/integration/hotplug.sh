#!/bin/bash
# hotplug.sh HOTPLUG_TEST INIT ENGINE ROUNDS: hot-plug in Debian's kernel; INIT is the static program of hotplug-init.c.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kernel=$("$here/../../scripts/kernel.sh")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/root" "$folder/root/proc" "$folder/root/sys"
cp "$2" "$folder/root/init"
(cd "$folder/root" && find . | cpio --quiet -o -H newc -R 0:0) >"$folder/initrd"
"$1" "$3" "$4" "$kernel" "$folder/initrd"
