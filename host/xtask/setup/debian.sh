#!/usr/bin/env bash
# Finds or fetches a program of Debian's that tests or measurements start for themselves.
#
#   debian.sh NAME          one line about what was found or done
#   debian.sh NAME --path   the path of the binary to use, or nothing (never fetches)
#
# Its variable (AETHER_PROMETHEUS, say) names another one.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=apt.sh
. "$(dirname "$0")/apt.sh"

name=$1
case $name in
  prometheus) loses="remote writes are not tested against a real receiver." ;;
  victoria-metrics | prometheus-node-exporter) loses="nothing is measured beside it." ;;
  *) echo "debian.sh: nothing is known of $name" >&2 && exit 2 ;;
esac
variable=AETHER_$(echo "$name" | tr a-z- A-Z_)
asked=${!variable:-}
fetched=$cache/$name/usr/bin/$name

candidate() {
  if [ -n "$asked" ]; then
    echo "$asked"
  elif [ -x "$fetched" ]; then
    echo "$fetched"
  else
    command -v "$name" || true
  fi
}

if [ "${2:-}" = --path ]; then
  candidate
  exit
fi

# It counts once it starts: one of another machine's C library does not. Not every one says its version.
works() {
  local said
  said=$("$1" --version 2>&1) && version=$(echo "$said" | awk 'NR == 1 { print (NF > 2 ? $3 : "of a version that it does not tell") }')
}

# One setup at a time: two would unpack into the same folder.
exec 9>"$cache/$name.lock"
flock 9

found=$(candidate)
if [ -n "$found" ] && works "$found"; then
  ok "$name" "$version ($found)"
  exit
fi
if [ -n "$asked" ]; then
  missing "$name" "$variable=$asked does not start; unset it to have one fetched." "$loses"
  exit
fi
suite=$(. /etc/os-release 2>/dev/null && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-}" || true)
if [ -z "$suite" ] || ! can_fetch; then
  missing "$name" "install it so that it is on PATH (it is fetched by itself only on Debian)." "$loses"
  exit
fi
work=$(mktemp -d "$cache/$name.XXXXXX")
if quietly "$cache/$name-fetch.log" unpack "$work" "$suite" "$uri" "$name" &&
  works "$work/root/usr/bin/$name"; then
  rm -rf "${cache:?}/$name"
  mv "$work/root" "$cache/$name"
  ok "$name" "$version fetched from Debian $suite ($fetched)"
else
  missing "$name" "it could not be fetched (see $cache/$name-fetch.log); install it so that it is on PATH." "$loses"
fi
rm -rf "$work"
