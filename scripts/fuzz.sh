#!/usr/bin/env bash
# fuzz.sh BUILD SECONDS: runs every fuzz target of a build for so long, starting from tests/fuzz/TARGET where there is a corpus.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 seconds=$2
mapfile -t targets < <(find "$build/src" -maxdepth 2 -type f -name 'fuzz_*' -executable | sort)
[ ${#targets[@]} -gt 0 ] || { echo "no fuzz target in $build" >&2; exit 1; }
for target in "${targets[@]}"; do
  name=$(basename "$target")
  corpus=$build/corpus/$name
  mkdir -p "$corpus"
  seeds=()
  [ -d "tests/fuzz/$name" ] && seeds=("tests/fuzz/$name")
  echo "fuzz $name: $seconds s"
  log=$build/$name.log
  if ! "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$build/$name-" "$corpus" "${seeds[@]}" > "$log" 2>&1; then
    tail -n 40 "$log"
    exit 1
  fi
done
echo "fuzz: ${#targets[@]} targets without a finding"
