#!/usr/bin/env python3
"""The folders are the architecture: checks each #include "..." against docs/map.md's rule that a room
includes only rooms above it, and never a sibling. Usage: include_rules.py SOURCE_ROOT"""
import pathlib
import re
import sys

# Room -> rooms it may include, besides itself. The longest prefix of a path names its room.
RULES = {
    'base': [],
    'memory': ['base'],
    'isa/x86': ['base'],
    'engine': ['base', 'memory', 'isa/x86'],
    'engine/soft': ['base', 'memory', 'isa/x86', 'engine'],
    'engine/interpret': ['base', 'memory', 'isa/x86', 'engine', 'engine/soft'],
    'engine/kvm': ['base', 'memory', 'isa/x86', 'engine'],
    'engine/translate': ['base', 'memory', 'isa/x86', 'engine', 'engine/soft'],
    'block': ['base'],
    'share': ['base'],
    'rootfs': ['base'],
    'net': ['base'],
    'device': ['base', 'memory', 'block', 'share', 'net'],
    'machine': ['base', 'memory', 'isa/x86', 'engine', 'block', 'share', 'net', 'device'],
    'host': ['base', 'memory', 'isa/x86', 'engine', 'block', 'share', 'net', 'device', 'machine', 'rootfs'],
    'cli': ['base', 'memory', 'isa/x86', 'engine', 'block', 'share', 'net', 'device', 'machine', 'host'],
}


def room(path):
    matches = [name for name in RULES if path == name or path.startswith(name + '/')]
    return max(matches, key=len) if matches else None


def main():
    source = pathlib.Path(sys.argv[1]) / 'src'
    failures = checked = 0
    for file in sorted(list(source.rglob('*.c')) + list(source.rglob('*.h'))):
        name = file.relative_to(source).as_posix()
        here = room(name)
        if here is None:
            print(f'{name}: in no room')
            failures += 1
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not found:
                continue
            checked += 1
            there = room(found[1])
            if not (source / found[1]).exists():
                print(f'{name}:{number}: "{found[1]}" is not a path from src/')
                failures += 1
            elif there != here and there not in RULES[here]:
                print(f'{name}:{number}: {here} may not include {there} ("{found[1]}")')
                failures += 1
    print(f'{checked} includes checked, {failures} failures')
    return 1 if failures or not checked else 0


if __name__ == '__main__':
    sys.exit(main())
