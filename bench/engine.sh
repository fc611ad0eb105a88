#!/usr/bin/env bash
# engine.sh [--quick] [ROW…]: what the engine promises beside its kernels, on the default model: prefix_ttft, agents, start, memory,
# streams. Prints a table, writes bench/results/engine.json.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
install_packages build
scripts/build.sh release tessera
exec python3 bench/engine.py "$@"
