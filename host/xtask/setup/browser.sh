#!/usr/bin/env bash
# Prints the path of the browser for the end-to-end tests; fails when there is none.
for candidate in "${AETHER_BROWSER:-}" chromium chromium-browser google-chrome; do
  [ -n "$candidate" ] && command -v "$candidate" && exit 0
done
exit 1
