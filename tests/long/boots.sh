#!/bin/bash
# boots.sh ENGINE N CPUS VENEER KERNEL: boots KERNEL (an unmodified bzImage) N times to /init and down again, and says how many of
# them failed. LIMIT (seconds, default 120) ends a boot that hangs. Logs of failed boots stay in the folder it names.
set -u
if [ $# != 5 ]; then
    echo "usage: boots.sh ENGINE N CPUS VENEER KERNEL" >&2
    exit 2
fi
engine=$1 count=$2 cpus=$3 veneer=$4 kernel=$5
here=$(cd "$(dirname "$0")" && pwd)
logs=$(mktemp -d)
"$here/initrd.sh" "$logs/initrd" || exit 2
failed=0
for ((i = 1; i <= count; i++)); do
    timeout "${LIMIT:-120}" "$veneer" run --engine "$engine" --cpus "$cpus" --memory 256M --kernel "$kernel" --initrd "$logs/initrd" \
        --append "console=ttyS0 panic=-1" </dev/null >"$logs/$i" 2>&1
    status=$?
    if [ $status = 0 ] && grep -q "LONG-INIT ok, $cpus CPUs" "$logs/$i" && ! grep -Eq 'BUG:|WARNING:|Oops|soft lockup|RIP:' "$logs/$i"; then
        rm "$logs/$i"
    else
        failed=$((failed + 1))
        echo "boot $i failed (status $status): $logs/$i"
    fi
done
echo "$count boots under $engine with $cpus CPUs, $failed failed"
[ "$failed" = 0 ] && rm -r "$logs"
[ "$failed" = 0 ]
