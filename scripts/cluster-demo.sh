#!/usr/bin/env bash
# A model over three workers loses one in the middle of an answer, and the answer goes on. On one machine, with the default model:
#   installs and builds what is missing, starts a gateway and three workers, each with room for a third of the model;
#   streams an answer; streams it again and kills a worker with SIGKILL in the middle of it, while a fourth stands by;
#   shows the cluster before and after, how long the stream stalled, and whether both answers are the same.
# --json FILE adds this run's failovers, one line, to a file of results.
# Status 0: the answer went on and equals the undisturbed one. The answers and tables go to stdout, everything else to stderr.
set -euo pipefail
cd "$(dirname "$0")/.."
json=
[ "${1:-}" != --json ] || { json=${2:?"usage: scripts/cluster-demo.sh [--json FILE]"}; shift 2; }
[ $# = 0 ] || { echo "usage: scripts/cluster-demo.sh [--json FILE]" >&2; exit 2; }
model=smollm2:135m
. scripts/packages.sh
install_packages build
scripts/build.sh release tessera
tessera=$PWD/build/release/tessera
"$tessera" pull "$model" >&2
store=${TESSERA_HOME:-$HOME/.local/share/tessera}/models

home=$(mktemp -d)
pids=()
cleanup() {
  trap - EXIT INT TERM
  { kill -9 "${pids[@]}" || true; wait || true; } 2>/dev/null
  rm -rf "$home"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start() {  # NAME VERB ARGUMENTS…: in the background, with a home of its own
  local name=$1; shift
  mkdir -p "$home/$name"
  TESSERA_HOME=$home/$name "$tessera" "$@" > "$home/$name/stdout" 2> "$home/$name/stderr" &
  pids+=($!)
}
die() { echo "$1; the last lines of the logs:" >&2; tail -n 5 "$home"/*/stderr >&2; exit 1; }
until_true() {  # SECONDS WHAT COMMAND…
  local limit=$((SECONDS + $1)) what=$2; shift 2
  until "$@"; do [ $SECONDS -lt $limit ] || die "$what"; sleep 0.2; done
}
ask_gateway() { TESSERA_HOME=$home/gateway "$tessera" "$@"; }

mkdir -p "$home/gateway/models"
for entry in "$store"/*; do ln -s "$entry" "$home/gateway/models/"; done
start gateway gateway --model "$model" --port 0 --control-port 0 --advertise 127.0.0.1 --lease 1000
until_true 60 "the gateway did not start" grep -q -- --join "$home/gateway/stdout"
join=$(sed 's/.*--join //' "$home/gateway/stdout")
url=$(sed -n 's/.*listening on \(http:[^ ]*\).*/\1/p' "$home/gateway/stderr" | head -n 1)
echo "gateway at $url; every worker runs: tessera worker --join tessera://…" >&2

declare -A pid_of
for name in anna bert carl; do
  start $name worker --join "$join" --name $name --memory 90MiB --threads 1 --listen 127.0.0.1:0
  pid_of[$name]=$!
done
ready() { python3 - "$url" <<'PY' 2>/dev/null
import sys, urllib.request
urllib.request.urlopen(sys.argv[1] + "/ready", timeout=20)
PY
}
until_true 180 "the cluster did not become ready" ready
spare() { ask_gateway status --json | grep -q '"name":"dora"'; }
start dora worker --join "$join" --name dora --memory 90MiB --threads 1 --listen 127.0.0.1:0
pid_of[dora]=$!
until_true 60 "the fourth worker did not join" spare
echo "— the cluster —"; ask_gateway status; echo; ask_gateway plan

echo; echo "— an answer, undisturbed —"
python3 scripts/stream.py "$url" --ids "$home/undisturbed"
# Kills the worker in the middle of the route: not the first, not the last. Heartbeats say who serves the stream.
cat > "$home/kill.sh" <<KILL
for _ in \$(seq 50); do
  name=\$(TESSERA_HOME=$home/gateway $tessera status --json | python3 -c '
import json, sys
for worker in json.load(sys.stdin)["workers"]:
    if any(0 < i["blocks"][0] and i["blocks"][1] < 30 and i["sessions"] > 0 for i in worker["instances"]):
        print(worker["name"])
        break')
  [ -n "\$name" ] && break
  sleep 0.05
done
case \$name in $(for name in "${!pid_of[@]}"; do printf '%s) pid=%s ;; ' "$name" "${pid_of[$name]}"; done) *) exit 1 ;; esac
echo "\$name" > $home/victim
kill -9 \$pid
KILL
echo; echo "— the same answer; the worker in the middle is killed with SIGKILL on the way —"
python3 scripts/stream.py "$url" --ids "$home/disturbed" --after 30 --run "bash $home/kill.sh" --mark "[SIGKILL]"
[ -s "$home/victim" ] || die "no worker was killed"
victim=$(cat "$home/victim")
echo; echo "— the cluster afterwards —"; ask_gateway status

if ! cmp -s "$home/undisturbed" "$home/disturbed"; then
  echo "the two answers differ" >&2
  exit 1
fi
ask_gateway status --json | grep -q '"worker":"'"$victim"'"' || die "the killed worker did not serve the answer"
echo; echo "$victim died in the middle of the sentence; the answer went on, and all $(wc -w < "$home/disturbed") tokens are the same."
[ -z "$json" ] || ask_gateway status --json | python3 -c '
import json, subprocess, sys
commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
failovers = [{"worker": f["worker"], "cause": f["cause"], "stall_ms": f["stall_ms"]} for f in json.load(sys.stdin)["failovers"]]
print(json.dumps({"commit": commit, "command": "scripts/cluster-demo.sh", "killed": sys.argv[1], "tokens_equal": int(sys.argv[2]), "failovers": failovers}))
' "$victim" "$(wc -w < "$home/disturbed")" >> "$json"
