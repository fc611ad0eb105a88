#!/usr/bin/env python3
"""See bench/engine.sh."""
import argparse
import asyncio
import json
import pathlib
import random
import re
import statistics
import subprocess
import sys
import time
import urllib.request

from cpu import random_model

ROOT = pathlib.Path(__file__).resolve().parent.parent
TESSERA = ROOT / "build/release/tessera"
ROWS = ["prefix_ttft", "agents", "start", "memory", "streams"]


class Server:
    def __init__(self, model, *flags):
        self.process = subprocess.Popen([str(TESSERA), "serve", "--model", model, "--port", "0", *flags], stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            match = re.search(r"listening on (http://\S+)", line)
            if match:
                self.url = match.group(1)
                break
        else:
            sys.exit("the server did not start")
        subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def first_token_s(self, ids):
        body = json.dumps({"prompt": ids, "max_tokens": 1, "temperature": 0}).encode()
        start = time.monotonic()
        with urllib.request.urlopen(urllib.request.Request(self.url + "/v1/completions", body, {"Content-Type": "application/json"}), timeout=300) as answer:
            answer.read()
        return time.monotonic() - start

    def resident_mb(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024


def ids(count, rng):
    return [rng.randrange(300, 40000) for _ in range(count)]


def prefix_ttft(_, quick):
    model = str(random_model("random:1b:q8_0"))
    rng = random.Random(1)
    cold, warm = [], []
    with Server(model) as server:
        for _ in range(3 if quick else 7):
            prefix = ids(928, rng)
            cold.append(server.first_token_s(prefix + ids(96, rng)))
            warm.append(server.first_token_s(prefix + ids(96, rng)))
    return {"unit": "× lower time to first token at 90 % prefix hits, 1B shape, 1,024 tokens", "ours": statistics.median(cold) / statistics.median(warm), "target": 8.0}


def load(url, *flags):
    out = subprocess.run([str(TESSERA), "bench", "--url", url, *map(str, flags), "--json"], check=True, capture_output=True, text=True).stdout
    return json.loads(out)


def agents(model, quick):
    trace = ROOT / "bench/traces/agents.jsonl"
    if quick:
        lines = [line for line in trace.read_text().splitlines() if json.loads(line)["client"] < 4][:12]
        trace = ROOT / "build/agents-quick.jsonl"
        trace.write_text("\n".join(lines) + "\n")
    rates = {}
    for name, flags in (("on", []), ("off", ["--no-prefix-cache"])):
        with Server(model, *flags) as server:
            report = load(server.url, "--trace", trace)
            rates[name] = (report["prompt_tokens"] + report["completion_tokens"]) / report["wall_s"]
    return {"unit": "× tokens/s on the agent trace, prefix cache on against off", "ours": rates["on"] / rates["off"], "target": 3.1}


def start(model, quick):
    samples = []
    for _ in range(3 if quick else 5):
        begin = time.monotonic()
        with Server(model) as server:
            server.first_token_s([1, 2, 3])
            samples.append(time.monotonic() - begin)
    return {"unit": "s from start to first token", "ours": statistics.median(samples), "target": 1.0}


def memory(model, quick):
    with Server(model, "--kv-memory", "128MiB") as server:
        load(server.url, "--clients", 8, "--requests", 16, "--input", 256, "--output", 16)
        over = server.resident_mb() - pathlib.Path(model).stat().st_size / 2**20 - 128
    return {"unit": "MB resident above weights + KV budget", "ours": over, "target": 100}


async def one_stream(host, port, index):
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
    body = json.dumps({"prompt": [300 + index % 1000, 7, 9], "max_tokens": 8, "stream": True, "temperature": 0, "ignore_eos": True, "return_token_ids": True}).encode()
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    data = (await reader.read(-1)).decode()
    writer.close()
    tokens = sum(len(json.loads(m)["choices"][0].get("token_ids") or []) for m in re.findall(r"data: (\{.*\})", data) if json.loads(m).get("choices"))
    return tokens if "data: [DONE]" in data else -1


def streams(model, quick):
    count = 200 if quick else 1000
    with Server(model) as server:
        host, port = server.url[len("http://") :].split(":")

        async def all_streams():
            return await asyncio.gather(*(one_stream(host, int(port), i) for i in range(count)))

        tokens = asyncio.run(all_streams())
    return {"unit": f"of {count} open streams that lost a token", "ours": sum(t != 8 for t in tokens), "target": 0}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("rows", nargs="*", default=ROWS)
    args = parser.parse_args()
    model = subprocess.run([str(TESSERA), "pull", args.model], check=True, capture_output=True, text=True).stdout.strip()
    rows = []
    for name in args.rows:
        row = {"row": name, **globals()[name](model, args.quick)}
        target = row["target"]
        row["met"] = None if target is None else (row["ours"] >= target if row["unit"].startswith("×") else row["ours"] <= target)
        rows.append(row)
        print(f"{name:12} {row['ours']:10.2f}  target {target if target is not None else '–'}  {row['unit']}", flush=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    result = {"commit": commit, "command": "bench/engine.sh " + " ".join(sys.argv[1:]), "rows": rows}
    (ROOT / "bench/results/engine.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
