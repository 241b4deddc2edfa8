#!/usr/bin/env python3
"""Every command and option that the program knows is in its man page and in the shell completion, and
the other way round. Usage: options_documented.py VENEER SOURCE_ROOT"""
import pathlib
import re
import subprocess
import sys

veneer, root = sys.argv[1], pathlib.Path(sys.argv[2])
completion = (root / 'scripts/completion/veneer.bash').read_text()
failures = []


def options_in(text):
    return set(re.findall(r'(?<![\w-])--([a-z][a-z-]+)', text))


def page(name):
    return (root / 'docs/man' / name).read_text().replace(r'\-', '-')


overview = subprocess.run([veneer, '--help'], capture_output=True, text=True, check=True).stdout
commands = re.findall(r'^  ([a-z]+) ', overview, re.M)
if not commands:
    failures.append('veneer --help lists no commands')
for command in commands:
    told = subprocess.run([veneer, command, '--help'], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r'^  --([a-z-]+)', told, re.M)) | {'help'}
    manual = options_in(page(f'veneer-{command}.1').split('.SH EXAMPLES')[0])
    reply = re.findall(rf"{command}:\*\).*?compgen -W '([^']*)'", completion)
    completed = options_in(reply[0]) if reply else set()
    manual -= {'engine'} if command == 'engines' else set()
    for what, found in (('man page', manual), ('completion', completed)):
        if found != known:
            failures.append(f'{command}: {what} lacks {sorted(known - found)}, has in excess {sorted(found - known)}')
    if f'.B {command}' not in page('veneer.1'):
        failures.append(f'{command} is not in veneer(1)')
print('\n'.join(failures) or f'{len(commands)} commands agree')
sys.exit(1 if failures else 0)
