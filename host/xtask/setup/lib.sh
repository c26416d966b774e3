# shellcheck shell=bash disable=SC2034 # sourced; not every step uses everything
# What every setup step shares: where things are kept, and how a step speaks.
#
# A step prints one line. It is `ok` (present already, or made just now) or `missing`: one sentence that says what to
# do, and one that says what will not work without it. A missing part stops nobody locally; with CI=true it is an error,
# because a check that was silently left out is worse than a red one.
set -euo pipefail

setup_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$setup_dir/../../.." && pwd)
cache=${AETHER_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set; set it or AETHER_CACHE}/.cache}/aether}
mkdir -p "$cache"

ok() { printf '  %-10s %s\n' "$1" "$2"; }

# missing WHAT WHAT_TO_DO WHAT_FAILS: a tool that could not be had.
missing() { absent "$1" "missing: $2 Without it, $3"; }

# absent NAME WHY: tells, remembers for the summary at the end of `make test`, and goes on, unless this is CI.
absent() {
  printf '  %-10s %s\n' "$1" "$2" >&2
  [ -z "${AETHER_SKIPS:-}" ] || printf '%s\n' "$1" >>"$AETHER_SKIPS"
  [ "${CI:-}" != true ] || exit 1
}

# quietly LOG COMMAND...: runs COMMAND with its output in LOG, and shows the end of LOG only when it fails.
quietly() {
  local log=$1
  shift
  mkdir -p "$(dirname "$log")"
  if ! "$@" >"$log" 2>&1; then
    tail -n 15 "$log" | sed 's/^/    | /' >&2
    return 1
  fi
}
