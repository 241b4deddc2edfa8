#!/bin/bash
# hotplug.sh BUILD [ROUNDS]: tests/integration/hotplug_test under both software engines, 200 rounds of each kind unless given.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
for kind in cards devices; do
    for engine in translate interpret; do
        "$here/../integration/hotplug.sh" "$1/tests/integration/hotplug_test" "$1/tests/integration/hotplug-init" "$engine" \
            "${2:-200}" "$kind"
    done
done
