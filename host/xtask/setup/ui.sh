#!/usr/bin/env bash
# Installs the web page's packages as its lock says, when the lock is newer than what is installed.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

loses="the web page cannot be built; the API and the command line are not affected."
cd "$root/host/ui"

if ! command -v npm >/dev/null; then
  missing ui "install Node.js 20 or newer with npm." "$loses"
elif [ node_modules/.package-lock.json -nt package-lock.json ]; then
  ok ui "packages present"
elif quietly "$cache/npm.log" npm ci --no-audit --no-fund; then
  # npm keeps the times inside its archive; what counts here is that this lock was installed.
  touch node_modules/.package-lock.json
  ok ui "packages installed"
else
  missing ui "\`npm ci\` in host/ui failed; run it again when the package registry can be reached." "$loses"
fi
