# shellcheck shell=bash disable=SC2154 # follows lib.sh; the caller sets NAME, WORLD, OUT and SCRATCH
# Go: the compiler's own target for WASI, whose module becomes a component afterwards.
version=1.27
home=$kits/go
what="Go $version"

# The compiler to use: the one on PATH if it is new enough, else the one that was fetched.
compiler() {
  local found
  if found=$(go env GOVERSION 2>/dev/null) && [ "$(printf 'go1.25\n%s\n' "$found" | sort -V | head -n 1)" = go1.25 ]; then
    command -v go
  else
    echo "$home/usr/lib/go-$version/bin/go"
  fi
}

present() {
  if [ "$(compiler)" != "$home/usr/lib/go-$version/bin/go" ]; then
    echo "$(go env GOVERSION) on PATH"
  else
    stamped "$home" "$what"
  fi
}

install() {
  rm -rf "$home"
  debian forky "$home" "golang-$version-go" "golang-$version-src" || {
    echo "install Go 1.25 or newer" >&2
    return 1
  }
  echo "$what" >"$home/stamp"
}

build() {
  local go
  go=$(compiler)
  GOROOT=$("$go" env GOROOT)
  [ "$go" != "$home/usr/lib/go-$version/bin/go" ] || GOROOT=$home/usr/lib/go-$version
  export GOROOT GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-mod=mod GOOS=wasip1 GOARCH=wasm
  # The bindings reach into the runtime for memory before it is up, which the linker forbids by default. Without
  # -trimpath the bytes would depend on this machine's folders.
  "$go" build -trimpath -buildvcs=false -buildmode=c-shared -ldflags='-s -w -checklinkname=0' -o "$OUT" .
}

