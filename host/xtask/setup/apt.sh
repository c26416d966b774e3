# shellcheck shell=bash disable=SC2034 # sourced
# Packages of a Debian suite, unpacked into a folder of our own: nothing is installed, and the system's apt is not touched.

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# The mirror that this machine's own apt uses for Debian; empty on other systems.
mirror() {
  # shellcheck disable=SC2016 # apt's own placeholders
  apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk '$1 == "Debian" { print $2; found = 1; exit } $2 ~ /\/debian\/?$/ && !any { any = $2 } END { if (!found && any) print any }'
}

# can_fetch: whether packages can be had this way; leaves the mirror in $uri.
uri=
can_fetch() {
  if command -v apt-get >/dev/null && [ -r "$keyring" ]; then uri=$(mirror); fi
  [ -n "$uri" ]
}

# unpack WORK SUITE URI [--closure] PACKAGE: PACKAGE of SUITE into WORK/root, with --closure also all that it depends on.
# Private apt state below WORK.
unpack() {
  local work=$1 suite=$2 from=$3 closure= package packages
  shift 3
  if [ "$1" = --closure ]; then closure=1; shift; fi
  package=$1
  mkdir -p "$work"/{apt/lists/partial,apt/cache/archives/partial,debs,root}
  : >"$work/apt/status"
  echo "deb [signed-by=$keyring] $from $suite main" >"$work/apt/sources.list"
  cat >"$work/apt.conf" <<CONF
Dir::State "$work/apt";
Dir::State::lists "$work/apt/lists";
Dir::State::status "$work/apt/status";
Dir::Cache "$work/apt/cache";
Dir::Etc::sourcelist "$work/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "";
Acquire::Languages "none";
CONF
  # Not `set -e`: bash ignores it in what stands before `||`, as callers do.
  (
    cd "$work/debs" || exit 1
    export APT_CONFIG=$work/apt.conf
    apt-get update -qq || exit 1
    packages=$package
    # With an empty status file, the simulated install is the whole closure, libc and its loader included.
    [ -z "$closure" ] || packages=$(apt-get install --simulate --no-install-recommends "$package" | awk '$1 == "Inst" { print $2 }')
    [ -n "$packages" ] || exit 1
    # shellcheck disable=SC2086 # a list of package names
    apt-get download -qq $packages || exit 1
    for deb in *.deb; do dpkg -x "$deb" "$work/root" || exit 1; done
  )
}
