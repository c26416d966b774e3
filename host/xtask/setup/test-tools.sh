#!/usr/bin/env bash
# What only the tests need: a browser, an OCI registry, an S3 server, readers of Parquet, an OpenTelemetry SDK, a
# Prometheus, the test runner and the dependency checker. The two cargo tools go into the
# cache folder, not among the user's own; the Makefile puts that folder on PATH.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

nextest_version=0.9.143
deny_version=0.20.2

if browser=$("$setup_dir/browser.sh"); then
  ok browser "$browser"
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null &&
  quietly "$cache/chromium.log" sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium'; then
  ok browser "chromium installed"
else
  missing browser "install Chromium (package chromium), or set AETHER_BROWSER to the path of one." \
    "the end-to-end tests of the web page are skipped."
fi

"$setup_dir/oci.sh"
"$setup_dir/python.sh" swift
"$setup_dir/network.sh"
"$setup_dir/python.sh" readers
"$setup_dir/python.sh" otlp
"$setup_dir/debian.sh" prometheus

# cargo_tool NAME VERSION LOSES [FLAGS...]
cargo_tool() {
  local name=$1 version=$2 loses=$3
  shift 3
  if command -v "cargo-$name" >/dev/null; then
    ok "$name" "$("cargo-$name" "$name" --version | head -n 1)"
    return
  fi
  printf '  %-10s building %s (a few minutes, once)\n' "$name" "$version"
  local build=$cache/tools-build
  if CARGO_TARGET_DIR=$build quietly "$cache/cargo-$name.log" \
    cargo install --locked --root "$cache/tools" "cargo-$name@$version" "$@"; then
    ok "$name" "$version installed"
  else
    missing "$name" "\`cargo install --locked cargo-$name\` failed; see $cache/cargo-$name.log." "$loses"
  fi
  rm -rf "$build"
}

cargo_tool nextest "$nextest_version" "the Rust tests cannot run."
# The advisory database is not checked, so neither it nor its TLS stack is built in.
cargo_tool deny "$deny_version" "licences, sources and duplicates of dependencies are not checked." --no-default-features
