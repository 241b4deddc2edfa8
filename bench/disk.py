#!/usr/bin/env python3
"""Requests a second of a virtio disk, side by side: veneer and QEMU's TCG, same kernel, same guest, equal files.

  bench/disk.py --veneer build/veneer [--runs 3] [--cpus 2] [--seconds 2] [--engine translate] [--rings split,packed]
                [--direct] [--format qcow2] [--rows randread:4096:1,...] [--no-tcg]

Both give the guest a raw file of random bytes, or a qcow2 image of them that qemu-img made, through the host's page cache or, with
--direct, past it (cache=none for QEMU). QEMU runs virtio-blk-pci in an I/O thread of its own with a queue for each CPU and the
same rings, once with each way of doing I/O that it has here (io_uring, and threads or native); a row counts the best of them.
guest/diskload.c makes the load, with O_DIRECT in the guest. Runs take turns. Prints the median of each row, and the ratio of
the medians with the range of the ratios; the status is 1 when a run fails. With --direct the disk has a pace of its own, and
a row of a few seconds shows little else: give --seconds 10."""
import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROWS = ('randread:4096:1,randwrite:4096:1,randread:4096:32,randwrite:4096:32,'
        'seqread:1048576:1,seqwrite:1048576:1,seqread:1048576:8,seqwrite:1048576:8')
INIT = '''#!/bin/sh
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
load-modules
%s
poweroff -f
'''


def initramfs(folder, rows, seconds):
    """Debian's busybox, the virtio modules, and diskload run over the rows."""
    init, initrd, extra = folder / 'init', folder / 'initrd', folder / 'extra'
    lines = ''.join(f'diskload /dev/vda {mode} {size} {depth} {seconds}\n' for mode, size, depth in rows)
    init.write_text(INIT % lines)
    init.chmod(0o755)
    subprocess.run([ROOT / 'scripts/initramfs.sh', initrd, init, 'virtio_pci', 'virtio_blk'], check=True)
    (extra / 'bin').mkdir(parents=True)
    subprocess.run(['cc', '-O2', '-static', '-D_GNU_SOURCE', '-o', extra / 'bin/diskload', ROOT / 'guest/diskload.c'], check=True)
    packed = subprocess.run('find . | cpio --quiet -o -H newc -R 0:0 | gzip -1', shell=True, cwd=extra, check=True,
                            capture_output=True).stdout
    with open(initrd, 'ab') as file:
        file.write(packed)
    return initrd


def measure(command, rows, limit):
    """Requests a second of each row, or None."""
    try:
        output = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                timeout=limit).stdout.decode('latin1')
    except subprocess.TimeoutExpired:
        output = ''
    found = {(mode, size, depth): float(rate) for mode, size, depth, rate in
             re.findall(r'((?:rand|seq)(?:read|write)) (\d+) (\d+): (\d+) requests', output)}
    if any(row not in found for row in rows):
        print(f'failed: {" ".join(map(str, command[:8]))} ...\n{output[-600:]}', file=sys.stderr)
        return None
    return found


def make_disk(folder, label, options):
    """A file of random bytes, or an image of one."""
    path = folder / label
    with open(path, 'wb') as file:
        for _ in range(options.size):
            file.write(os.urandom(1 << 20))
    if options.format == 'raw':
        return path
    image = path.with_suffix('.qcow2')
    subprocess.run(['qemu-img', 'convert', '-f', 'raw', '-O', options.format, path, image], check=True)
    path.unlink()
    return image


def veneer_command(path, rings, options, boot):
    return [options.veneer, 'run', '--engine', options.engine, '--cpus', str(options.cpus), '--virtio-rings', rings,
            *(part for name, value in boot.items() for part in ('--' + name, value)),
            '--disk', f'{path},format={options.format}{",direct" if options.direct else ""}']


def tcg_command(path, rings, aio, options, boot):
    cache = 'none' if options.direct else 'writeback'
    return ['qemu-system-x86_64', '-accel', 'tcg,thread=multi', '-cpu', 'max,la57=off', '-m', '512', '-smp', str(options.cpus),
            '-nographic', '-no-reboot', '-nic', 'none', *(part for name, value in boot.items() for part in ('-' + name, value)),
            '-object', 'iothread,id=io',
            '-drive', f'file={path},if=none,id=d,format={options.format},cache={cache},aio={aio},discard=unmap',
            '-device', f'virtio-blk-pci,drive=d,iothread=io,num-queues={options.cpus},packed={"on" if rings == "packed" else "off"}']


def print_table(results, rows):
    ours = [label for label in results if label.startswith('veneer')]
    theirs = [label for label in results if label.startswith('tcg')]
    print(f'{"requests a second":24}' + ''.join(f'{label:>22}' for label in results) +
          ''.join(f'{label + " / best tcg":>34}' for label in ours if theirs))
    for row in rows:
        median = {label: statistics.median(run[row] for run in runs) for label, runs in results.items()}
        line = f'{":".join(row):24}' + ''.join(f'{rate:22.0f}' for rate in median.values())
        for label in ours if theirs else ():
            ratios = [run[row] / max(results[other][i][row] for other in theirs) for i, run in enumerate(results[label])]
            line += f'{median[label] / max(median[other] for other in theirs):18.2f} ({min(ratios):5.2f} - {max(ratios):5.2f})'
        print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--veneer', required=True)
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument('--cpus', type=int, default=2)
    parser.add_argument('--seconds', type=float, default=2)
    parser.add_argument('--engine', default='translate')
    parser.add_argument('--rings', default='split')
    parser.add_argument('--rows', default=ROWS)
    parser.add_argument('--size', type=int, default=1024, help='of the disk, MiB')
    parser.add_argument('--folder', help='where the disks are made')
    parser.add_argument('--direct', action='store_true')
    parser.add_argument('--format', default='raw', choices=('raw', 'qcow2'))
    parser.add_argument('--no-tcg', action='store_true')
    options = parser.parse_args()
    rows = [tuple(row.split(':')) for row in options.rows.split(',')]

    kernel = subprocess.run([ROOT / 'scripts/kernel.sh'], capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = pathlib.Path(name)
        initrd = initramfs(folder, rows, options.seconds)
        boot = {'kernel': kernel, 'initrd': initrd, 'append': 'console=ttyS0 quiet panic=-1 no_timer_check'}
        path = make_disk(folder, 'veneer.img', options)
        commands = {f'veneer {rings}': veneer_command(path, rings, options, boot) for rings in options.rings.split(',')}
        if not options.no_tcg:
            path = make_disk(folder, 'tcg.img', options)
            for rings in options.rings.split(','):
                for aio in ('io_uring', 'native' if options.direct else 'threads'):
                    commands[f'tcg {rings} {aio}'] = tcg_command(path, rings, aio, options, boot)
        results = {label: [] for label in commands}
        failed = False
        for _ in range(options.runs):
            for label, command in commands.items():
                found = measure(command, rows, 60 + len(rows) * (options.seconds + 10))
                failed |= found is None
                results[label].append(found)
    if failed:
        return 1

    print_table(results, rows)
    return 0


if __name__ == '__main__':
    sys.exit(main())
