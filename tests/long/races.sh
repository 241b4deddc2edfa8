#!/bin/bash
# races.sh BUILD [ROUNDS [ENGINE...]]: hot-plug of cards and devices, 200 rounds of each kind unless given, in a BUILD with
# ThreadSanitizer (-Db_sanitize=thread), under the engines given (translate and kvm otherwise): with a test kernel of ours, and, but
# for kvm, with Debian's kernel.
#
# Reports about the guest's RAM are left out: the guest and a device may touch the same bytes at the same time, and what comes of it
# is the guest's affair; what a device reads there it reads once (docs/virtio.md).
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=$1 rounds=${2:-200} failed=0
test=$build/tests/integration/hotplug_test
shift
[ $# = 0 ] || shift
[ $# != 0 ] || set -- translate kvm
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export TSAN_OPTIONS="exitcode=0 second_deadlock_stack=1 history_size=4"

# Reports on standard input, but for those of the guest's RAM.
ours() {
    awk -v RS='==================\n' '/ThreadSanitizer:/ && !/memfd:veneer-ram/ && !/reported [0-9]+ warnings/'
}

try() { # WHAT COMMAND...
    local what=$1 start=$SECONDS status reports
    shift
    "$@" >"$log" 2>&1
    status=$?
    if [ $status = 77 ]; then
        tail -n 1 "$log"
        return
    fi
    reports=$(ours <"$log")
    echo "$what: $(grep -a ' rounds of ' "$log"), $(grep -ac 'WARNING: ThreadSanitizer' "$log") reports, $((SECONDS - start)) s"
    if [ $status != 0 ] || [ -n "$reports" ]; then
        failed=$((failed + 1))
        echo "$what: status $status"
        tail -n 5 "$log"
        head -c 20000 <<<"$reports"
    fi
}

for engine; do
    for kind in cards devices packed; do
        try "our kernel" "$test" "$engine" "$rounds" "$build/guest/hotplug.elf" - $kind
        [ "$engine" = kvm ] || try "Debian's kernel" "$here/../integration/hotplug.sh" "$test" \
            "$build/tests/integration/hotplug-init" "$engine" "$rounds" $kind
    done
done
echo "$failed runs failed"
[ $failed = 0 ]
