#!/usr/bin/env bash
# cluster.sh [--quick] [--backend llama.cpp|none] [--model NAME] [--repeats N] [ROW…]: a model cut over real processes with shaped links
# between them, beside the links' floor and llama.cpp's RPC servers on the same links, in turn. bench/cluster/README.md names the rows.
# Prints a table, writes bench/results/cluster.json. Needs root (namespaces). TESSERA_BENCH_BUILT=1: build/release is there already.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${TESSERA_BENCH_BUILT:-}" ]; then
  . scripts/packages.sh
  install_packages build
  install_packages bench
  scripts/build.sh release tessera
fi
exec python3 bench/cluster/cluster.py "$@"
