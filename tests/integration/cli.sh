#!/bin/sh
# Usage errors: every bad value gets status 2 and an error that names the value, the reason and the accepted
# form; files that are no kernels get status 1 and an error that names the file. Usage: cli.sh VENEER
set -u
veneer=$1
failures=0
count=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export VENEER_RUNTIME="$dir/runtime"
export VENEER_STORE="$dir/store"
head -c 100000 /dev/urandom >"$dir/random"
: >"$dir/empty"

# expect STATUS 'TEXT' ARG...: veneer ARG... ends with STATUS and its standard error holds TEXT.
expect() {
    want=$1
    text=$2
    shift 2
    "$veneer" "$@" >"$dir/out" 2>"$dir/err" </dev/null
    got=$?
    count=$((count + 1))
    if [ "$got" != "$want" ] || { [ -n "$text" ] && ! grep -qF -- "$text" "$dir/err"; }; then
        failures=$((failures + 1))
        echo "veneer $*: status $got (due: $want), error: $(cat "$dir/err") (due: $text)"
    fi
}

expect 2 'usage: veneer'
expect 2 "there is no command 'walk'" walk
expect 2 'run needs an IMAGE or --kernel' run
expect 2 "there is no option '--kernal'" run --kernal x
expect 2 "option '--kernel' needs a value" run --kernel
expect 2 "option '--cpus': '0' is out of range; give a number from 1 to 16" run --cpus 0
expect 2 "option '--cpus': '17' is out of range" run --cpus 17
expect 2 "option '--cpus': 'two' is not a number" run --cpus=two
expect 2 "option '--cpus': '-1' is not a number" run --cpus -1
expect 2 "option '--cpus': '99999999999999999999' is not a number" run --cpus 99999999999999999999
expect 2 "option '--memory': '12Q' has an unknown unit; give a number with K, M, G or T" run --memory 12Q
expect 2 "option '--memory': '99999999999T' is too large" run --memory 99999999999T
expect 2 "option '--memory': '1K' is too little; give at least 1M" run --memory 1K
expect 2 "option '--memory': '' is not a size" run --memory ''
expect 2 "option '--engine': 'warp' is no engine; give one of auto" run --engine warp
expect 2 "option '--engine': 'translate,verify' has an unknown addition; only translate,check has one" run --engine translate,verify
expect 2 "option '--engine': 'interpret,check' has an unknown addition" run --engine interpret,check
expect 2 "option '--cpu': 'z80' is no CPU model; give default or host" run --cpu z80
expect 2 "option '--console': 'tty' is no console; give stdio, none, unix:PATH or file:PATH" run --console tty
expect 2 "option '--console': 'file:' lacks the path" run --console file:
expect 2 "option '--console': 'unix:$(printf %0200d 0)' has a path too long" run --console "unix:$(printf %0200d 0)"
expect 2 "option '--vsock': '' has no path of 1 to 96 bytes" run --vsock ''
expect 2 "option '--vsock': '$(printf %0200d 0)' has no path of 1 to 96 bytes" run --vsock "$(printf %0200d 0)"
expect 2 "option '--vsock': 'x,cid=2' is out of range; give a number from 3 to 4294967294" run --vsock x,cid=2
expect 2 "option '--vsock': 'x,port=2' has an unknown addition; give PATH or PATH,cid=N" run --vsock x,port=2
expect 2 "option '--console-device': 'uart' is no device for the console; give serial or virtio" run --console-device uart
expect 2 "option '--port': 'x' lacks the socket's path; give NAME=PATH" run --port x
expect 2 "option '--port': 'a/b=c' has a bad name" run --port a/b=c
expect 2 "option '--port': '=c' has a bad name" run --port =c
expect 2 "option '--port': 'a=c' has the name of another port" run --port a=b --port a=c
expect 2 "option '--balloon': 'none' is not a size" run --balloon none
expect 2 "option '--debug-exit': '65536' is out of range" run --debug-exit 65536
expect 2 "option '--stats' takes no value, but was given 'yes'" run --stats=yes
expect 2 "option '--share': '$dir' lacks a tag; give HOST:TAG[:ro]" run --share "$dir"
expect 2 "option '--share': '/tmp:ro' lacks a tag" run --share /tmp:ro
expect 2 "option '--share': ':data' lacks the folder" run --share :data
expect 2 "the tag is empty; give HOST:TAG[:ro]" run --share "$dir:"
expect 2 "has a tag of 37 bytes; at most 36 are possible" run --share "$dir:$(printf %037d 0)"
expect 2 "a tag has neither spaces nor control characters" run --share "$dir:my files"
expect 2 "has the tag of another share" run --share "$dir:data" --share /tmp:data:ro
expect 2 "is one too many; at most 8 folders can be shared" run $(for i in 1 2 3 4 5 6 7 8 9; do echo "--share /tmp:t$i"; done)
expect 2 "" run --share "/$(printf %05000d 0):t"
expect 2 "share needs a verb; give attach or detach" share
expect 2 "usage: veneer share attach NAME HOST:TAG[:ro]" share attach web
expect 2 "'c': this word is one too many; 'veneer share detach --help' tells more" share detach a b c
expect 2 "usage: veneer share detach NAME TAG [OPTION...]" share detach a
expect 2 "option '--timeout': '0' is out of range" share detach a b --timeout 0
expect 2 "option '--disk': '' names no file; give FILE[,ro]" run --disk ''
expect 2 "option '--disk': 'x,rw' has the unknown part 'rw'; give FILE[,ro]" run --disk x,rw
expect 2 "option '--disk': 'x,cache=no' has the unknown part 'cache='" run --disk x,cache=no
expect 2 "option '--disk': 'x,format=vmdk' has the unknown format 'vmdk'; give raw or qcow2" run --disk x,format=vmdk
expect 2 "option '--disk': 'x,iops=0' has 0 as iops, which" run --disk x,iops=0
expect 2 "option '--disk': 'x,iops=-4' has a bad iops: is not a number" run --disk x,iops=-4
expect 2 "option '--disk': 'x,bps=9Q' has a bad bps: has an unknown unit" run --disk x,bps=9Q
expect 2 "option '--disk': 'x,queues=17' has bad queues: is out of range" run --disk x,queues=17
expect 2 "option '--disk': 'x,serial=123456789012345678901' has a serial number of more than 20 bytes" run --disk x,serial=123456789012345678901
expect 2 "option '--virtio-rings': 'round' is no form of virtio's rings; give split or packed" run --virtio-rings round
expect 1 "$dir/none" run --engine interpret --kernel "$dir/none" --disk "$dir/random,ro,direct,format=raw,iops=100,bps=1M,serial=x,queues=2"
expect 1 "$dir/no,ne" run --engine interpret --kernel "$dir/random" --disk "$dir/no,,ne"
expect 2 "'extra': this word is one too many" run a extra --kernel x
expect 2 "option '--name': '../x' is no name for a machine" run --kernel x --name ../x
expect 2 "there is no command after '--'" run --kernel x --
expect 2 "--detach leaves the machine running, a command ends it" run --kernel x --detach -- true
expect 2 "option '--env': 'NOVALUE' is no variable; give NAME=VALUE" run --kernel x --env NOVALUE -- true
expect 2 "option '--cwd': 'tmp' is no absolute path" exec --cwd tmp name -- true
expect 2 "there is no option '-x'" exec -x name -- true
expect 2 "exec needs the name of a running machine" exec -- true
expect 2 "exec needs a command after '--'" exec name
expect 125 "no machine 'name' is running; 'veneer list' shows those that are" exec name -- true
expect 125 "'a/b' is no name for a machine" exec a/b -- true
expect 2 "stop needs the name of one running machine" stop
expect 2 "option '--timeout': 'x' is not a number" stop --timeout x name
expect 1 "no machine 'name' is running" stop name
expect 2 "option '--format': 'xml' is no format; give text or json" list --format xml
expect 2 "'--log-level' needs a level" --log-level
expect 2 "'loud' is no level of messages; give error, warning, info or debug" --log-level loud list
expect 0 '' --log-level debug list
expect 0 '' list
expect 0 '' list --format json
expect 0 '' exec --help
expect 0 '' stop --help
expect 0 '' list --help
expect 2 "'all': this command takes no operand" engines all
expect 1 "translations can be checked with one vCPU only, not with 2" run --engine translate,check --cpus 2 --kernel "$dir/random"
expect 1 "$dir/none" run --engine interpret --kernel "$dir/none"
expect 1 "$dir/random" run --engine interpret --kernel "$dir/random"
expect 1 "$dir/empty" run --engine interpret --kernel "$dir/empty"
expect 1 "$dir" run --engine interpret --kernel "$dir"
expect 1 "share 'data': folder '$dir/none': No such file or directory" run --engine interpret --kernel "$dir/random" --share "$dir/none:data"
expect 1 "share 'data': folder '$dir/empty': Not a directory" run --engine interpret --kernel "$dir/random" --share "$dir/empty:data:ro"
expect 1 "share 'b': folder '$dir/x:y/': No such file or directory" run --engine interpret --kernel "$dir/random" --share "$dir/x:y/:b"
expect 1 "share 'z': folder '/proc' belongs to the host's kernel" run --engine interpret --kernel "$dir/random" --share /proc:z
expect 125 "$dir/none" run --engine interpret --kernel "$dir/none" -- true
expect 1 "$dir/none" run --engine interpret --kernel "$dir/none" --detach
expect 1 "console file '$dir/none/x'" run --engine interpret --kernel "$dir/random" --console "file:$dir/none/x"
expect 1 "console socket '$dir/random'" run --engine interpret --kernel "$dir/random" --console "unix:$dir/random"
expect 0 '' --help
expect 0 '' --version
expect 0 '' run --help
expect 0 '' engines
expect 0 '' engines --help
echo "$count invocations, $failures failures"
[ $failures = 0 ]
