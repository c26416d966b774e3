#!/usr/bin/env bash
# clang and libbpf's headers, which compile the agent's eBPF programs (agent/bpf) in an ordinary build.
#
#   bpf.sh           one line about what was found or done
#   bpf.sh --state   `on` if programs can be compiled here, else `off`: what AETHER_BPF is to be (never installs)
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

clang=${AETHER_CLANG:-clang}

# What counts is that a program that includes the headers can be compiled for the kernel's machine.
works() {
  command -v "$clang" >/dev/null &&
    printf '%s\n' \
      'typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned __u32; typedef unsigned long long __u64;
       typedef int __s32; typedef long long __s64; typedef __u16 __be16; typedef __u32 __be32; typedef __u32 __wsum;
       #include <bpf/bpf_helpers.h>
       #include <bpf/bpf_core_read.h>' |
    "$clang" -target bpf -O2 -x c -fsyntax-only - >/dev/null 2>&1
}

if [ "${1:-}" = --state ]; then
  if works; then echo on; else echo off; fi
  exit
fi

# One setup at a time: apt takes one.
exec 9>"$cache/bpf.lock"
flock 9

if ! works && [ -z "${AETHER_CLANG:-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  quietly "$cache/bpf.log" sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends clang libbpf-dev' || true
fi
if works; then
  ok bpf "$("$clang" --version | head -n 1)"
else
  missing bpf "install the packages clang and libbpf-dev (or set AETHER_CLANG to a clang that compiles for bpf)." \
    "the agent is built without its eBPF sources."
fi
