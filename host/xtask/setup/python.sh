#!/usr/bin/env bash
# Libraries from PyPI that tests work with, each set in a Python environment of its own: nothing is installed among the
# user's own packages.
#
#   python.sh NAME          one line about what was found or done
#   python.sh NAME --path   the program to use, or nothing (never fetches)
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

name=$1
requirements=$setup_dir/$name-requirements.txt
least=3.9
system=
case $name in
  models)
    requirements=$root/sdk/models/requirements.txt
    least=3.10
    # The wheels bring everything but the OpenMP runtime.
    system=libgomp1
    versions='import lightgbm as l, sklearn as s, xgboost as x; print(f"xgboost {x.__version__}, lightgbm {l.__version__}, scikit-learn {s.__version__}")'
    loses="the models that \`tree-ensemble\` reads are not compared with the libraries that made them."
    ;;
  otlp)
    versions='import opentelemetry.sdk.version as v; print(f"opentelemetry-sdk {v.__version__}")'
    loses="metrics by OTLP are not tested with the senders that others use."
    ;;
  readers)
    least=3.11
    versions='import duckdb, pandas; print(f"pandas {pandas.__version__}, duckdb {duckdb.__version__}")'
    loses="the recorder's files are not read by pandas and DuckDB."
    ;;
  swift)
    versions='import swift; print(f"swift {swift.__version__}")'
    loses="the snapshot store is not tested against S3."
    ;;
  *) echo "python.sh: nothing is known of $name" >&2 && exit 2 ;;
esac
venv=$cache/$name-venv
stamp=$venv/requirements.txt

if [ "${2:-}" = --path ]; then
  [ ! -f "$stamp" ] || echo "$venv/bin/python"
  exit
fi

# installed PACKAGE: tries to, where that can be done.
installed() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null &&
    quietly "$cache/$name-apt.log" sh -c "apt-get update -qq && apt-get install -y -qq --no-install-recommends $1"
}

# One setup at a time: two would install into the same folder.
exec 9>"$cache/$name.lock"
flock 9

# The stamp is written last, so an install that broke off is begun anew.
if ! cmp -s "$requirements" "$stamp"; then
  rm -rf "$venv"
  if ! command -v python3 >/dev/null || ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    installed python3-venv || true
  fi
  if ! quietly "$cache/$name.log" sh -c "python3 -m venv '$venv' && '$venv/bin/pip' install --quiet --disable-pip-version-check --only-binary :all: -r '$requirements'"; then
    missing "$name" "install Python $least or newer with venv, and let pip reach a package index; see $cache/$name.log." "$loses"
    exit
  fi
  if [ -n "$system" ] && ! "$venv/bin/python" -c "$versions" >/dev/null 2>&1; then
    installed "$system" || true
  fi
  if ! quietly "$cache/$name.log" "$venv/bin/python" -c "$versions"; then
    missing "$name" "the libraries do not load${system:+; install $system}; see $cache/$name.log." "$loses"
    exit
  fi
  cp "$requirements" "$stamp"
fi
ok "$name" "$("$venv/bin/python" -c "$versions")"
