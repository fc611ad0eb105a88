#!/usr/bin/env bash
# cpu.sh [--quick] [--backend llama.cpp|none] [--model FILE_OR_NAME] [ROW…]: Tessera against llama.cpp on the same model file, in
# turn, medians, beside the limits of this machine measured in the same run. Rows: decode1 prefill512 http1 http16.
# Prints a table, writes bench/results/cpu-MODEL.json.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
install_packages build
scripts/build.sh release tessera
exec python3 bench/cpu.py "$@"
