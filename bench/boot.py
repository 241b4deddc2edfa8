#!/usr/bin/env python3
"""Time from spawn to /init, side by side: Debian's cloud kernel under veneer's engines and under QEMU's TCG.

  bench/boot.py --veneer build/veneer [--runs 10] [--cpus 1] [--engines interpret,translate] [--no-tcg]

Runs take turns, so that a ratio compares neighbours. Prints the median of each and of the ratios to TCG,
with their ranges; any run that does not reach /init and power off cleanly is a failure, and the status 1.
The kernel and the initramfs come from scripts/kernel.sh and scripts/initramfs.sh."""
import argparse
import os
import pathlib
import select
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MARK = b'demo: /init runs'
DONE = b'six times seven: 42'


def boot(command, limit):
    """Returns (seconds to /init or None, whether it went on and ended by itself with status 0)."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, reached = b'', None
    while time.monotonic() - start < limit:
        if not select.select([process.stdout], [], [], 1)[0]:
            continue
        data = os.read(process.stdout.fileno(), 65536)
        if not data:
            break
        output += data
        if reached is None and MARK in output:
            reached = time.monotonic() - start
    try:
        status = process.wait(max(1, limit - (time.monotonic() - start)))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        status = -1
    good = status == 0 and DONE in output
    if not good:
        print(f'failed: status {status}: {" ".join(command[:6])} ...\n{output[-600:].decode("latin1")}', file=sys.stderr)
    return reached, good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--veneer', required=True)
    parser.add_argument('--runs', type=int, default=10)
    parser.add_argument('--cpus', type=int, default=1)
    parser.add_argument('--engines', default='interpret,translate')
    parser.add_argument('--no-tcg', action='store_true')
    parser.add_argument('--limit', type=float, default=120)
    options = parser.parse_args()

    kernel = subprocess.run([ROOT / 'scripts/kernel.sh'], capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        initrd = os.path.join(folder, 'initrd')
        subprocess.run([ROOT / 'scripts/initramfs.sh', initrd, ROOT / 'guest/demo-init'], check=True)
        append = 'console=ttyS0 quiet panic=-1'
        cpus = str(options.cpus)
        commands = {}
        if not options.no_tcg:  # no debug-exit port there: it powers off, with status 0
            commands['tcg'] = ['qemu-system-x86_64', '-accel', 'tcg', '-cpu', 'max,la57=off', '-m', '512', '-smp', cpus,
                               '-nographic', '-no-reboot', '-nic', 'none', '-kernel', kernel, '-initrd', initrd,
                               '-append', append]
        for engine in options.engines.split(','):
            commands[engine] = [options.veneer, 'run', '--engine', engine, '--cpus', cpus, '--kernel', kernel,
                                '--initrd', initrd, '--append', append]
        times = {name: [] for name in commands}
        failures = 0
        for _ in range(options.runs):
            for name, command in commands.items():
                seconds, good = boot(command, options.limit)
                times[name].append(seconds)
                failures += not good
    for name, values in times.items():
        known = [v for v in values if v is not None]
        if not known:
            print(f'{name}: never reached /init')
            continue
        line = f'{name}: {len(known)} of {len(values)} reached /init, median {statistics.median(known):.2f} s ' \
               f'({min(known):.2f}-{max(known):.2f})'
        if name != 'tcg' and 'tcg' in times:
            ratios = [v / t for v, t in zip(values, times['tcg']) if v and t]
            line += f', {statistics.median(ratios):.2f} of TCG ({min(ratios):.2f}-{max(ratios):.2f})'
        print(line)
    print(f'{failures} failures')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
