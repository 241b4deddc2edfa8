#!/bin/bash
# hotplug.sh BUILD [ROUNDS]: tests/integration/hotplug_test, 200 rounds of each kind unless given: with a test kernel of ours
# (guest/hotplug.c) under every engine, kvm too where that is a KVM in software; with Debian's kernel under both software engines.
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=$1 rounds=${2:-200} failed=0

tell() { # STATUS WHAT
    [ "$1" = 0 ] || [ "$1" = 77 ] || { failed=$((failed + 1)); echo "$2: failed"; }
}

for engine in kvm translate interpret; do
    for kind in cards devices packed; do
        start=$SECONDS
        "$build/tests/integration/hotplug_test" $engine "$rounds" "$build/guest/hotplug.elf" - $kind
        tell $? "our kernel, $kind under $engine"
        echo "our kernel: $((SECONDS - start)) s"
    done
done
for kind in cards devices packed; do
    for engine in translate interpret; do
        start=$SECONDS
        "$here/../integration/hotplug.sh" "$build/tests/integration/hotplug_test" "$build/tests/integration/hotplug-init" $engine \
            "$rounds" $kind
        tell $? "Debian's kernel, $kind under $engine"
        echo "Debian's kernel: $((SECONDS - start)) s"
    done
done
echo "$failed runs failed"
[ $failed = 0 ]
