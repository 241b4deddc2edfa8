#!/bin/bash
# hotplug.sh HOTPLUG_TEST INIT ENGINE ROUNDS [cards|devices|packed]: hot-plug in Debian's kernel; INIT is the static program of
# hotplug-init.c. All but "cards" bring the modules of its virtio drivers.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kernel=$("$here/../../scripts/kernel.sh")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$here/hotplug-initrd.sh" "$2" "${5:-cards}" "$kernel" "$folder/initrd"
"$1" "$3" "$4" "$kernel" "$folder/initrd" "${5:-cards}"
