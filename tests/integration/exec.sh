#!/bin/bash
# exec.sh VENEER AGENT ENGINE ROUNDS PARALLEL [KIB]: boots Debian's kernel with the agent, runs ROUNDS commands in a row and PARALLEL at
# once, several times; each must give its own output and status. Then neither the machine's process nor the agent may hold
# more descriptors, nor the guest more processes, than after the first few commands, nor the machine's process more than
# KIB more memory (not for a build with sanitizers, which keep what is freed). Also list, stop, signals, terminals, clients that are killed, and what a machine's end looks like.
set -u
veneer=$1 agent=$2 engine=$3 rounds=$4 parallel=$5
here=$(cd "$(dirname "$0")" && pwd)
kernel=$("$here/../../scripts/kernel.sh") || exit 1
folder=$(mktemp -d)
export VENEER_RUNTIME=$folder/run VENEER_LOG=error
export VENEER_STORE="$VENEER_RUNTIME.store"
failures=0
checks=0
cleanup() {
    "$veneer" stop --force one >/dev/null 2>&1
    rm -rf "$folder"
}
trap cleanup EXIT
fail() {
    failures=$((failures + 1))
    echo "exec: $*"
}
# same GOT DUE WHAT
same() {
    checks=$((checks + 1))
    [ "$1" = "$2" ] || fail "$3: '$1' (due: '$2')"
}
run() { "$veneer" run --engine "$engine" --memory 256M --kernel "$kernel" --initrd "$folder/initrd" --append "console=ttyS0 quiet panic=-1$append" "$@"; }
in_guest() { "$veneer" exec one -- "$@"; }
append=
sh "$here/agent-initrd.sh" "$(dirname "$kernel")/.." "$agent" "$folder/initrd" || exit 1

# One command in a machine of its own.
same "$(run -- sh -c 'echo out; echo err >&2; exit 9' 2>"$folder/err"; echo $?)" "out
9" "a command of run"
same "$(cat "$folder/err")" err "its standard error"
same "$("$veneer" list --format json | tr -d ' \n')" "[]" "the list afterwards"
append=" agent=panic"
same "$(run -- true 2>"$folder/err"; echo $?)" 125 "a guest that panics"
checks=$((checks + 1))
grep -q 'console: .*Kernel panic' "$folder/err" || fail "the console of a guest that panicked is not shown: $(cat "$folder/err")"
append=" agent=none"
# One that never comes up is not waited for as long as one that shuts down.
same "$(run --detach --name deaf)" deaf "run --detach"
same "$(VENEER_LOG=warning "$veneer" stop deaf 2>&1; echo $?)" "veneer: warning: the guest of 'deaf' is not up yet, or does not listen to its power button; the machine is forced to end
0" "stop of a guest that is not up"
append=

# A machine that stays.
same "$(ulimit -Sn 256 && run --detach --name one)" one "run --detach"
same "$(run --detach --name one 2>&1)" "veneer: error: a machine 'one' runs already" "a second one of that name"
same "$(in_guest echo first)" first "the first command"
same "$("$veneer" list | awk 'NR == 2 {print $1, $2, $4, $NF}')" "one running $engine yes" "list"
for _ in 1 2 3 4 5; do in_guest true; done
same "$(in_guest sh -c 'kill -9 $$'; echo $?)" 137 "a signal's status"
same "$(in_guest no-such-command 2>&1; echo $?)" "veneer: error: 'no-such-command': command not found
127" "a command that is not there"
same "$(in_guest /etc/passwd 2>/dev/null; echo $?)" 126 "one that cannot be executed"
same "$("$veneer" exec --user user --cwd /tmp --env A=b one -- sh -c 'id -un; pwd; echo $A $HOME')" "user
/tmp
b /tmp" "user, folder and environment"
same "$("$veneer" exec -t one -- sh -c 'test -t 0 && test -t 2 && echo terminal' | tr -d '\r')" terminal "a terminal"
head -c 3000000 /dev/urandom >"$folder/bytes"
same "$("$veneer" exec -i one -- cat <"$folder/bytes" | cmp - "$folder/bytes" && echo same)" same "3 MB through cat"
same "$(echo to be read | "$veneer" exec one -- wc -c | tr -d ' ')" 0 "no input without -i"
# A client that is killed takes its command with it.
"$veneer" exec one -- sleep 4321 &
client=$!
sleepers() { in_guest sh -c 'grep -l "^sleep.4321" /proc/[0-9]*/cmdline | wc -l'; }
until_sleepers() { # COUNT
    for ((tries = 0; tries < 300; tries++)); do
        [ "$(sleepers)" = "$1" ] && return
        sleep 0.1
    done
}
until_sleepers 1
same "$(sleepers)" 1 "a command under way"
kill -9 $client
wait $client 2>/dev/null
until_sleepers 0
same "$(sleepers)" 0 "the command of a killed client"

pid=$("$veneer" list | awk '$1 == "one" {print $3}')
# It may have as many descriptors as the hard limit allows, whatever the soft one was.
same "$(awk '/^Max open files/ {print $4 == ($5 < 1048576 ? $5 : 1048576)}' "/proc/$pid/limits")" 1 "the machine's limit of descriptors"
in_agent='ls /proc/$(pidof veneer-agent)/fd | wc -l'
held() { # descriptors of the machine's process and of the agent; processes in the guest but the kernel's own, which come and go
    ls "/proc/$pid/fd" | wc -l
    in_guest sh -c "$in_agent; cat /proc/[0-9]*/status 2>/dev/null | grep '^PPid' | grep -vwc 2"
}
# settled [DUE]: what is held once that is DUE, or else the same three times: what ended last is still on its way out.
settled() {
    local now= last=${1:-} due=$((${#1} ? 1 : 2)) same=0
    for ((tries = 0; tries < 60 && same < due; tries++)); do
        [ $tries = 0 ] || sleep 0.5
        now=$(held)
        same=$((same + 1))
        [ "$now" = "$last" ] || same=0
        last=${1:-$now}
    done
    echo "$now"
}
resident() { awk '/^RssAnon/ {print $2}' "/proc/$pid/status"; }
together() {
    for ((i = 0; i < parallel; i++)); do
        (
            out=$(in_guest sh -c "echo number $1.$i; exit $((i % 100))")
            [ "$?:$out" = "$((i % 100)):number $1.$i" ] || echo "$?:$out" >>"$folder/wrong"
        ) &
        jobs="$jobs $!"
    done
    wait $jobs
    jobs=
}
jobs=
together warm
before=$(settled "")
memory=$(resident)
for ((n = 0; n < rounds; n++)); do
    out=$(in_guest sh -c "echo $n; exit $((n % 256))")
    [ "$?:$out" = "$((n % 256)):$n" ] || echo "$n gave $out" >>"$folder/wrong"
done
for n in 1 2 3; do together $n; done
checks=$((checks + rounds + 3 * parallel))
[ ! -e "$folder/wrong" ] || fail "wrong: $(cat "$folder/wrong")"
after=$(settled "$before")
same "$after" "$before" "descriptors and processes held"
grown=$(($(resident) - memory))
echo "exec: $rounds commands in a row and 3 times $parallel at once; memory of the machine's process grew by $grown KiB"
checks=$((checks + 1))
[ -z "${6:-}" ] || [ $grown -lt "$6" ] || fail "the machine's process grew by $grown KiB"

same "$("$veneer" stop one; echo $?)" 0 "stop"
same "$("$veneer" list --format json | tr -d ' \n')" "[]" "the list after stop"
same "$(in_guest true 2>&1; echo $?)" "veneer: error: no machine 'one' is running; 'veneer list' shows those that are
125" "a command after stop"
# A machine whose process dies leaves nothing that is in the way.
run --detach --name one >/dev/null
kill -9 "$("$veneer" list | awk '$1 == "one" {print $3}')"
for ((tries = 0; tries < 100 && $("$veneer" list | wc -l) > 1; tries++)); do sleep 0.1; done # it dies in its own time
same "$(run --detach --name one)" one "a machine in a dead one's place"
same "$("$veneer" stop --force one; echo $?)" 0 "stop --force"
echo "$checks checks, $failures failures"
[ $failures = 0 ]
