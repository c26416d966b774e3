#!/usr/bin/env bash
# Builds every plugin of plugins/ as a component and lays it out as build/plugins/<name>.wasm.
# The linker makes the component, so no further tool runs; paths of this machine are kept out of the bytes, because a
# plugin is known by their digest.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# Built as the kit for Rust builds a project.
# shellcheck source=../../../sdk/kits/lib.sh
. "$root/sdk/kits/lib.sh"
# shellcheck source=../../../sdk/kits/rust/kit.sh
. "$root/sdk/kits/rust/kit.sh"
out=$root/build/plugins
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/guests

cd "$root/plugins"
wasm_cargo "$root" "${1:-build}" --release --locked "${@:2}"
[ "${1:-build}" = build ] || exit 0

mkdir -p "$out"
built=()
for manifest in */Cargo.toml; do
  name=${manifest%/Cargo.toml}
  artifact=$CARGO_TARGET_DIR/$target/release/${name//-/_}.wasm
  [ -f "$artifact" ] || continue
  # Only what changed is replaced, so that nothing that depends on it is built again.
  cmp -s "$artifact" "$out/$name.wasm" || cp "$artifact" "$out/$name.wasm"
  built+=("$name")
done
# A plugin that was removed or renamed must not live on as a stale component.
for component in "$out"/*.wasm; do
  name=$(basename "$component" .wasm)
  [[ " ${built[*]} " == *" $name "* ]] || rm -f "$component"
done
printf 'built %s\n' "${built[*]}"
