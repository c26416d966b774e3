# shellcheck shell=bash disable=SC2154 # follows lib.sh; the caller sets NAME, WORLD, OUT and SCRATCH
# JavaScript: QuickJS, with the plugin's module run up to the point where it can be asked.
version=0.4.5
home=$kits/js
tool=$home/node_modules/.bin/componentize-qjs

present() {
  wants node "Node.js 20 or newer" && wants npm npm && stamped "$home" "componentize-qjs $version"
}

install() {
  rm -rf "$home" && mkdir -p "$home"
  npm install --prefix "$home" --no-audit --no-fund --loglevel=error "componentize-qjs@$version"
  echo "componentize-qjs $version" >"$home/stamp"
}

build() {
  local wasi=(--stub-wasi)
  [ "$WASI" = false ] || wasi=()
  "$tool" --wit wit --world "$WORLD" --js plugin.js "${wasi[@]}" --sync --minify --output "$OUT"
}

