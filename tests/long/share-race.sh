#!/bin/bash
# share-race.sh SHARE_RACE_TEST [MINUTES]: runs the symlink race of tests/unit/share_race_test.c again and again for about so many
# minutes (default 5). It ends at the first walk that leaves the folder.
set -eu
end=$(($(date +%s) + 60 * ${2:-5}))
rounds=0
while [ "$(date +%s)" -lt "$end" ]; do
    "$1" 20000
    rounds=$((rounds + 1))
done
echo "share-race: $rounds rounds, nothing left the folder"
[ "$rounds" -gt 0 ]
