#!/usr/bin/env bash
# coverage.sh BUILD MINIMUM: line coverage per folder of src/ after the tests of a coverage build ran; fails below MINIMUM %.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1 minimum=$2
out=$build/coverage.json
gcovr -r . --object-directory "$build" --gcov-executable "${GCOV:-gcov}" --exclude '.*_test\.cc' --exclude '.*fuzz_.*' \
  --exclude 'build/.*' --filter 'src/' --json-summary "$out" --gcov-ignore-parse-errors -j 2 >/dev/null
python3 - "$out" "$minimum" <<'PY'
import collections
import json
import sys

summary = json.load(open(sys.argv[1]))
folders = collections.defaultdict(lambda: [0, 0])
for file in summary["files"]:
    folder = file["filename"].split("/")[1]
    folders[folder][0] += file["line_covered"]
    folders[folder][1] += file["line_total"]
for folder, (covered, total) in sorted(folders.items()):
    print(f"coverage {folder:12} {100 * covered / max(total, 1):5.1f} %  ({covered}/{total} lines)")
covered = sum(c for c, _ in folders.values())
total = sum(t for _, t in folders.values())
percent = 100 * covered / max(total, 1)
print(f"coverage {'all':12} {percent:5.1f} %")
if percent < float(sys.argv[2]):
    sys.exit(f"line coverage is below {sys.argv[2]} %")
PY
