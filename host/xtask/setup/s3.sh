#!/usr/bin/env bash
# moto's server, which speaks S3, in a Python environment of its own: the snapshot store's tests start it for themselves.
#
#   s3.sh          one line about what was found or done
#   s3.sh --path   the program to use, or nothing (never fetches)
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

venv=$cache/s3-venv
requirements=$setup_dir/s3-requirements.txt
stamp=$venv/requirements.txt
loses="the snapshot store is not tested against S3."

if [ "${1:-}" = --path ]; then
  [ ! -f "$stamp" ] || echo "$venv/bin/moto_server"
  exit
fi

# One setup at a time: two would install into the same folder.
exec 9>"$cache/s3.lock"
flock 9

# The stamp is written last, so an install that broke off is begun anew.
if ! cmp -s "$requirements" "$stamp"; then
  rm -rf "$venv"
  if ! command -v python3 >/dev/null || ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      quietly "$cache/s3-python.log" sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv' || true
    fi
  fi
  if ! quietly "$cache/s3.log" sh -c "python3 -m venv '$venv' && '$venv/bin/pip' install --quiet --disable-pip-version-check --only-binary :all: -r '$requirements'"; then
    missing s3 "install Python 3.9 or newer with venv, and let pip reach a package index; see $cache/s3.log." "$loses"
    exit
  fi
  cp "$requirements" "$stamp"
fi
ok s3 "moto $("$venv/bin/python" -c 'import moto; print(moto.__version__)')"
