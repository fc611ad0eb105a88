#!/usr/bin/env bash
# build.sh PRESET [TARGET…]: configures (once) and builds a preset of CMakePresets.json. Build noise goes to stderr.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:?usage: build.sh PRESET [TARGET…]}; shift
export CCACHE_NOHASHDIR=1 CCACHE_BASEDIR=$PWD  # hits across clones
[ -f "build/$preset/build.ninja" ] || cmake --preset "$preset" >&2
cmake --build "build/$preset" ${1:+--target "$@"} >&2
