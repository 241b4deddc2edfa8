#!/bin/sh
# demo.sh VENEER: boots Debian's cloud kernel with a busybox initramfs. On a terminal: a guest shell;
# without one: a short script in the guest. Exits with the guest's status.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
veneer=$1
cache=${VENEER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/veneer}
kernel=$("$here/scripts/kernel.sh")
initrd=$cache/demo.cpio.gz
"$here/scripts/initramfs.sh" "$initrd" "$here/guest/demo-init"
append="console=ttyS0 quiet panic=-1"

if [ -t 0 ] && [ -t 1 ]; then
    exec "$veneer" run --kernel "$kernel" --initrd "$initrd" --append "$append demo=shell" --debug-exit 0xf4
fi

engine=$("$veneer" engines | sed -n 's/^\* \([a-z]*\).*/\1/p')
echo "demo: kernel $(basename "$kernel"), engine $engine"
start=$(date +%s%N)
status=0
fifo=$cache/demo.$$
mkfifo "$fifo"
trap 'rm -f "$fifo"' EXIT
"$veneer" run --kernel "$kernel" --initrd "$initrd" --append "$append" --engine "$engine" --debug-exit 0xf4 \
    </dev/null >"$fifo" &
while IFS= read -r line; do
    printf '%s\n' "$line"
    case $line in
    "demo: /init runs"*)
        echo "demo: $((($(date +%s%N) - start) / 1000000)) ms from start to /init under engine $engine" ;;
    esac
done <"$fifo"
wait $! || status=$?
echo "demo: the guest ended with status $status"
exit $status
