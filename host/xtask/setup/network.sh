#!/usr/bin/env bash
# What moves an address with its workload's TCP connections: ip, nft and arping. Installed where this runs as root on
# Debian; a machine without them moves everything else.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

packages=()
command -v ip >/dev/null || packages+=(iproute2)
command -v nft >/dev/null || packages+=(nftables)
command -v arping >/dev/null || packages+=(iputils-arping)

if [ ${#packages[@]} = 0 ]; then
  ok network "ip, nft and arping"
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null &&
  quietly "$cache/network.log" sh -c "apt-get update -qq && apt-get install -y -qq --no-install-recommends ${packages[*]}"; then
  ok network "${packages[*]} installed"
else
  missing network "install ${packages[*]}." "workloads with \`tcp = \"move\"\` are not moved, and the tests of it are skipped."
fi
