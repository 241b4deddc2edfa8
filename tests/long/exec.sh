#!/bin/sh
# exec.sh VENEER AGENT [ENGINE]: tests/integration/exec.sh with 1,000 commands in a row and 50 at once; for a build without sanitizers. The code
# cache of a software engine fills meanwhile: some MiB are its.
exec "$(dirname "$0")/../integration/exec.sh" "$1" "$2" "${3:-translate}" 1000 50 20000
