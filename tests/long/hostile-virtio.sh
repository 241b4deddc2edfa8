#!/bin/bash
# hostile-virtio.sh BUILD [SEEDS [ROUNDS [ENGINE [CPUS]]]]: the hostile driver (guest/hostile-virtio/) with many seeds and a long random
# part, and devices that write on code and page tables (guest/dma.c), on split and packed rings. BUILD is best one with sanitizers.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=$1 seeds=${2:-20} rounds=${3:-4000} engine=${4:-translate} cpus=${5:-1} failed=0
export VENEER_SECONDS=1800
run() { # WHAT KERNEL OPTION...
    local what=$1 kernel=$2 output
    shift 2
    output=$("$here/../guest/virtio.sh" "$engine" "$build/guest/$kernel.elf" "$build/veneer" "$@") && return
    failed=$((failed + 1))
    echo "$what:"
    grep -aE 'FAIL|ERROR|runtime error|status|    #' <<<"$output" | head -30
}
for ((seed = 1; seed <= seeds; seed++)); do
    for rings in split packed; do
        export VENEER_RUN_OPTIONS="--virtio-rings $rings --cpus $cpus"
        run "seed $seed, $rings rings" hostile-virtio "seed=$seed" "rounds=$rounds"
    done
done
VENEER_RUN_OPTIONS="--cpus 2" run "code and page tables" dma "rounds=$rounds"
echo "$engine, $cpus CPU: $seeds seeds of $rounds rounds, $failed runs failed"
[ "$failed" = 0 ]
