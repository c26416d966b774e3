#!/usr/bin/env bash
# The OpenTelemetry SDK and its OTLP exporters, in a Python environment of their own: the tests of what comes by OTLP send with them.
#
#   otlp.sh          one line about what was found or done
#   otlp.sh --path   the Python to use, or nothing (never fetches)
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

venv=$cache/otlp-venv
requirements=$setup_dir/otlp-requirements.txt
stamp=$venv/requirements.txt
loses="metrics by OTLP are not tested with the senders that others use."

if [ "${1:-}" = --path ]; then
  [ ! -f "$stamp" ] || echo "$venv/bin/python"
  exit
fi

# One setup at a time: two would install into the same folder.
exec 9>"$cache/otlp.lock"
flock 9

# The stamp is written last, so an install that broke off is begun anew.
if ! cmp -s "$requirements" "$stamp"; then
  rm -rf "$venv"
  if ! command -v python3 >/dev/null || ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      quietly "$cache/otlp-python.log" sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv' || true
    fi
  fi
  if ! quietly "$cache/otlp.log" sh -c "python3 -m venv '$venv' && '$venv/bin/pip' install --quiet --disable-pip-version-check --only-binary :all: -r '$requirements'"; then
    missing otlp "install Python 3.9 or newer with venv, and let pip reach a package index; see $cache/otlp.log." "$loses"
    exit
  fi
  cp "$requirements" "$stamp"
fi
ok otlp "opentelemetry-sdk $("$venv/bin/python" -c 'import opentelemetry.sdk.version as v; print(v.__version__)')"
