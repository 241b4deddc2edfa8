#!/usr/bin/env python3
"""Debian from its own disk, side by side: seconds from the start of `veneer run IMAGE`, and of QEMU's TCG on the same disk
with the same kernel, initial RAM disk and command line, to a command's first output and to "running".

  bench/image.py --veneer build/veneer [--image debian] [--runs 5] [--cpus 1] [--no-tcg]

The image's disk is copied, and a unit is added to the copy that starts where veneer's agent does (file systems are mounted)
and prints to the console, waits for systemd to say that the system is up, prints what it said, and powers off. So both
sides run a command at the same place, without a channel that only one of them has. Runs take turns, each on a fresh clone.
Prints medians and ranges; a run that does not say "running" and power off by itself is a failure, and the status 1."""
import argparse
import json
import os
import pathlib
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time

UNIT = """[Unit]
Description=Benchmark
DefaultDependencies=no
Requires=local-fs.target
After=local-fs.target systemd-tmpfiles-setup.service systemd-sysusers.service
[Service]
Type=simple
ExecStart=/bin/sh -c 'echo BENCH first >/dev/ttyS0; echo BENCH $(systemctl is-system-running --wait) >/dev/ttyS0; systemctl poweroff'
"""
MARKS = (b'BENCH first', b'BENCH running')


def debugfs(disk, offset, requests):
    """Runs requests, some of which write, on the file system at an offset in a disk."""
    subprocess.run(['debugfs', '-w', '-f', '-', f'{disk}?offset={offset}'], input='\n'.join(requests) + '\n', text=True,
                   check=True, capture_output=True)


def prepare(options, folder):
    """A copy of the image's disk with the unit, and its kernel, initial RAM disk and command line."""
    run = lambda *command: subprocess.run(command, check=True, capture_output=True, text=True).stdout
    images = {image['name']: image for image in json.loads(run(options.veneer, 'image', 'list', '--format', 'json'))}
    image = images[options.image]
    disk, unit = f'{folder}/disk.raw', f'{folder}/unit'
    run(options.veneer, 'image', 'export', options.image, disk)
    table = json.loads(run('sfdisk', '--json', disk))['partitiontable']
    part = table['partitions'][0]
    offset = part['start'] * table.get('sectorsize', 512)
    pathlib.Path(unit).write_text(UNIT)
    wants = '/etc/systemd/system/sysinit.target.wants'
    debugfs(disk, offset, [f'write {unit} /etc/systemd/system/bench.service', f'cd {wants}',
                           'symlink bench.service /etc/systemd/system/bench.service', f'dump {image["kernel"]} {folder}/kernel',
                           f'dump {image["initrd"]} {folder}/initrd'])
    append = f'root=PARTUUID={part["uuid"].lower()} console=ttyS0 {image["cmdline"]}'
    environment = dict(os.environ, VENEER_STORE=f'{folder}/store')
    subprocess.run([options.veneer, 'image', 'import', disk, 'bench'], check=True, capture_output=True, env=environment)
    return disk, append, environment


def guest_commands(options, folder, disk, append):
    """How each side starts the prepared image."""
    cpus = str(options.cpus)
    commands = {'veneer': [options.veneer, 'run', 'bench', '--engine', options.engine, '--cpus', cpus, '--memory',
                           f'{options.memory}M']}
    if not options.no_tcg:
        commands['tcg'] = ['qemu-system-x86_64', '-accel', 'tcg', '-cpu', 'max,la57=off', '-m', str(options.memory), '-smp',
                           cpus, '-nodefaults', '-display', 'none', '-serial', 'stdio', '-no-reboot', '-snapshot', '-drive',
                           f'file={disk},format=raw,if=virtio', '-kernel', f'{folder}/kernel', '-initrd', f'{folder}/initrd',
                           '-append', append]
    return commands


def boot(command, environment, limit):
    """Returns (seconds to each mark or None and of processor time, whether it ended by itself with status 0)."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env=environment)
    output, reached = b'', [None] * len(MARKS)
    while time.monotonic() - start < limit:
        if not select.select([process.stdout], [], [], 1)[0]:
            continue
        data = os.read(process.stdout.fileno(), 65536)
        if not data:
            break
        output += data
        for i, mark in enumerate(MARKS):
            if reached[i] is None and mark in output:
                reached[i] = time.monotonic() - start
    if time.monotonic() - start >= limit:
        process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    good = status == 0 and None not in reached
    reached.append(usage.ru_utime + usage.ru_stime)
    if not good:
        told = re.sub(rb'\x1b\[[0-9;?]*[a-zA-Z]', b'', output[-800:]).decode('latin1')
        print(f'failed: status {status}: {" ".join(command[:6])} ...\n{told}', file=sys.stderr)
    return reached, good


def report(name, values, others):
    for i, what in enumerate(('first output', 'running', 'processor time until it was off')):
        known = [v[i] for v in values if v[i] is not None]
        if not known:
            print(f'{name}: never to {what}')
            continue
        line = f'{name}: {what}: {statistics.median(known):.2f} s ({min(known):.2f}-{max(known):.2f}, {len(known)} runs)'
        ratios = [v[i] / o[i] for v, o in zip(values, others) if v[i] and o[i]]
        if ratios:
            line += f', {statistics.median(ratios):.2f} of TCG ({min(ratios):.2f}-{max(ratios):.2f})'
        print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--veneer', required=True)
    parser.add_argument('--image', default='debian')
    parser.add_argument('--runs', type=int, default=5)
    parser.add_argument('--cpus', type=int, default=1)
    parser.add_argument('--memory', type=int, default=1024, help='MiB')
    parser.add_argument('--engine', default='translate')
    parser.add_argument('--no-tcg', action='store_true')
    parser.add_argument('--limit', type=float, default=300)
    options = parser.parse_args()
    os.environ['PATH'] += ':/usr/sbin:/sbin'
    with tempfile.TemporaryDirectory(dir='/var/tmp') as folder:
        disk, append, environment = prepare(options, folder)
        commands = guest_commands(options, folder, disk, append)
        times = {name: [] for name in commands}
        failures = 0
        for _ in range(options.runs):
            for name, command in commands.items():
                reached, good = boot(command, environment, options.limit)
                times[name].append(reached)
                failures += not good
    for name, values in times.items():
        report(name, values, times.get('tcg', []) if name != 'tcg' else [])
    print(f'{failures} failures')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
