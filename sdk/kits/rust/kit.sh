# shellcheck shell=bash disable=SC2154 # follows lib.sh; the caller sets NAME, WORLD, OUT and SCRATCH
# Rust: a target without WASI, and a linker that makes the component. Both come with rustup.
target=wasm32-unknown-unknown

linker() {
  echo "$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/wasm-component-ld"
}

present() {
  wants cargo "Rust 1.95 or newer (by rustup)" || return
  if [ ! -x "$(linker)" ]; then
    echo "this Rust has no wasm-component-ld; use a toolchain that rustup installed"
    return 1
  fi
  if ! compgen -G "$(rustc --print target-libdir --target "$target")/libstd-*.rlib" >/dev/null; then
    echo "the Rust target $target is not there"
    return 1
  fi
  echo "$(rustc --version | cut -d' ' -f1,2) with $target"
}

install() {
  wants rustup rustup && rustup target add "$target"
}

# wasm_cargo FOLDER ARGUMENT...: cargo for the guests' target. Paths of this machine, of FOLDER too, are kept out of the
# bytes, because a plugin is known by their digest.
wasm_cargo() {
  local folder=$1 flags variable=CARGO_TARGET_${target//-/_}
  shift
  flags=(
    # A small stack is cheaper to reset for the fresh store of every evaluation.
    "-Clink-arg=-zstack-size=${STACK_BYTES:-32768}"
    "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    "--remap-path-prefix=$folder=/aether"
  )
  export "${variable^^}_RUSTFLAGS=${flags[*]}"
  # The target with WASI has a linker of its own; its module becomes a component afterwards.
  [ "$target" != wasm32-unknown-unknown ] || export "${variable^^}_LINKER=$(linker)"
  cargo "$1" --target "$target" "${@:2}"
}

build() {
  if [ "$WASI" = true ]; then
    target=wasm32-wasip1
    rustup target add "$target"
  fi
  export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$SCRATCH/target}
  wasm_cargo "$PWD" build --release
  cp "$CARGO_TARGET_DIR/$target/release/${NAME//-/_}.wasm" "$OUT"
}

