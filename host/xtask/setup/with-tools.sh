#!/usr/bin/env bash
# with-tools.sh COMMAND...: runs COMMAND with AETHER_CRIU and AETHER_BROWSER naming what setup found. What was not found
# stays unset, so that the program says itself what is missing.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

criu=$("$setup_dir/criu.sh" --path)
browser=$("$setup_dir/browser.sh" || true)
[ -z "$criu" ] || export AETHER_CRIU=$criu
[ -z "$browser" ] || export AETHER_BROWSER=$browser
exec "$@"
