#!/usr/bin/env bash
# control.sh [--quick] [ROW…]: what the control plane promises: jobs that become durable a second on SQLite and on PostgreSQL, with the
# syncs that strace saw, and what a full table costs. Prints a table, writes bench/results/control.json.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
install_packages build
install_packages test
install_packages bench
scripts/build.sh release bench_jobs
exec python3 bench/control.py "$@"
