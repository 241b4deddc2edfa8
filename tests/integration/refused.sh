# refused.sh - for the tests that source it. refused TEXT COMMAND...: the command must fail, and say TEXT.
# shellcheck shell=bash
refused() {
    local want=$1 text
    shift
    if text=$("$@" 2>&1); then
        echo "not refused: $*"
        exit 1
    fi
    case $text in *"$want"*) ;; *) echo "$*: says '$text', not '$want'"; exit 1 ;; esac
}
