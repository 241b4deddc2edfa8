#!/usr/bin/env python3
"""What an idle guest costs the host: processor time and switches of each thread of veneer, and of QEMU's TCG beside it, while Debian
that has come up waits on its console.

  bench/idle.py --veneer build/veneer [--image debian] [--seconds 30] [--settle 30] [--cpus 1] [--engine translate] [--no-tcg]

Both boot the same disk (bench/image.py says how it is made) and print "running"; after --settle seconds each thread's run time
(schedstat) and switches are read twice, --seconds apart, both programs at once. Prints milliseconds of processor time and
switches, a second, for each thread and all; the status is 1 when one does not come up."""
import argparse
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import time

import image

image.UNIT = image.UNIT.replace('; systemctl poweroff', '')


def start(command, environment):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)


def comes_up(process, limit):
    """Waits until its guest says that it runs."""
    output, end = b'', time.monotonic() + limit
    while b'BENCH running' not in output and process.poll() is None and time.monotonic() < end:
        if select.select([process.stdout], [], [], 1)[0]:
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                break
            output += data
    if b'BENCH running' in output:
        return True
    print(f'failed: {process.args[0]} ...\n{output[-600:].decode("latin1")}', file=sys.stderr)
    return False


def threads(process):
    """Of each thread: its name, nanoseconds of processor time, switches."""
    found = {}
    for task in pathlib.Path(f'/proc/{process.pid}/task').iterdir():
        status = dict(line.split(':\t', 1) for line in (task / 'status').read_text().splitlines() if ':\t' in line)
        switches = int(status['voluntary_ctxt_switches']) + int(status['nonvoluntary_ctxt_switches'])
        found[task.name] = (status['Name'], int((task / 'schedstat').read_text().split()[0]), switches)
    return found


def report(label, before, after, seconds):
    print(f'{label:28}{"ms/s":>10}{"switches/s":>12}')
    total = [0, 0]
    for thread, (name, spent, switches) in sorted(after.items(), key=lambda item: int(item[0])):
        _, spent_before, switches_before = before.get(thread, (name, 0, 0))
        rates = (spent - spent_before) / 1e6 / seconds, (switches - switches_before) / seconds
        total = [total[0] + rates[0], total[1] + rates[1]]
        print(f'  {name:26}{rates[0]:10.3f}{rates[1]:12.1f}')
    print(f'  {"all":26}{total[0]:10.3f}{total[1]:12.1f}')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--veneer', required=True)
    parser.add_argument('--image', default='debian')
    parser.add_argument('--seconds', type=float, default=30)
    parser.add_argument('--settle', type=float, default=30)
    parser.add_argument('--cpus', type=int, default=1)
    parser.add_argument('--memory', type=int, default=512, help='MiB')
    parser.add_argument('--engine', default='translate')
    parser.add_argument('--no-tcg', action='store_true')
    parser.add_argument('--limit', type=float, default=900, help='for the boot, seconds')
    options = parser.parse_args()
    os.environ['PATH'] += ':/usr/sbin:/sbin'
    with tempfile.TemporaryDirectory(dir='/var/tmp') as folder:
        disk, append, environment = image.prepare(options, folder)
        # A TCG that is kept waiting by a busy host fails Linux's check of its timer.
        commands = image.guest_commands(options, folder, disk, append + ' no_timer_check')
        running = {label: start(command, environment) for label, command in commands.items()}
        up = [comes_up(process, options.limit) for process in running.values()]
        if all(up):
            time.sleep(options.settle)
            before = {label: threads(process) for label, process in running.items()}
            time.sleep(options.seconds)
            after = {label: threads(process) for label, process in running.items()}
            for label in running:
                report(label, before[label], after[label], options.seconds)
        for process in running.values():
            process.kill()
            process.wait()
    return 0 if all(up) else 1


if __name__ == '__main__':
    sys.exit(main())
