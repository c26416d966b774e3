#!/usr/bin/env bash
# Checks that this workspace can be compiled, and makes `cargo build --target wasm32-unknown-unknown` able to link a
# component: the target's standard library, and the component linker that ships inside a rustup toolchain. guests.sh
# tells cargo about the linker.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

target=wasm32-unknown-unknown
loses="no plugin can be built, so there is nothing that scores, plans or gates."

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
if ! command -v rustc >/dev/null || ! command -v cargo >/dev/null; then
  missing rust "install Rust $wanted or newer with rustup." "nothing can be built."
  exit
fi
present=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n' "$wanted" "$present" | sort -V | head -n 1)" != "$wanted" ]; then
  missing rust "Rust $wanted or newer is wanted and this is $present; run \`rustup update\`." "nothing can be built."
  exit
fi
if ! command -v cc >/dev/null; then
  missing cc "install a C compiler (package build-essential)." "SQLite, zstd and ring cannot be built, so nothing can."
  exit
fi
host=$(rustc -vV | sed -n 's/^host: //p')
if [ ! -x "$(rustc --print sysroot)/lib/rustlib/$host/bin/wasm-component-ld" ]; then
  missing guests "this Rust has no wasm-component-ld; use a toolchain installed by rustup." "$loses"
  exit
fi
std_present() { compgen -G "$(rustc --print target-libdir --target "$target")/libstd-*.rlib" >/dev/null; }
if std_present; then
  ok guests "Rust target $target present"
elif ! command -v rustup >/dev/null; then
  missing guests "install the standard library of $target for $(rustc --version)." "$loses"
elif quietly "$cache/rustup.log" timeout 300 rustup target add "$target" && std_present; then
  ok guests "Rust target $target added"
else
  missing guests "\`rustup target add $target\` failed; run it again when the network allows." "$loses"
fi
