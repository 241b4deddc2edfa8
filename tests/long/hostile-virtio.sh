#!/bin/bash
# hostile-virtio.sh BUILD [SEEDS [ROUNDS]]: the hostile driver (guest/hostile-virtio.c) with many seeds and a long random part, on split and
# packed rings. BUILD is best one with sanitizers.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=$1 seeds=${2:-20} rounds=${3:-4000} failed=0
for ((seed = 1; seed <= seeds; seed++)); do
    for rings in split packed; do
        if ! output=$(VENEER_RUN_OPTIONS="--virtio-rings $rings" "$here/../guest/virtio.sh" translate "$build/guest/hostile-virtio.elf" \
            "$build/veneer" "seed=$seed" "rounds=$rounds"); then
            failed=$((failed + 1))
            echo "seed $seed, $rings rings:"
            grep -aE 'FAIL|ERROR|runtime error|status|    #' <<<"$output" | head -30
        fi
    done
done
echo "$seeds seeds of $rounds rounds, $failed runs failed"
[ "$failed" = 0 ]
