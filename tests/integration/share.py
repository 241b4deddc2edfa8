#!/usr/bin/env python3
"""share.py VENEER INIT ENGINE FILES [CPUS|two]: files made, renamed and deleted on both sides of a share, compared on the other; with
"two", by two guests on one folder.

INIT is share-init.c, which does the same to this script's trees as this script to the guest's. The guest is Debian's kernel with its
own virtiofs module."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SCRIPTS = HERE.parent.parent / 'scripts'
FOLDERS, COPIES = 16, 7
LIMIT = float(os.environ.get('LIMIT', 280))
failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)


def path_of(tree, i, renamed):
    if renamed and i % 2 == 0:
        return tree / str((i + 1) % FOLDERS) / f'renamed-{i}'
    return tree / str(i % FOLDERS) / f'file-{i}'


def content_of(tree, i):
    return f'{tree.name} {i}\n' * (i % COPIES + 1)


def make_tree(tree, count):
    for i in range(FOLDERS):
        (tree / str(i)).mkdir(parents=True)
    for i in range(count):
        path_of(tree, i, False).write_text(content_of(tree, i))


def change_tree(tree, count):
    for i in range(count):
        if i % 2 == 0:
            path_of(tree, i, False).rename(path_of(tree, i, True))
        if i % 3 == 0:
            path_of(tree, i, True).unlink()


def compare_tree(tree, count, changed):
    due = {path_of(tree, i, changed): content_of(tree, i) for i in range(count) if not (changed and i % 3 == 0)}
    found = {path for path in tree.glob('*/*')}
    expect(found == set(due), f'{tree.name}: {len(found - set(due))} files too many, {len(set(due) - found)} too few')
    wrong = [path for path in found & set(due) if path.read_text() != due[path]]
    expect(not wrong, f'{tree.name}: {len(wrong)} files have another content, such as {wrong[:1]}')


def check_programs(folder):
    """What the guest left behind."""
    mapped = (folder / 'mapped').read_bytes()
    expect(len(mapped) == 3 * 4096 and mapped[4090:4103] == b'across a page' and mapped[8192:8199] == b'written', 'mapped')
    expect((folder / 'append').read_bytes() == b'line\nli', 'append')
    expect((folder / 'append').stat().st_mtime_ns == 1100000000 * 10**9 + 2, 'times of append')
    expect((folder / 'append').stat().st_mode & 0o7777 == 0o604, 'mode of append')
    expect(os.readlink(folder / 'soft') == 'append', 'soft')
    expect((folder / 'copy').read_bytes() == b'b' * 4096, 'copy')
    expect((folder / 'fifo').is_fifo() and not (folder / 'null').exists(), 'fifo and null')
    expect((folder / 'shared').read_bytes() == b''.join(bytes([97 + i % 4]) * 1000 for i in range(200)), 'shared')


def boot(veneer, engine, cpus, work, append, shares, log):
    command = [veneer, 'run', '--engine', engine, '--cpus', cpus, '--kernel', work / 'kernel', '--initrd', work / 'initrd',
               '--memory', '256M', '--append', f'console=ttyS0 quiet panic=-1 {append}', *shares]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def wait_all(guests, end):
    try:
        for guest in guests:
            expect(guest.wait(max(1, end - time.monotonic())) == 0, 'the guest did not power off')
    except subprocess.TimeoutExpired:
        failures.append(f'the guest took more than {LIMIT} s')
    finally:
        for guest in guests:
            guest.kill()
            guest.wait()


def run_one(veneer, engine, count, cpus, work, log):
    share, other, end = work / 'share', work / 'other', time.monotonic() + LIMIT
    other.mkdir()
    (other / 'readable').write_text('read me')
    make_tree(share / 'host', count)
    guest = boot(veneer, engine, cpus, work, f'files={count}', ['--share', f'{share}:data', '--share', f'{other}:other:ro'], log)
    while not (share / 'guest-done').exists() and guest.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    if guest.poll() is None:
        compare_tree(share / 'host', count, True)
        compare_tree(share / 'guest', count, False)
        change_tree(share / 'guest', count)
        make_tree(share / 'again', count)
        (share / 'host-done').touch()
    wait_all([guest], end)
    expect((other / 'readable').read_text() == 'read me' and len(list(other.iterdir())) == 1, 'the read-only share changed')
    if not failures:
        check_programs(share / 'p')


def read(path):
    return path.read_text() if path.exists() else ''


def is_merged(text, a, b):
    """True when text is all of a and all of b, each in its order, however cut: follows every count of bytes that may be a's."""
    taken = {0}
    for done, byte in enumerate(text):
        taken = ({i + 1 for i in taken if i < len(a) and a[i] == byte} |
                 {i for i in taken if done - i < len(b) and b[done - i] == byte})
    return len(text) == len(a) + len(b) and len(a) in taken


def run_two(veneer, engine, count, work, log):
    share, end = work / 'share', time.monotonic() + LIMIT
    share.mkdir()
    wait_all([boot(veneer, engine, '1', work, f'files={count} peer={peer}', ['--share', f'{share}:data'], log) for peer in 'ab'], end)
    for tree in ('tree-a', 'tree-b'):
        compare_tree(share / tree, count, True)
    due = [''.join(f'tree-{peer} {i}\n' for i in range(count)) for peer in 'ab']
    expect(is_merged(read(share / 'common'), *due), 'what both appended is not all there, in order')
    # A write past the guest's cache is one request; through it, Linux sends a page at a time, and a line may come in two.
    lines = read(share / 'common-direct').splitlines()
    expect(sorted(lines) == sorted(''.join(due).splitlines()), 'lines that both appended past their caches are not whole')

def main():
    veneer, init, engine, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    cpus = sys.argv[5] if len(sys.argv) > 5 else '1'
    work = pathlib.Path(tempfile.mkdtemp())
    kernel = subprocess.run([SCRIPTS / 'kernel.sh'], capture_output=True, text=True, check=True).stdout.strip()
    (work / 'kernel').symlink_to(kernel)
    subprocess.run([SCRIPTS / 'initramfs.sh', work / 'initrd', init, 'virtio_pci', 'virtiofs'], check=True)
    with open(work / 'log', 'w+') as log:
        if cpus == 'two':
            run_two(veneer, engine, count, work, log)
        else:
            run_one(veneer, engine, count, cpus, work, log)
        log.seek(0)
        text = log.read()
    expect(text.count('SHARE-INIT ok') == (2 if cpus == 'two' else 1), 'a guest did not find what was due')
    if failures:
        print(text[-4000:])
    print('\n'.join(failures) or f'{engine}, {cpus} {"guests" if cpus == "two" else "CPUs"}: {count} files a tree agree')
    shutil.rmtree(work)
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
