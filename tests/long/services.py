#!/usr/bin/env python3
"""Sockets and balloon for minutes, with Debian's kernel: services.py VENEER KERNEL INITRD ENGINE [ROUNDS]. The initrd is that of
tests/integration/services.sh. Each round: 1,000 connections, 50 at once, each of which echoes up to 100 KB; memory taken and left
in the guest while the balloon's target changes nothing; and 60 connections that are dropped in the middle. Prints what it did."""
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time

ECHO, PRODUCE, COMMAND = 1000, 1002, 1003
veneer, kernel, initrd, engine = sys.argv[1:5]
rounds = int(sys.argv[5]) if len(sys.argv) > 5 else 3
folder = tempfile.mkdtemp()
path = os.path.join(folder, 'vsock')
failures = []


def dial(port):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(120)
    s.connect(path)
    s.sendall(b'CONNECT %d\n' % port)
    line = b''
    while not line.endswith(b'\n'):
        byte = s.recv(1)
        if not byte:
            raise OSError('refused')
        line += byte
    return s


def read_all(s):
    parts = []
    while part := s.recv(65536):
        parts.append(part)
    return b''.join(parts)


def tell(text):
    with dial(COMMAND) as s:
        s.sendall(text.encode() + b'\n')
        return read_all(s).decode().strip()


def echo(work):
    while True:
        try:
            number = work.pop()
        except IndexError:
            return
        data = random.Random(number).randbytes(number * 97 % 100000)
        try:
            with dial(ECHO) as s:
                sender = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))
                sender.start()
                got = read_all(s)
                sender.join()
            if got != data:
                failures.append(f'echo {number}: {len(got)} bytes of {len(data)}, or others')
        except OSError as error:
            failures.append(f'echo {number}: {error}')


def drop(_):
    with dial(PRODUCE) as s:
        s.sendall(b'100000000\n')
        s.recv(5000)


def resident(pid):
    for line in open(f'/proc/{pid}/status'):
        if line.startswith('RssShmem'):
            return int(line.split()[1]) >> 10
    return 0


def main():
    log = open(os.path.join(folder, 'log'), 'w+')
    run = subprocess.Popen([veneer, 'run', '--engine', engine, '--memory', '512M', '--cpus', '2', '--kernel', kernel, '--initrd', initrd,
                            '--append', 'console=ttyS0 panic=-1 quiet', '--vsock', path], stdin=subprocess.DEVNULL, stdout=log,
                           stderr=subprocess.STDOUT)
    while True:  # until the guest listens
        try:
            tell('memory')
            break
        except OSError:
            if run.poll() is not None:
                sys.exit(open(log.name).read()[-2000:])
            time.sleep(0.2)
    descriptors = len(os.listdir(f'/proc/{run.pid}/fd'))
    for number in range(rounds):
        start = time.time()
        work = list(range(number * 1000, number * 1000 + 1000))
        threads = [threading.Thread(target=echo, args=(work,)) for _ in range(50)]
        for thread in threads:
            thread.start()
        highest = 0
        for size in (200, 20, 300, 0):
            if tell(f'hold {size << 20}') != f'held {size << 20}, 0 wrong':
                failures.append(f'round {number}: memory of {size} MiB')
            highest = max(highest, resident(run.pid))
        for thread in threads:
            thread.join()
        for i in range(60):
            drop(i)
        deadline = time.time() + 20
        while resident(run.pid) > 220 and time.time() < deadline:
            time.sleep(0.1)
        print(f'round {number}: {time.time() - start:.1f} s, memory {highest} MiB and then {resident(run.pid)}', flush=True)
        if resident(run.pid) > 220:
            failures.append(f'round {number}: the memory did not come back')
    if tell('hold 4096') != 'held 4096, 0 wrong':
        failures.append('the guest is not well at the end')
    deadline = time.time() + 20
    while len(os.listdir(f'/proc/{run.pid}/fd')) > descriptors and time.time() < deadline:
        time.sleep(0.1)
    if len(os.listdir(f'/proc/{run.pid}/fd')) > descriptors:
        failures.append(f'{len(os.listdir(f"/proc/{run.pid}/fd"))} descriptors are open, {descriptors} were')
    with dial(COMMAND) as s:
        s.sendall(b'off\n')
        if run.wait(60) != 0:
            failures.append(f'veneer ended with {run.returncode}')
    log.seek(0)
    failures.extend(line for line in log if any(bad in line for bad in ('BUG:', 'WARNING:', 'Oops', 'panic')))
    print('\n'.join(failures[:20]) or f'{rounds} rounds, no failure')
    return 1 if failures else 0


sys.exit(main())
