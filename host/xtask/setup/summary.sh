#!/usr/bin/env bash
# The end of `make test`: how many tests ran, and which tools were missing, by name and count.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

skips=()
[ ! -s "${AETHER_SKIPS:?}" ] || mapfile -t skips < <(sort -u "$AETHER_SKIPS")
echo "summary"
grep -hE '^ +Summary' "${AETHER_LOGS:-$root/build/logs}/nextest.log" | tail -n 1 || true
sed -n '/^ *Summary/,$p' "${AETHER_LOGS:-$root/build/logs}/nextest.log" | grep -E '^ +(FLAKY|TRY)' || true
printf '  missing or skipped: %s%s\n' "${#skips[@]}" "${skips[*]:+ (${skips[*]})}"
