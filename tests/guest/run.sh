#!/bin/bash
# run.sh ENGINE KERNEL CPUS [VENEER [STATUS]]: runs a test kernel; passes when it prints PASS and the VM ends with
# the status (0 unless given).
# ENGINE is one of veneer's, or "tcg": QEMU, as a second judge of the kernels themselves.
engine=$1 kernel=$2 cpus=$3 veneer=$4 want=${5:-0}
if [ "$engine" = tcg ]; then
    if ! command -v qemu-system-x86_64 >/dev/null; then
        echo "SKIP: qemu-system-x86_64 is not installed"
        exit 77
    fi
    # isa-debug-exit turns status v into 2v+1.
    output=$(timeout 120 qemu-system-x86_64 -accel tcg -cpu max -smp "$cpus" -m 256 -no-reboot -display none -serial stdio \
        -kernel "$kernel" -device isa-debug-exit,iobase=0xf4,iosize=4 </dev/null 2>&1)
    status=$(($? - 1))
else
    if [ "$engine" = kvm ]; then
        reason=$("$veneer" engines | grep -E '^[* ] kvm +no')
        if [ -n "$reason" ]; then
            echo "SKIP: $reason"
            exit 77
        fi
    fi
    output=$(timeout 300 "$veneer" run --engine "$engine" --cpus "$cpus" --memory 256M --kernel "$kernel" --debug-exit 0xf4 \
        ${VENEER_RUN_OPTIONS-} </dev/null 2>&1)
    status=$?
fi
printf '%s\n' "$output" | tr -d '\r'
if [ "$status" != "$want" ]; then
    echo "status $status, not $want"
    exit 1
fi
printf '%s\n' "$output" | grep -aq '^PASS: ' || { echo "no PASS line"; exit 1; }
