#!/usr/bin/env bash
# pandas and DuckDB in a Python environment of their own: the recorder's tests read its files with them.
#
#   readers.sh          one line about what was found or done
#   readers.sh --path   the Python to use, or nothing (never fetches)
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

venv=$cache/readers-venv
requirements=$setup_dir/readers-requirements.txt
stamp=$venv/requirements.txt
loses="the recorder's files are not read by pandas and DuckDB."

if [ "${1:-}" = --path ]; then
  [ ! -f "$stamp" ] || echo "$venv/bin/python"
  exit
fi

# One setup at a time: two would install into the same folder.
exec 9>"$cache/readers.lock"
flock 9

# The stamp is written last, so an install that broke off is begun anew.
if ! cmp -s "$requirements" "$stamp"; then
  rm -rf "$venv"
  if ! command -v python3 >/dev/null || ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      quietly "$cache/readers-python.log" sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv' || true
    fi
  fi
  if ! quietly "$cache/readers.log" sh -c "python3 -m venv '$venv' && '$venv/bin/pip' install --quiet --disable-pip-version-check --only-binary :all: -r '$requirements'"; then
    missing readers "install Python 3.11 or newer with venv, and let pip reach a package index; see $cache/readers.log." "$loses"
    exit
  fi
  cp "$requirements" "$stamp"
fi
ok readers "$("$venv/bin/python" -c 'import duckdb, pandas; print(f"pandas {pandas.__version__}, duckdb {duckdb.__version__}")')"
