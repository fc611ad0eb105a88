#!/usr/bin/env bash
# What is too long for every change. nightly.sh [PART…], all parts without argument:
#   asan       AddressSanitizer and UBSan over everything, HTTP server and program included, with the API suite
#   fuzz       each fuzz target for ten minutes
#   sim        10,000 schedules of the simulated cluster; each failing seed is printed
#   soak       an hour of mixed load on one server: flat memory, no error, KV pages conserved
#   cluster    ten minutes of workers killed in turn under 16 streams, every stream token-exact; namespaces with 10 ms between them
#   engines    other engines behind a worker, llama.cpp's server among them (Debian sid in a chroot: debootstrap; needs root)
#   debian13   the two scripts in a Debian 13 chroot (debootstrap; needs root)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(asan fuzz sim soak cluster engines debian13)

asan() {
  install_packages build; install_packages test
  scripts/build.sh asan
  ctest --test-dir build/asan --output-on-failure
}

fuzz() {
  install_packages build; install_packages test
  scripts/build.sh fuzz fuzzers
  scripts/fuzz.sh build/fuzz 600
}

sim() {
  install_packages build
  scripts/build.sh release sim_cluster
  build/release/sim_cluster --seeds "${TESSERA_SIM_SEEDS:-0:10000}"
}

soak() {
  install_packages build
  scripts/build.sh release tessera
  build/release/tessera pull smollm2:135m >/dev/null
  python3 tests/soak.py --binary build/release/tessera --seconds "${TESSERA_SOAK_SECONDS:-3600}"
}

cluster() {
  install_packages build; install_packages test
  scripts/build.sh release tessera
  build/release/tessera pull smollm2:135m >/dev/null
  python3 tests/cluster_chaos.py --binary build/release/tessera --seconds "${TESSERA_CHAOS_SECONDS:-600}"
  tests/run_pytest.sh tests/e2e/test_netns.py -rs
}

engines() {
  install_packages build; install_packages test; install_packages bench
  bench/peers/llama_cpp.sh >/dev/null
  scripts/build.sh release tessera
  build/release/tessera pull smollm2:135m >/dev/null
  tests/run_pytest.sh tests/e2e/test_engines.py -rs
}

debian13() {
  install_packages bench
  local root=build/debian13
  [ -x "$root/usr/bin/apt-get" ] || debootstrap --variant=minbase trixie "$root" >&2
  rm -rf "$root/tessera" && git clone -q . "$root/tessera"
  mkdir -p "$root/proc" && mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
  chroot "$root" bash -c 'cd /tessera && scripts/quickstart.sh --exit && scripts/test.sh release'
}

for part in "${parts[@]}"; do
  case $part in
    asan | fuzz | sim | soak | cluster | engines | debian13) echo "== $part"; "$part" ;;
    *) echo "nightly.sh: no part '$part' (asan fuzz sim soak cluster engines debian13)" >&2; exit 2 ;;
  esac
done
