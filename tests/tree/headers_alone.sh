#!/bin/sh
# Every header compiles alone (clang calls inline functions of the main file unused), and each .c file that has a header of its own includes it first.
# Usage: headers_alone.sh SOURCE_ROOT CC
set -u
root=$1
cc=$2
status=0
count=0
cd "$root/src" || exit 1
for header in $(find . -name '*.h' | sort); do
    count=$((count + 1))
    $cc -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unused-function -fsyntax-only -I. -x c "$header" || {
        echo "$header does not compile alone"
        status=1
    }
done
for source in $(find . -name '*.c' | sed 's|^\./||' | sort); do
    own=${source%.c}.h
    [ -f "$own" ] || continue
    first=$(grep -m1 '^#include' "$source")
    [ "$first" = "#include \"$own\"" ] || {
        echo "$source: the first include is not its own header"
        status=1
    }
done
echo "$count headers compiled"
[ "$count" -gt 0 ] || status=1
exit $status
