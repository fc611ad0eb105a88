#!/usr/bin/env bash
# llama_cpp.sh [FOLDER]: sets up llama.cpp as a bench peer from Debian sid's packages in a chroot (default
# ~/.cache/tessera/peers/sid), and prints the command prefix that runs its tools. Needs root (debootstrap, chroot).
set -euo pipefail
root=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/tessera/peers/sid}
command -v debootstrap >/dev/null || { echo "install debootstrap first (scripts/packages.sh, list bench)" >&2; exit 1; }
if [ ! -x "$root/usr/bin/llama-batched-bench" ] || ! ls "$root"/usr/lib/*/ggml/backends*/libggml-rpc.so >/dev/null 2>&1; then
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -oE 'https?://[^ ]*/debian/?( |$)' | head -n 1 || true)
  mkdir -p "$root"
  if [ ! -x "$root/usr/bin/apt-get" ]; then
    debootstrap --variant=minbase --no-check-gpg sid "$root" "${mirror:-http://deb.debian.org/debian}" >&2
  fi
  cp /etc/resolv.conf "$root/etc/" 2>/dev/null || true
  [ -d /etc/apt/apt.conf.d ] && cp -n /etc/apt/apt.conf.d/*proxy* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
  chroot "$root" apt-get -o Acquire::Check-Valid-Until=false update -qq >&2
  DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get -o Acquire::Check-Valid-Until=false install -y --no-install-recommends llama.cpp llama.cpp-tools llama.cpp-tools-extra libggml0-backend-rpc >&2
fi
echo "chroot $root"
