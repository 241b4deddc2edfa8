#!/bin/bash
# boot-kvm.sh VENEER KERNEL INITRD [APPEND...]: boots an unmodified kernel to /init under the kvm engine and prints
# how long that took. Where KVM emulates kernel code in software it takes minutes, so this is not in
# `make test`; the kernel then also wants less work, for its timer ticks must fit between two:
#   boot-kvm.sh build/veneer vmlinuz initrd panic=-1 highres=off nohz=off nosmap nowatchdog mitigations=off \
#     clearcpuid=avx512f,avx2,ssse3 cryptomgr.notests=1 initcall_blacklist=ftrace_check_init,trace_eval_init,crypto_algapi_init
# (such a KVM shows the guest the host's AVX-512, which nothing can emulate). An initrd that is not compressed saves minutes.
# LIMIT (seconds, default 1800) ends a boot that does not come to an end. Status 77: there is no KVM here.
set -u
if [ $# -lt 3 ]; then
    echo "usage: boot-kvm.sh VENEER KERNEL INITRD [APPEND...]" >&2
    exit 2
fi
veneer=$1 kernel=$2 initrd=$3
shift 3
reason=$("$veneer" engines | grep -E '^[* ] kvm +no')
if [ -n "$reason" ]; then
    echo "SKIP: $reason"
    exit 77
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
start=$(date +%s)
timeout "${LIMIT:-1800}" "$veneer" run --stats --engine kvm --kernel "$kernel" --initrd "$initrd" \
    --append "console=ttyS0 $*" </dev/null >"$log" 2>&1
status=$?
end=$(date +%s)
tail -n 30 "$log"
if ! grep -q 'Run /init as init process' "$log"; then
    echo "boot-kvm: /init was not reached in $((end - start)) s (status $status)"
    exit 1
fi
echo "boot-kvm: /init was reached; the whole run took $((end - start)) s, status $status"
