#!/usr/bin/env bash
# Finds or fetches `prometheus`, which tests start for themselves as a receiver of remote writes.
#
#   prometheus.sh          one line about what was found or done
#   prometheus.sh --path   the path of the binary to use, or nothing (never fetches)
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=apt.sh
. "$(dirname "$0")/apt.sh"

fetched=$cache/prometheus/usr/bin/prometheus
loses="remote writes are not tested against a real receiver."

candidate() {
  if [ -n "${AETHER_PROMETHEUS:-}" ]; then
    echo "$AETHER_PROMETHEUS"
  elif [ -x "$fetched" ]; then
    echo "$fetched"
  else
    command -v prometheus || true
  fi
}

if [ "${1:-}" = --path ]; then
  candidate
  exit
fi

# It counts once it says its version: one of another machine's C library does not even start.
works() { version=$("$1" --version 2>/dev/null | awk 'NR == 1 { print $3 }') && [ -n "$version" ]; }

# One setup at a time: two would unpack into the same folder.
exec 9>"$cache/prometheus.lock"
flock 9

found=$(candidate)
if [ -n "$found" ] && works "$found"; then
  ok prometheus "prometheus $version ($found)"
  exit
fi
if [ -n "${AETHER_PROMETHEUS:-}" ]; then
  missing prometheus "AETHER_PROMETHEUS=$AETHER_PROMETHEUS does not start; unset it to have one fetched." "$loses"
  exit
fi
suite=$(. /etc/os-release 2>/dev/null && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-}" || true)
if [ -z "$suite" ] || ! can_fetch; then
  missing prometheus "install prometheus so that it is on PATH (it is fetched by itself only on Debian)." "$loses"
  exit
fi
work=$(mktemp -d "$cache/prometheus.XXXXXX")
if quietly "$cache/prometheus-fetch.log" unpack "$work" "$suite" "$uri" prometheus &&
  works "$work/root/usr/bin/prometheus"; then
  rm -rf "$cache/prometheus"
  mv "$work/root" "$cache/prometheus"
  ok prometheus "prometheus $version fetched from Debian $suite ($fetched)"
else
  missing prometheus "it could not be fetched (see $cache/prometheus-fetch.log); install prometheus so that it is on PATH." "$loses"
fi
rm -rf "$work"
