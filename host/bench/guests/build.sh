#!/usr/bin/env bash
# Builds the measured guests and lays them out in build/bench/: Aether's as components, made by the linker as
# host/xtask/setup/guests.sh does it, and Extism's as a core module, which is what Extism takes.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../../.. && pwd)
target=wasm32-unknown-unknown
host=$(rustc -vV | sed -n 's/^host: //p')
base=${CARGO_TARGET_DIR:-$root/target}/bench-guests
out=$root/build/bench
mkdir -p "$out"

# A small stack is cheaper to reset; both kinds get the same.
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="-Clink-arg=-zstack-size=32768"
CARGO_TARGET_DIR=$base/extism cargo build --release --locked --target $target -p extism-guest
cp "$base/extism/$target/release/extism_guest.wasm" "$out/extism.wasm"

linker=$(rustc --print sysroot)/lib/rustlib/$host/bin/wasm-component-ld
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$linker
CARGO_TARGET_DIR=$base/aether cargo build --release --locked --target $target -p aether-gate -p aether-ewma -p neighbour
for name in aether-gate aether-ewma neighbour; do
  cp "$base/aether/$target/release/${name//-/_}.wasm" "$out/$name.wasm"
done
