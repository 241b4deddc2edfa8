#!/bin/sh
# demo.sh VENEER: Debian from its own disk. Builds the image when there is none yet; then, on a terminal: a shell in the guest.
# Without one: runs a command in the guest, which writes a file; starts the same instance again and finds it.
set -eu
veneer=$1
image=debian

has_image() { "$veneer" image list --format json | grep -q "\"name\": *\"$image\""; }
now() { date +%s%N; }

has_image || "$veneer" image build debian --name "$image"

if [ -t 0 ] && [ -t 1 ]; then
    echo "demo: a thin clone of the image '$image', which keeps what you write; 'poweroff' ends it"
    exec "$veneer" run "$image" --name demo
fi

name=demo-$$
trap '"$veneer" delete "$name" 2>/dev/null || :' EXIT
token="written by the first start, $(date -u +%Y-%m-%dT%H:%M:%SZ)"

# run_guest COMMAND...: runs it in the guest, and tells when its first output came.
run_guest() {
    start=$(now)
    first=
    status=0
    fifo=$(mktemp -u)
    mkfifo "$fifo"
    "$veneer" run "$image" --name "$name" -- "$@" </dev/null >"$fifo" &
    while IFS= read -r line; do
        [ -n "$first" ] || first=$(now)
        printf '%s\n' "$line"
        last=$line
    done <"$fifo"
    rm -f "$fifo"
    wait $! || status=$?
    [ "$status" = 0 ] || { echo "demo: the command ended with status $status" >&2; exit 1; }
    echo "demo: first output after $(((first - start) / 1000000)) ms, powered off after $((($(now) - start) / 1000000)) ms"
}

echo "demo: engine $("$veneer" engines | sed -n 's/^\* \([a-z]*\).*/\1/p'), image '$image'"
run_guest sh -ec 'cat /etc/os-release; uname -a; systemctl is-system-running --wait; echo "$1" >/root/token; sync; cat /root/token' sh "$token"
[ "$last" = "$token" ] || { echo "demo: the guest did not write its file" >&2; exit 1; }
echo "demo: starting it again"
run_guest cat /root/token
[ "$last" = "$token" ] || { echo "demo: the file is not what was written" >&2; exit 1; }
echo "demo: the file is there"
