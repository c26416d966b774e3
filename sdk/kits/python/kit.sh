# shellcheck shell=bash disable=SC2154 # follows lib.sh; the caller sets NAME, WORLD, OUT and SCRATCH
# Python: CPython with the plugin's module imported, ready to be asked.
version=0.25.1
home=$kits/python
tool=$home/bin/componentize-py

present() {
  wants python3 "Python 3.10 or newer" && stamped "$home" "componentize-py $version"
}

install() {
  rm -rf "$home"
  python3 -m venv "$home"
  "$home/bin/pip" install --quiet --disable-pip-version-check "componentize-py==$version"
  echo "componentize-py $version" >"$home/stamp"
}

# An active virtual environment is none of the plugin's business.
build() {
  local wasi=(--stub-wasi)
  [ "$WASI" = false ] || wasi=()
  env -u VIRTUAL_ENV "$tool" --wit-path wit --world "$WORLD" componentize "${wasi[@]}" plugin --output "$OUT"
}

