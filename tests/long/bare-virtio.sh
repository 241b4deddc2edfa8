#!/bin/bash
# bare-virtio.sh BUILD [OPERATIONS [RESETS]]: a driver of ours (guest/virtio.c) verifies a disk of four queues with 32 requests at once
# in each, with flushes, discards and write-zeroes among them, then resets it under load, 200 times unless given: under every
# engine, kvm too where that is a KVM in software, on split and packed rings. The operations (unless given: a minute's, at
# least, on a machine with nothing else to do) are those of one way of using the rings; three ways each are driven, the first by
# looking at the rings all the time, the others by interrupts.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=$1 resets=${3:-200} failed=0
export VENEER_QUEUES=4 VENEER_SECONDS=7200
for engine in kvm translate interpret; do
    operations=${2:-$([ $engine = interpret ] && echo 150000 || echo 600000)}
    for rings in split packed; do
        [ $rings = split ] && ways="0 3,interrupts 4,interrupts" || ways="6 9,interrupts 10,interrupts"
        for way in $ways; do
            start=$SECONDS
            output=$(VENEER_RUN_OPTIONS="--virtio-rings $rings" "$here/../guest/virtio.sh" $engine "$build/guest/virtio.elf" \
                "$build/veneer" "way=${way%%,*}" "${way#*,}" "operations=$operations" "resets=$resets" depth=32 ring3)
            status=$?
            name=$(grep -a '^blk: ' <<<"$output")
            if [ $status = 77 ]; then
                tail -n 1 <<<"$output"
            elif [ $status = 0 ]; then
                echo "$engine, ${name#blk: }: $(grep -a ' at once' <<<"$output"), $resets resets, $((SECONDS - start)) s"
            else
                failed=$((failed + 1))
                echo "$engine, ${name#blk: }: failed"
                tail -n 20 <<<"$output"
            fi
        done
    done
done
echo "$failed runs failed"
[ $failed = 0 ]
