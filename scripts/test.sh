#!/usr/bin/env bash
# Runs every test on a clean clone: installs what is missing, checks format and layers, then builds and tests
#   checked   AddressSanitizer, UBSan and coverage over the libraries without Beast
#   tsan      ThreadSanitizer over engine, cluster and what they stand on
#   fuzz      each fuzz target for a few seconds (TESSERA_FUZZ_SECONDS)
#   release   everything, with the API and end-to-end suites on the default model; its summary comes last
# scripts/test.sh PART… runs some of: style checked tsan fuzz release.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(style checked tsan fuzz release)
install_packages build
install_packages test

style() {
  python3 scripts/check_layers.py
  scripts/check_format.sh
}

checked() {
  scripts/build.sh checked
  find build/checked -name '*.gcda' -delete
  ctest --test-dir build/checked --output-on-failure -LE slow
  scripts/coverage.sh build/checked 85
}

tsan() {
  local tests=(base cluster kv engine worker tensor_thread_pool)
  scripts/build.sh tsan "${tests[@]/#/test_}"
  TSAN_OPTIONS=halt_on_error=1 ctest --test-dir build/tsan --output-on-failure -R "^($(IFS='|'; echo "${tests[*]}"))\$"
}

fuzz() {
  scripts/build.sh fuzz fuzzers
  scripts/fuzz.sh build/fuzz "${TESSERA_FUZZ_SECONDS:-5}"
}

release() {
  scripts/build.sh release
  build/release/tessera pull smollm2:135m >/dev/null
  ctest --test-dir build/release --output-on-failure
}

for part in "${parts[@]}"; do
  case $part in
    style | checked | tsan | fuzz | release) ;;
    *) echo "scripts/test.sh: no part '$part' (style checked tsan fuzz release)" >&2; exit 2 ;;
  esac
  echo "== $part"
  "$part"
done
