#!/bin/bash
# fio.sh BUILD [SECONDS] [FORMAT...]: Debian's fio writes to a disk of four queues, discards and flushes among the writes, and verifies all it wrote,
# for 180 seconds unless given, under both software engines and with both forms of rings; then the machine boots again and verifies what its
# last round left. Prints what was done. FORMAT: raw (the default), direct (raw past the host's page cache), throttled
# (raw, at most 2,000 requests and 32 MiB a second), qcow2 (a clone of a raw file, which qemu-img checks afterwards). ENGINES and RINGS in the
# environment name fewer of those. TMPDIR on a tmpfs keeps the host's disk out of it.
#
# In each round there are eight jobs, two pinned to each of four vCPUs and so to each queue: one writes at random with 8 or, every second round,
# 32 requests under way, one discards each block before it writes it. A round that is over soon is followed by one twice as large.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
build=$1
seconds=${2:-180}
shift $(($# < 2 ? $# : 2))
formats=${*:-raw}
fio=$(command -v fio) || { echo "fio.sh: fio is not installed (Debian's package fio)" >&2; exit 2; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
kernel=$("$here/scripts/kernel.sh")

cat >"$dir/init" <<'INIT'
#!/bin/sh
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmp /tmp
load-modules
for word in $(cat /proc/cmdline); do
    case $word in seconds=*) seconds=${word#*=} ;; step=*) step=${word#*=} ;; esac
done
mkdir /tools
mount -t ext4 -o ro /dev/vdb /tools

# jobs ROUND DEPTH KIB: KIB for each writer, at another place each round; a quarter of that for who discards
jobs() {
    cat <<JOBS
[global]
filename=/dev/vda
ioengine=libaio
direct=1
iodepth=$2
bssplit=512/20:1k/5:4k/40:16k/20:64k/15
randseed=$1
verify=crc32c
verify_fatal=1
verify_backlog=128
verify_backlog_batch=32
fdatasync=64
end_fsync=1
numjobs=4
cpus_allowed=0-3
cpus_allowed_policy=split
group_reporting
[write]
rw=randwrite
size=${3}k
offset=$(($1 * $3 % 98304))k
offset_increment=96m
JOBS
    [ "$1" = 0 ] || cat <<JOBS
[discard]
rw=randtrimwrite
size=$(($3 / 4))k
offset=$((393216 + $1 * $3 / 4 % 32768))k
offset_increment=32m
JOBS
}

# verify ROUND DEPTH KIB [OPTION]: runs the jobs, and prints what they did
verify() {
    jobs "$1" "$2" "$3" >/tmp/jobs
    /tools/ld.so --library-path /tools/lib /tools/fio --eta=never --output-format=json --output=/tmp/out $4 /tmp/jobs >/tmp/messages 2>&1
    status=$?
    # fio warns that jobs share a device, and ends well
    grep -v -e 'multiple writers may overwrite' -e '^$' /tmp/messages
    [ $status = 0 ] || { echo "fio failed in round $1: status $status"; poweroff -f; }
    awk -v title="$1 $2" '/"(read|write|trim|sync)" : [{]/ { gsub(/"/, "", $1); way = $1 }
        /"(io_bytes|total_ios|N)" :/ { gsub(/[",]/, ""); sum[way, $1] += $3 }
        END { printf "did: %s %d %.0f %d %.0f %d %.0f %d\n", title, sum["read", "total_ios"], sum["read", "io_bytes"], sum["write", "total_ios"],
            sum["write", "io_bytes"], sum["trim", "total_ios"], sum["trim", "io_bytes"], sum["sync", "N"] }' /tmp/out
}

now() { cut -d. -f1 /proc/uptime; }

if [ "$step" = again ]; then
    verify 0 8 4096 --verify_only=1
    echo "done: again"
    poweroff -f
fi
round=0
kib=2048
begin=$(now)
while [ $(($(now) - begin)) -lt "$seconds" ]; do
    round=$((round + 1))
    before=$(now)
    verify $round $((round % 2 ? 8 : 32)) $kib
    took=$(($(now) - before))
    [ $took -gt 15 ] || [ $kib = 32768 ] || kib=$((kib * 2))
    [ $took -lt 60 ] || [ $kib = 1024 ] || kib=$((kib / 2))
done
echo "rounds: $round in $(($(now) - begin)) s"
verify 0 8 4096
set -- $(cat /sys/block/vda/stat)
echo "disk: $1 reads ($2 more merged), $5 writes ($6 more merged), ${12} discards, ${16} flushes"
[ "${12}" -gt 0 ] || echo "failed: no discard reached the disk"
[ "${16}" -gt 0 ] || echo "failed: no flush reached the disk"
device=$(basename "$(readlink -f /sys/block/vda/device)")
for queue in 0 1 2 3; do
    count=$(awk -v name="$device-req.$queue" '$NF == name { n = 0; for (i = 2; i <= 5; i++) n += $i; print n }' /proc/interrupts)
    echo "queue $queue: $count interrupts"
    [ "${count:-0}" -gt 0 ] || echo "failed: queue $queue was not used"
done
echo "done: load"
poweroff -f
INIT
chmod 755 "$dir/init"
"$here/scripts/initramfs.sh" "$dir/initrd" "$dir/init" virtio_pci virtio_blk

# fio and its libraries are too much for an initramfs.
mkdir -p "$dir/tools/lib"
cp "$fio" "$dir/tools/fio"
ldd "$fio" | grep -o '/[^ ]*' | while read -r library; do cp -L "$library" "$dir/tools/lib/"; done
cp -L /lib64/ld-linux-x86-64.so.2 "$dir/tools/ld.so"
truncate -s $(($(du -sm "$dir/tools" | cut -f1) + 32))M "$dir/tools.img"
mke2fs -q -t ext4 -O ^has_journal -d "$dir/tools" "$dir/tools.img"
rm -r "$dir/tools"

# boot ENGINE RINGS STEP DISK: appends what the guest says to $dir/out; what takes five times as long as the load, and ten minutes, hangs
boot() {
    timeout -k 10 $((seconds * 5 + 600)) "$build/veneer" run --engine "$1" --cpus 4 --memory 1G --virtio-rings "$2" --kernel "$kernel" --initrd "$dir/initrd" \
        --append "console=ttyS0 quiet panic=-1 seconds=$seconds step=$3" --disk "$4" --disk "$dir/tools.img,ro" >>"$dir/out" 2>&1 </dev/null
}

# one ENGINE RINGS FORMAT
one() {
    local options=format=raw,queues=4 title="$1, $2 rings, $3"
    rm -f "$dir/disk" "$dir/out"
    case $3 in
    raw) truncate -s 512M "$dir/disk" ;;
    direct)
        truncate -s 512M "$dir/disk"
        options=$options,direct
        ;;
    throttled)
        truncate -s 512M "$dir/disk"
        options=$options,iops=2000,bps=32M
        ;;
    qcow2)
        # the base is not all zeroes, so that what is copied from it is seen
        [ -f "$dir/base" ] || { head -c 64M /dev/urandom >"$dir/base"; truncate -s 512M "$dir/base"; }
        "$build/veneer" disk create "$dir/disk" --backing "$dir/base" --backing-format raw
        options=format=qcow2,queues=4
        ;;
    *) echo "fio.sh: there is no format '$3'; give raw, direct, throttled or qcow2" >&2; exit 2 ;;
    esac
    if ! boot "$1" "$2" load "$dir/disk,$options" || ! boot "$1" "$2" again "$dir/disk,$options" ||
        ! grep -q 'done: load' "$dir/out" || ! grep -q 'done: again' "$dir/out" ||
        grep -qE 'failed|verify:|I/O error|blocked for more than|BUG|WARNING|Oops|not found' "$dir/out"; then
        echo "$title: failed"
        tail -n 40 "$dir/out"
        return 1
    fi
    [ "$3" != qcow2 ] || qemu-img check -q "$dir/disk" || { echo "$title: the image is damaged"; return 1; }
    echo "$title: verified"
    tr -d '\r' <"$dir/out" | awk '/^did:/ && !again { for (i = 4; i <= NF; i++) sum[i] += $i }
        /^did:/ && again { after = $5 }
        /^done: load/ { again = 1 }
        /^(rounds|disk|queue)/ { print "    " $0 }
        END { printf "    %d reads (%.0f MiB, all verified), %d writes (%.0f MiB), %d discards (%.0f MiB), %d flushes; %.0f MiB verified after the next boot\n",
            sum[4], sum[5] / 1048576, sum[6], sum[7] / 1048576, sum[8], sum[9] / 1048576, sum[10], after / 1048576 }'
}

status=0
for format in $formats; do
    for engine in ${ENGINES:-translate interpret}; do
        for rings in ${RINGS:-split packed}; do
            one "$engine" "$rings" "$format" || status=1
        done
    done
done
exit $status
