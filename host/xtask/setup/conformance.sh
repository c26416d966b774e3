#!/usr/bin/env bash
# conformance.sh AETHER: builds the guests of sdk/conformance into build/kits/<lang>/<world>, by the commands that a
# newcomer uses. A project that has not changed keeps what was built of it, so a second run builds nothing.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

aether=$1
out=$root/build/kits
# Projects in Rust share what they depend on.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/kits

# guest LANG SUBJECT WORLD: a kit's template, or with files of sdk/conformance/guests laid over it.
guest() {
  local lang=$1 world=$3 name=$1-$2 project=$out/$1/$2 own=$root/sdk/conformance/guests/$1/$2
  local fresh=$project.new
  rm -rf "$fresh"
  "$aether" plugin new "$name" --lang "$lang" --world "$world" --folder "$fresh" >/dev/null || return
  if [ -d "$own" ]; then
    cp -r "$own/." "$fresh"
    grep -rlF '{{name}}' "$fresh" | xargs -r sed -i "s/{{name}}/$name/"
    cp -r "$root/sdk/conformance/guests/assets" "$fresh/assets"
    sed -i 's/^wasi = false/wasi = true/' "$fresh/plugin.toml"
  fi
  # `build` knows by content whether anything is to be done.
  for kept in .aether "$name.wasm" Cargo.lock; do
    [ ! -e "$project/$kept" ] || { rm -rf "${fresh:?}/$kept" && mv "$project/$kept" "$fresh/$kept"; }
  done
  rm -rf "$project"
  mv "$fresh" "$project" || return
  "$aether" plugin build "$project"
}

failed=0
for kit in "$root"/sdk/kits/*/kit.sh; do
  lang=$(basename "$(dirname "$kit")")
  mkdir -p "$out/$lang"
  rm -f "$out/$lang/missing"
  if ! why=$("$aether" plugin toolchain "$lang" --check 2>&1); then
    rm -rf "${out:?}/$lang"/*
    printf '%s\n' "${why#aether: "$lang": }" >"$out/$lang/missing"
    echo "skipped $lang: $why"
    continue
  fi
  for world in "$root/sdk/kits/$lang/template"/*/; do
    world=$(basename "$world")
    [ "$world" = common ] || guest "$lang" "$world" "$world" || failed=1
  done
  # What all guests of our own are: a scorer that tells what it found.
  for subject in "$root/sdk/conformance/guests/$lang"/*/; do
    subject=$(basename "$subject")
    guest "$lang" "$subject" risk-scorer || failed=1
  done
done
exit $failed
