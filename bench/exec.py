#!/usr/bin/env python3
"""The latency of one `veneer exec`: boots a machine with the agent, runs /bin/true in it N times, and prints the median and the
spread in milliseconds, for the whole program and for each of its steps.
Usage: exec.py VENEER AGENT [--engine NAME] [--count N] [--kernel-root FOLDER]"""
import argparse
import os
import pathlib
import socket
import statistics
import struct
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument('veneer')
parser.add_argument('agent')
parser.add_argument('--engine', default='translate')
parser.add_argument('--count', type=int, default=200)
options = parser.parse_args()
here = pathlib.Path(__file__).resolve().parent.parent
kernel = subprocess.run([here / 'scripts/kernel.sh'], check=True, capture_output=True, text=True).stdout.strip()


def show(name, seconds):
    ms = sorted(1000 * s for s in seconds)
    print(f'{name:34} median {statistics.median(ms):7.2f} ms, 5 to 95 %: {ms[len(ms) // 20]:.2f} to {ms[-len(ms) // 20 - 1]:.2f}')


def frame(kind, payload):
    return struct.pack('<IBBH', len(payload), kind, 0, 0) + payload


def until(connection, done):
    data = b''
    while not done(data):
        more = connection.recv(65536)
        if not more:
            raise EOFError
        data += more
    return data


def steps(path):
    """Connect, a ping there and back, and a command, without the program's own start."""
    start = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(b'CONNECT 1024\n')
        until(connection, lambda data: data.endswith(b'\n'))
        connected = time.perf_counter()
        connection.sendall(frame(1, struct.pack('<II', 0x544e4756, 1)) + frame(8, b''))
        until(connection, lambda data: len(data) >= 24)
        answered = time.perf_counter()
        words = b'/\0\0/bin/true\0'
        connection.sendall(frame(2, struct.pack('<IHHII', 0, 0, 0, 1, 0) + words))
        until(connection, lambda data: len(data) >= 16)
        return connected - start, answered - connected, time.perf_counter() - answered


with tempfile.TemporaryDirectory() as folder:
    os.environ['VENEER_RUNTIME'] = folder + '/run'
    os.environ['VENEER_LOG'] = 'error'
    subprocess.run([here / 'tests/integration/agent-initrd.sh', pathlib.Path(kernel).parent.parent, options.agent, folder + '/initrd'], check=True)
    run = [options.veneer, 'run', '--engine', options.engine, '--memory', '256M', '--kernel', kernel, '--initrd', folder + '/initrd',
           '--append', 'console=ttyS0 quiet panic=-1']
    subprocess.run([*run, '--name', 'bench', '--detach'], check=True, stdout=subprocess.DEVNULL)
    command = [options.veneer, 'exec', 'bench', '--', '/bin/true']
    try:
        for _ in range(20):
            subprocess.run(command, check=True)
        whole, parts = [], []
        for _ in range(options.count):
            start = time.perf_counter()
            subprocess.run(command, check=True)
            whole.append(time.perf_counter() - start)
            parts.append(steps(folder + '/run/bench/vsock.sock'))
        show('veneer exec, whole', whole)
        for i, name in enumerate(['  connecting', '  there and back', '  a command, from request to status']):
            show(name, [part[i] for part in parts])
    finally:
        subprocess.run([options.veneer, 'stop', '--force', 'bench'], check=True)
    start = time.perf_counter()
    subprocess.run([*run, '--', '/bin/true'], check=True)
    print(f'veneer run -- /bin/true, boot to power-off: {time.perf_counter() - start:.2f} s')
