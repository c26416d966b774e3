#!/usr/bin/env bash
# XGBoost, LightGBM and scikit-learn in a Python environment of their own, for the tests that hold `tree-ensemble` to the
# original libraries. Nothing is installed among the user's own packages.
#
#   models.sh          one line about what was found or done
#   models.sh --path   the Python to use, or nothing (never fetches)
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

venv=$cache/models-venv
requirements=$root/sdk/models/requirements.txt
stamp=$venv/requirements.txt
versions='import lightgbm as l, sklearn as s, xgboost as x; print(f"xgboost {x.__version__}, lightgbm {l.__version__}, scikit-learn {s.__version__}")'
loses="the models that \`tree-ensemble\` reads are not compared with the libraries that made them."

if [ "${1:-}" = --path ]; then
  [ ! -f "$stamp" ] || echo "$venv/bin/python"
  exit
fi

# One setup at a time: two would install into the same folder.
exec 9>"$cache/models.lock"
flock 9

# The stamp is written last, so an install that broke off is begun anew.
if ! cmp -s "$requirements" "$stamp"; then
  rm -rf "$venv"
  if ! command -v python3 >/dev/null || ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      quietly "$cache/models-python.log" sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv' || true
    fi
  fi
  if ! quietly "$cache/models.log" sh -c "python3 -m venv '$venv' && '$venv/bin/pip' install --quiet --disable-pip-version-check --only-binary :all: -r '$requirements'"; then
    missing models "install Python 3.10 or newer with venv, and let pip reach a package index; see $cache/models.log." "$loses"
    exit
  fi
  # The wheels bring everything but the OpenMP runtime.
  if ! "$venv/bin/python" -c "$versions" >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    quietly "$cache/models-openmp.log" sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends libgomp1' || true
  fi
  if ! quietly "$cache/models.log" "$venv/bin/python" -c "$versions"; then
    missing models "the libraries do not load; install libgomp1; see $cache/models.log." "$loses"
    exit
  fi
  cp "$requirements" "$stamp"
fi
ok models "$("$venv/bin/python" -c "$versions")"
