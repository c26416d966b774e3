#!/usr/bin/env bash
# Gets the toolchains of the plugin kits (sdk/kits): what `aether plugin toolchain` does, before there is an `aether`.
# Rust's is rust.sh's matter, because the first-party plugins need it too.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

for kit in "$root"/sdk/kits/*/kit.sh; do
  lang=$(basename "$(dirname "$kit")")
  # Each kit in a shell of its own: they use the same names.
  call() { bash -euo pipefail -c "$(cat "$root/sdk/kits/lib.sh" "$kit")"$'\n'"$1"; }
  if what=$(call present); then
    ok "kit $lang" "$what"
    continue
  fi
  if quietly "$cache/kit-$lang.log" call locked_install && what=$(call present); then
    ok "kit $lang" "$what fetched"
  else
    absent_unless_optional() { if [ "$lang" = go ]; then CI='' missing "$@"; else missing "$@"; fi; }
    absent_unless_optional "kit-$lang" "$what; \`aether plugin toolchain $lang\` gets it." \
      "plugins in $lang cannot be built, and their part of the conformance tests is skipped."
  fi
done
