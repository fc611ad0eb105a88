#!/usr/bin/env bash
# cpu.sh [--quick] [--backend llama.cpp|transformers|all|none] [--model FILE_OR_NAME]… [--threads N] [--repeats N] [ROW…]:
# Tessera against a peer on the same model file, in turn, medians, beside the limits of this machine measured in the same run.
# Rows: decode1 prefill512 batch16 http1 http16, and decode8k (one sequence behind 8,128 tokens) where it is asked for.
# --model random:SHAPE:TYPE makes a model of random weights (tools/random_model.py), say random:1b:q8_0.
# Prints a table, writes bench/results/cpu-MODEL.json. TESSERA_BENCH_BUILT=1: build/release is there already.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${TESSERA_BENCH_BUILT:-}" ]; then
  . scripts/packages.sh
  install_packages build
  scripts/build.sh release tessera
fi
exec python3 bench/cpu.py "$@"
