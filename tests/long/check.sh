#!/bin/bash
# check.sh VENEER KERNEL: boots KERNEL (an unmodified bzImage) to /init and down again under translate,check: each trace's work
# is compared with the interpreter's. A difference ends it. About half a minute of CPU time.
set -u
if [ $# -lt 2 ]; then
    echo "usage: check.sh VENEER KERNEL" >&2
    exit 2
fi
veneer=$1 kernel=$2
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$here/initrd.sh" "$folder/initrd" || exit 2
timeout "${LIMIT:-600}" "$veneer" run --stats --engine translate,check --memory 256M --kernel "$kernel" \
    --initrd "$folder/initrd" --append "console=ttyS0 panic=-1" </dev/null >"$folder/log" 2>&1
status=$?
if [ $status != 0 ] || ! grep -q "LONG-INIT ok, 1 CPUs" "$folder/log"; then
    tail -n 100 "$folder/log"
    echo "check: failed, status $status"
    exit 1
fi
compared=$(awk '/runs_compared/ { sum += $2 } END { print sum + 0 }' "$folder/log")
faults=$(awk '/faults_compared/ { sum += $2 } END { print sum + 0 }' "$folder/log")
echo "check: $compared runs of traces compared, $faults of them to a fault, no difference"
[ "$compared" -gt 1000000 ]
