#!/usr/bin/env bash
# Fails when clang-format would change a file of src/, tests/ or bench/. `--fix` changes them.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=$(command -v clang-format-14 || command -v clang-format)
mapfile -t files < <(git ls-files 'src/*.h' 'src/*.cc' 'src/*.inc' ':!src/*_tables.inc' 'tests/*.h' 'tests/*.cc' 'bench/*.cc')
if [ "${1:-}" = --fix ]; then
  "$tool" -i "${files[@]}"
else
  "$tool" --dry-run --Werror "${files[@]}" && echo "format: ${#files[@]} files are as clang-format writes them"
fi
