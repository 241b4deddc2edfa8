#!/usr/bin/env python3
"""Shares, side by side: veneer's translate engine against QEMU's TCG with the virtiofsd of Debian's qemu-system-common.

  bench/share.py --veneer build/veneer [--runs 5]

The same kernel, initramfs and kind of folder; runs take turns, so that a ratio compares neighbours. Prints for each row the medians of the
seconds and of the ratio QEMU / veneer with its range. virtiofsd wants root; without it QEMU's columns stay empty."""
import argparse
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
DAEMON = '/usr/lib/qemu/virtiofsd'
APPEND = 'console=ttyS0 quiet panic=-1'


def rows_of(command, limit):
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit)
    text = run.stdout.decode('latin1')
    if 'BENCH done' not in text:
        sys.exit(f'failed: {command[0]}\n{text[-800:]}{run.stderr.decode("latin1")[-800:]}')
    return {name: float(seconds) for name, seconds in re.findall(r'ROW (.*): ([\d.]+)', text)}


def run_veneer(options, kernel, initrd, folder):
    return rows_of([options.veneer, 'run', '--engine', 'translate', '--memory', '512M', '--kernel', kernel, '--initrd', initrd,
                    '--append', APPEND, '--share', f'{folder}:data'], options.limit)


def run_qemu(options, kernel, initrd, folder):
    socket = f'{folder}.sock'
    daemon = subprocess.Popen([DAEMON, f'--socket-path={socket}', '-o', f'source={folder}', '-o', 'xattr', '-o', 'log_level=err'],
                              stderr=subprocess.DEVNULL)
    try:
        while not os.path.exists(socket) and daemon.poll() is None:
            time.sleep(0.01)
        return rows_of(['qemu-system-x86_64', '-nodefaults', '-display', 'none', '-no-reboot', '-accel', 'tcg', '-cpu', 'max', '-m', '512M',
                        '-object', 'memory-backend-memfd,id=m,size=512M,share=on', '-numa', 'node,memdev=m',
                        '-chardev', f'socket,id=c,path={socket}', '-device', 'vhost-user-fs-pci,chardev=c,tag=data', '-serial', 'stdio',
                        '-kernel', kernel, '-initrd', initrd, '-append', APPEND], options.limit)
    finally:
        daemon.terminate()
        daemon.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--veneer', required=True)
    parser.add_argument('--runs', type=int, default=5)
    parser.add_argument('--limit', type=float, default=300)
    options = parser.parse_args()
    kernel = subprocess.run([ROOT / 'scripts/kernel.sh'], capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory() as work:
        init, initrd = f'{work}/init', f'{work}/initrd'
        subprocess.run(['gcc', '-O2', '-static', '-o', init, ROOT / 'bench/share-init.c'], check=True)
        subprocess.run([ROOT / 'scripts/initramfs.sh', initrd, init, 'virtio_pci', 'virtiofs'], check=True)
        qemu = os.geteuid() == 0 and os.path.exists(DAEMON) and shutil.which('qemu-system-x86_64')
        runs = []
        for i in range(options.runs):
            folders = [f'{work}/{side}{i}' for side in 'vq']
            for folder in folders:
                os.mkdir(folder)
            ours = run_veneer(options, kernel, initrd, folders[0])
            theirs = run_qemu(options, kernel, initrd, folders[1]) if qemu else {}
            runs.append((ours, theirs))
            for folder in folders:
                shutil.rmtree(folder)
    print(f'{"":18}{"veneer s":>10}{"QEMU s":>10}   QEMU / veneer')
    for name in runs[0][0]:
        line = f'{name:18}{statistics.median(ours[name] for ours, _ in runs):10.3f}'
        if qemu:
            ratios = [theirs[name] / ours[name] for ours, theirs in runs]
            line += f'{statistics.median(theirs[name] for _, theirs in runs):10.3f}'
            line += f'   {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})'
        print(line)


if __name__ == '__main__':
    main()
