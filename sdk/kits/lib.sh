# shellcheck shell=bash disable=SC2034 # sourced; not every kit uses everything
# What the kits share. A kit is the file kit.sh in a language's folder, with three functions:
#
#   present   says what is there, and succeeds; or says what is missing, and fails
#   install   gets it into $home, or fails with a reason. Not called when a prerequisite is missing
#   build     makes $OUT, a component or a core module, of the plugin in the working folder. $NAME, $WORLD,
#             $WASI (true or false), $STACK_BYTES and the folder $SCRATCH are set
#
# `aether plugin` has these files in it and runs them with bash; this repository's set-up sources the same ones.
# Everything that is fetched goes below ${AETHER_CACHE:-~/.cache/aether}/kits, with a version that is written down here.
kits=${AETHER_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set; set it or AETHER_CACHE}/.cache}/aether}/kits

# wants COMMAND WHAT: a prerequisite that no kit installs.
wants() {
  command -v "$1" >/dev/null && return
  echo "$2 is missing: install it with your system's packages"
  return 1
}

# stamped HOME WHAT: whether install got WHAT into HOME, whole.
stamped() {
  if [ "$(cat "$1/stamp" 2>/dev/null)" = "$2" ]; then
    echo "$2"
  else
    echo "$2 is not there"
    return 1
  fi
}

# One installation of a kit at a time; the second finds it done.
locked_install() {
  mkdir -p "$kits"
  exec 8>"$kits/lock"
  flock 8
  present >/dev/null || install
}

# debian SUITE PREFIX PACKAGE...: unpacks packages of a Debian release into PREFIX, beside the system and without its
# knowledge. On other systems it fails, and the kit says what to set instead.
debian() {
  local suite=$1 prefix=$2 keyring=/usr/share/keyrings/debian-archive-keyring.gpg uri work
  shift 2
  # shellcheck disable=SC2016 # apt's own placeholders
  uri=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk '$1 == "Debian" && $2 !~ /security/ { print $2; exit }')
  if [ -z "$uri" ] || [ ! -r "$keyring" ]; then
    echo "this is not Debian, so its packages cannot be unpacked here" >&2
    return 1
  fi
  work=$(mktemp -d "$kits/debian.XXXXXX")
  mkdir -p "$work"/{lists/partial,cache/archives/partial,debs} "$prefix"
  : >"$work/status"
  echo "deb [signed-by=$keyring] $uri $suite main" >"$work/sources.list"
  # What has moved there since the release is still of that release.
  [ "$suite" != bookworm ] || echo "deb [signed-by=$keyring] ${uri%/}-security $suite-security main" >>"$work/sources.list"
  cat >"$work/apt.conf" <<CONF
Dir::State "$work";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "";
Acquire::Languages "none";
CONF
  (
    cd "$work/debs"
    export APT_CONFIG=$work/apt.conf
    apt-get update -qq
    apt-get download -qq "$@"
    for package in *.deb; do dpkg -x "$package" "$prefix"; done
  )
  local code=$?
  rm -rf "$work"
  return $code
}

