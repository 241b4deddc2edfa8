#!/bin/bash
# virtio.sh ENGINE KERNEL VENEER [OPTION...]: runs a test kernel with virtio devices, on a scratch disk and a scratch folder; the
# options go to its command line. VENEER_QUEUES: of the disk; VENEER_SECONDS: until it is taken to hang; VENEER_RUN_OPTIONS: more options
# of "veneer run". ENGINE is one of veneer's, or "tcg": QEMU's devices, as a second judge.
engine=$1 kernel=$2 veneer=$3
shift 3
folder=$(mktemp -d /tmp/veneer-virtio-XXXXXX)
trap 'rm -rf "$folder"' EXIT
disk=$folder/disk
mkdir "$folder/share"
truncate -s 8M "$disk"
if [ "$engine" = tcg ]; then
    if ! command -v qemu-system-x86_64 >/dev/null; then
        echo "SKIP: qemu-system-x86_64 is not installed"
        exit 77
    fi
    output=$(timeout -k 5 120 qemu-system-x86_64 -accel tcg -cpu max -smp 2 -m 256 -no-reboot -display none -serial stdio -nic none \
        -kernel "$kernel" -append "$*" -device isa-debug-exit,iobase=0xf4,iosize=4 \
        -device virtio-rng-pci,disable-legacy=on,packed=on \
        -drive file="$disk",if=none,id=disk,format=raw,discard=unmap \
        -device virtio-blk-pci,drive=disk,disable-legacy=on,packed=on,num-queues=2,vectors=3 </dev/null 2>&1)
    status=$(($? - 1)) # isa-debug-exit turns status v into 2v+1
else
    if [ "$engine" = kvm ]; then
        reason=$("$veneer" engines | grep -E '^[* ] kvm +no')
        if [ -n "$reason" ]; then
            echo "SKIP: $reason"
            exit 77
        fi
    fi
    output=$(timeout -k 5 "${VENEER_SECONDS:-300}" "$veneer" run --engine "$engine" --memory 256M --kernel "$kernel" --append "$*" --debug-exit 0xf4 \
        --disk "$disk${VENEER_QUEUES:+,queues=$VENEER_QUEUES}" --share "$folder/share:tag" --vsock "$folder/vsock" \
        --port "first=$folder/port1" --port "second=$folder/port2" ${VENEER_RUN_OPTIONS-} </dev/null 2>&1)
    status=$?
fi
printf '%s\n' "$output" | tr -d '\r'
if [ "$status" != 0 ]; then
    echo "status $status"
    exit 1
fi
printf '%s\n' "$output" | grep -aq '^PASS: ' || { echo "no PASS line"; exit 1; }
