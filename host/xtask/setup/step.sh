#!/usr/bin/env bash
# Runs one step of the build or of the checks: one line when it is done, its output only when it fails.
#
#   step.sh [--needs TOOL] [--in FOLDER] [--tell PATTERN] NAME COMMAND...
#
# --needs   without TOOL the step is left out and says so; with CI=true that is a failure
# --tell    lines of the output that match PATTERN are shown on success as well
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

folder=$root tell=
while :; do
  case $1 in
    --needs)
      if ! command -v "$2" >/dev/null; then
        skipped=$2
      fi
      shift 2 ;;
    --in) folder=$root/$2; shift 2 ;;
    --tell) tell=$2; shift 2 ;;
    *) break ;;
  esac
done
name=$1
shift
if [ -n "${skipped:-}" ]; then
  absent "$name" "skipped: it needs $skipped"
  exit
fi

# Without clang the agent is built without its eBPF programs, as setup said; with CI=true setup has failed by now.
[ -n "${AETHER_BPF:-}" ] || [ "$("$setup_dir/bpf.sh" --state)" = on ] || export AETHER_BPF=off

log=${AETHER_LOGS:-$root/build/logs}/$name.log
mkdir -p "$(dirname "$log")"
started=$SECONDS
cd "$folder"
if "$@" >"$log" 2>&1; then
  printf '  %-10s ok (%s s)\n' "$name" $((SECONDS - started))
  [ -z "$tell" ] || grep -E "$tell" "$log" | sed 's/^ */    /' || true
else
  code=$?
  tail -n 200 "$log" >&2
  printf '  %-10s FAILED (%s s): %s; all of it in %s\n' "$name" $((SECONDS - started)) "$*" "$log" >&2
  exit $code
fi
