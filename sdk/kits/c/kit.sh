# shellcheck shell=bash disable=SC2154 # follows lib.sh; the caller sets NAME, WORLD, OUT and SCRATCH
# C: clang with wasi-libc, of which only what needs no system is linked.
version=22
home=$kits/c
what="clang $version with wasi-libc"

present() {
  if [ -n "${WASI_SDK_PATH:-}" ]; then
    [ -x "$WASI_SDK_PATH/bin/clang" ] && echo "wasi-sdk ($WASI_SDK_PATH)" && return
    echo "WASI_SDK_PATH=$WASI_SDK_PATH holds no bin/clang"
    return 1
  fi
  stamped "$home" "$what"
}

install() {
  rm -rf "$home"
  debian bookworm "$home" "clang-$version" "libclang-cpp$version" "libclang-common-$version-dev" "libllvm$version" \
    "lld-$version" "libclang-rt-$version-dev-wasm32" libz3-4 libedit2 libbsd0 libmd0 libtinfo6 || {
    echo "install a wasi-sdk and set WASI_SDK_PATH to its folder" >&2
    return 1
  }
  # The C library is the same on all machines; bookworm's is too old.
  debian forky "$home" wasi-libc
  rm -rf "$home/usr/share"
  echo "$what" >"$home/stamp"
}

build() {
  local clang llvm=$home/usr/lib/llvm-$version
  if [ -n "${WASI_SDK_PATH:-}" ]; then
    clang=("$WASI_SDK_PATH/bin/clang" --target=wasm32-wasip1)
  else
    export LD_LIBRARY_PATH=$home/usr/lib/x86_64-linux-gnu:$llvm/lib
    clang=("$llvm/bin/clang" --target=wasm32-wasip1 "--sysroot=$home/usr" -isystem "$home/usr/include/wasm32-wasip1"
      -resource-dir "$llvm/lib/clang/$version" "-fuse-ld=$llvm/bin/wasm-ld")
  fi
  local sources=(*.c)
  [ "$WASI" = false ] || sources=("${sources[@]/#nowasi.c/}")
  # shellcheck disable=SC2068 # what was left out is no word
  "${clang[@]}" -std=gnu17 -O2 -Wall -Wextra -mexec-model=reactor "-Wl,--strip-debug,-z,stack-size=$STACK_BYTES" -I. \
    -o "$OUT" ${sources[@]} bindings/*.c bindings/*.o
}

