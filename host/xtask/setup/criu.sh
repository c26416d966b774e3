#!/usr/bin/env bash
# Finds or fetches a CRIU that really checkpoints and restores on this kernel.
#
#   criu.sh          one line about what was found or done
#   criu.sh --path   the path of the binary to use, or nothing (never fetches)
#
# `criu check` is not proof: releases before 4 pass it on recent kernels and then fail to dump the vDSO. So a candidate
# counts only once a process of our own has gone through dump and restore. Nothing is installed into the system: the
# packages of a newer Debian are unpacked into a prefix of their own and run by that prefix's dynamic loader.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=apt.sh
. "$(dirname "$0")/apt.sh"

prefix=$cache/criu
wrapper=$prefix/bin/criu
suites=(trixie forky)
loses="process.checkpoint, process.restore and process.migrate are refused on this machine."

# The first error of a CRIU log that is the reason; a refused RLIMIT_NOFILE is logged as one in every run, and harmless.
first_error() { grep Error "$1" 2>/dev/null | grep -v RLIMIT_NOFILE | head -n 1 || true; }

# proves BINARY: a detached process with a TCP socket is dumped (and is gone), then restored (and is back under its pid).
# The socket, because CRIU before 4.2 fails at options that kernels since 6.16 refuse to tell of one.
# The reason of a failure is left in $why.
why=
proves() {
  local binary=$1 dir pid code=1
  dir=$(mktemp -d)
  mkdir "$dir/images"
  # perl-base is in every Debian; its process is called `ready` once the socket listens on a port of the kernel's choice.
  setsid perl -e 'use Socket; socket(S, PF_INET, SOCK_STREAM, 0) && listen(S, 1) || die; $0 = "ready"; sleep 300' \
    </dev/null >/dev/null 2>&1 9>&- &
  pid=$!
  # Bounded: one that died is a zombie, and still in /proc.
  for ((tries = 0; tries < 500; tries++)); do
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != ready ] || break
    sleep 0.02
  done
  if [ "$tries" = 500 ]; then
    why="a process to try it on (perl with a TCP socket) could not be started"
  elif ! "$binary" check >"$dir/check" 2>&1; then
    why=$(tail -n 1 "$dir/check")
  elif ! "$binary" dump -t "$pid" -D "$dir/images" -o dump.log >/dev/null 2>&1; then
    why=$(first_error "$dir/images/dump.log")
  else
    wait "$pid" 2>/dev/null || true
    if ! "$binary" restore -d -D "$dir/images" -o restore.log >/dev/null 2>&1; then
      why=$(first_error "$dir/images/restore.log")
    elif [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != ready ]; then
      why="the restored process did not come back under its pid"
    else
      code=0
    fi
  fi
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  rm -rf "$dir"
  return $code
}

# fetch SUITE URI: criu of SUITE and all it links against, into $prefix.
fetch() {
  local suite=$1 uri=$2 work loader
  work=$(mktemp -d "$cache/criu.XXXXXX")
  unpack "$work" "$suite" "$uri" --closure criu >"$cache/criu-fetch.log" 2>&1 || { rm -rf "$work"; return 1; }
  mkdir -p "$work"/root/{bin,usr/lib/criu}
  loader=$(find "$work/root/usr/lib" -name 'ld-linux*.so.*' -printf '%P\n' -quit)
  [ -n "$loader" ] && [ -x "$work/root/usr/sbin/criu" ] || { rm -rf "$work"; return 1; }
  cat >"$work/root/bin/criu" <<EOF
#!/bin/sh
# The system's C library is too old for this criu, so it runs with its own. Children are not affected.
# Its plugins are its own too: the system's criu may have left some of another version.
export CRIU_LIBS_DIR="\${CRIU_LIBS_DIR:-$prefix/usr/lib/criu}"
exec "$prefix/usr/lib/$loader" --library-path "$prefix/usr/lib/$(dirname "$loader")" --argv0 criu "$prefix/usr/sbin/criu" "\$@"
EOF
  chmod +x "$work/root/bin/criu"
  rm -rf "$prefix" "$work/root/usr/share"
  mv "$work/root" "$prefix"
  rm -rf "$work"
}

# The first candidate that exists: an explicit choice, the one fetched before, the system's.
candidates() {
  if [ -n "${AETHER_CRIU:-}" ]; then
    echo "$AETHER_CRIU"
  else
    [ ! -x "$wrapper" ] || echo "$wrapper"
    command -v criu || true
  fi
}

if [ "${1:-}" = --path ]; then
  candidates | head -n 1
  exit
fi

if [ "$(id -u)" != 0 ]; then
  missing criu "run as root, or give the agent CAP_CHECKPOINT_RESTORE and CAP_SYS_PTRACE." "$loses"
  exit
fi

# One setup at a time: two would unpack into the same prefix.
exec 9>"$cache/criu.lock"
flock 9

for candidate in $(candidates); do
  if proves "$candidate" 2>/dev/null; then
    ok criu "$("$candidate" --version | awk '/^Version/ { print $2 }') works ($candidate)"
    exit
  fi
done
if [ -n "${AETHER_CRIU:-}" ]; then
  missing criu "AETHER_CRIU=$AETHER_CRIU cannot dump and restore here (${why:-no reason given}); unset it to have one fetched." "$loses"
  exit
fi

if ! can_fetch; then
  missing criu "install CRIU 4.2 or newer so that it is on PATH (it is fetched by itself only on Debian)." "$loses"
  exit
fi
for suite in "${suites[@]}"; do
  if fetch "$suite" "$uri" && proves "$wrapper" 2>/dev/null; then
    ok criu "$("$wrapper" --version | awk '/^Version/ { print $2 }') fetched from Debian $suite and proved ($wrapper)"
    exit
  fi
done
missing criu "it could not be fetched or does not work here (${why:-see $cache/criu-fetch.log}); install CRIU 4.2 or newer so that it is on PATH." "$loses"
