#!/bin/sh
# Volumes for minutes: more crashes and failures of the disk, more requests at once. Usage: volumes.sh BUILD
set -eu
build=${1:-build-test}
"$build/tests/unit/qcow2_stress_test" 20000
"$build/tests/unit/qcow2_crash_test" 20
