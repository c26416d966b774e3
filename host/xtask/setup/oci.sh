#!/usr/bin/env bash
# Finds or fetches `docker-registry`, the reference implementation of an OCI registry, which tests start for themselves.
#
#   oci.sh          one line about what was found or done
#   oci.sh --path   the path of the binary to use, or nothing (never fetches)
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=apt.sh
. "$(dirname "$0")/apt.sh"

fetched=$cache/docker-registry/usr/bin/docker-registry
loses="the tests that pull components from a real registry are skipped."

candidate() {
  if [ -n "${AETHER_OCI_REGISTRY:-}" ]; then
    echo "$AETHER_OCI_REGISTRY"
  elif [ -x "$fetched" ]; then
    echo "$fetched"
  else
    command -v docker-registry || true
  fi
}

if [ "${1:-}" = --path ]; then
  candidate
  exit
fi

# It counts once it says its version: one of another machine's C library does not even start.
works() { version=$("$1" --version 2>/dev/null | awk '{ print $NF }') && [ -n "$version" ]; }

# One setup at a time: two would unpack into the same folder.
exec 9>"$cache/docker-registry.lock"
flock 9

found=$(candidate)
if [ -n "$found" ] && works "$found"; then
  ok oci "docker-registry $version ($found)"
  exit
fi
if [ -n "${AETHER_OCI_REGISTRY:-}" ]; then
  missing oci "AETHER_OCI_REGISTRY=$AETHER_OCI_REGISTRY does not start; unset it to have one fetched." "$loses"
  exit
fi
suite=$(. /etc/os-release 2>/dev/null && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-}" || true)
if [ -z "$suite" ] || ! can_fetch; then
  missing oci "install docker-registry so that it is on PATH (it is fetched by itself only on Debian)." "$loses"
  exit
fi
work=$(mktemp -d "$cache/docker-registry.XXXXXX")
if quietly "$cache/docker-registry-fetch.log" unpack "$work" "$suite" "$uri" docker-registry &&
  works "$work/root/usr/bin/docker-registry"; then
  rm -rf "$cache/docker-registry"
  mv "$work/root" "$cache/docker-registry"
  ok oci "docker-registry $version fetched from Debian $suite ($fetched)"
else
  missing oci "it could not be fetched (see $cache/docker-registry-fetch.log); install docker-registry so that it is on PATH." "$loses"
fi
rm -rf "$work"
