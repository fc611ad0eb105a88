#!/usr/bin/env bash
# From a bare clone to an answer of a real model: installs what is missing, builds, fetches the default model, starts the
# server, asks it one question and keeps serving until Ctrl-C. With --exit it stops after the answer.
# The answer, the URL and the next commands go to stdout, everything else to stderr.
set -euo pipefail
cd "$(dirname "$0")/.."
model=smollm2:135m
port=${TESSERA_PORT:-8080}
once=no
for argument in "$@"; do
  case $argument in
    --exit) once=yes ;;
    *) echo "usage: scripts/quickstart.sh [--exit]" >&2; exit 2 ;;
  esac
done

. scripts/packages.sh
install_packages build
scripts/build.sh release tessera
tessera=build/release/tessera
"$tessera" pull "$model" >&2

log=$(mktemp)
server=
cleanup() { [ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; rm -f "$log"; true; }
trap cleanup EXIT
trap 'exit 130' INT TERM
[ "$once" = no ] || port=0
"$tessera" serve --model "$model" --port "$port" 2> >(tee "$log" >&2) &
server=$!
url=
for _ in $(seq 300); do
  url=$(sed -n 's/.*listening on \(http:[^ ]*\).*/\1/p' "$log" | head -n 1)
  [ -n "$url" ] && break
  kill -0 "$server" 2>/dev/null || { echo "the server did not start; its log is above" >&2; exit 1; }
  sleep 0.1
done
[ -n "$url" ] || { echo "the server did not say where it listens" >&2; exit 1; }

question="In one sentence: why is the sky blue?"
echo "Q: $question"
printf 'A: '
python3 scripts/ask.py "$url" "$question"
cat <<EOF

$url is an OpenAI-compatible endpoint (model "$model"). Next:
  curl $url/v1/models
  curl -N $url/v1/chat/completions -H 'Content-Type: application/json' -d '{"model":"$model","stream":true,"messages":[{"role":"user","content":"Hello"}]}'
  build/release/tessera chat --model $model
  build/release/tessera --help
EOF
[ "$once" = yes ] && exit 0
echo "serving until Ctrl-C …" >&2
wait "$server"
