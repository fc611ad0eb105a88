#!/usr/bin/env python3
"""See bench/cpu.sh."""
import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TESSERA = ROOT / "build/release/tessera"
ROWS = ["decode1", "prefill512", "http1", "http16"]
# What to reach against llama.cpp in the same run, for the default model (4-bit).
TARGETS = {"decode1": 1.8, "prefill512": 4.5, "http16": 3.5}


def run(command, **kwargs):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True, **kwargs).stdout


class Tessera:
    name = "tessera"

    def __init__(self, model, threads):
        self.model, self.threads = model, threads

    def bench(self, quick):
        out = run([TESSERA, "bench", "--model", self.model, "--threads", self.threads, "--prompt", 512, "--generate", 32 if quick else 128,
                   "--sequences", 1, "--repeat", 1, "--json"])
        data = json.loads(out)
        rate = {(r["test"], r["sequences"]): r["tokens_per_s"] for r in data["results"]}
        return {"decode1": rate[("decode", 1)], "prefill512": rate[("prefill", 1)]}, data["limits"]

    def serve(self, port):
        return [TESSERA, "serve", "--model", self.model, "--threads", self.threads, "--port", port, "--log-level", "warn"]


class LlamaCpp:
    name = "llama.cpp"

    def __init__(self, model, threads):
        self.prefix = run([ROOT / "bench/peers/llama_cpp.sh", *([os.environ["TESSERA_PEER_ROOT"]] if "TESSERA_PEER_ROOT" in os.environ else [])]).split()
        inside = pathlib.Path(self.prefix[1]) / "models"
        inside.mkdir(exist_ok=True)
        target = inside / pathlib.Path(model).name
        if not target.exists() or target.stat().st_size != pathlib.Path(model).stat().st_size:
            shutil.copyfile(model, target)
        self.model, self.threads = "/models/" + target.name, threads

    def bench(self, quick):
        out = run([*self.prefix, "llama-bench", "-m", self.model, "-t", self.threads, "-p", 512, "-n", 32 if quick else 128, "-r", 1, "-o", "json"])
        rows = json.loads(out)
        return {
            "prefill512": next(r["avg_ts"] for r in rows if r["n_prompt"] == 512),
            "decode1": next(r["avg_ts"] for r in rows if r["n_gen"] > 0),
        }, None

    def serve(self, port):
        return [*self.prefix, "llama-server", "-m", self.model, "-t", self.threads, "--host", "127.0.0.1", "--port", port, "-np", 16, "-c", 16 * 512, "--no-webui"]


def wait_for(port, path, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit(f"the server on port {port} did not start")


def peak_memory_mb(pid):
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", text).group(1)) / 1024
    except (OSError, AttributeError):
        return None


def http(engine, clients, quick, port):
    server = subprocess.Popen([str(c) for c in engine.serve(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, "/health")
        requests = clients if quick else 2 * clients
        out = run([TESSERA, "bench", "--url", f"http://127.0.0.1:{port}", "--clients", clients, "--requests", requests, "--input", 64,
                   "--output", 32 if quick else 96, "--json"])
        return json.loads(out)["output_tokens_per_s"], peak_memory_mb(server.pid)
    finally:
        server.terminate()
        server.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--backend", default="llama.cpp")
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("rows", nargs="*", default=ROWS)
    args = parser.parse_args()
    model = args.model if pathlib.Path(args.model).exists() else run([TESSERA, "pull", args.model]).strip()
    engines = [Tessera(model, args.threads)] + ([LlamaCpp(model, args.threads)] if args.backend in ("llama.cpp", "all") else [])
    samples = {e.name: {row: [] for row in ROWS} for e in engines}
    memory, limits = {}, []
    for repeat in range(2 if args.quick else 5):
        for engine in engines:
            if "decode1" in args.rows or "prefill512" in args.rows:
                rates, limit = engine.bench(args.quick)
                for row, value in rates.items():
                    samples[engine.name][row].append(value)
                if limit:
                    limits.append(limit)
            for row, clients in (("http1", 1), ("http16", 16)):
                if row in args.rows:
                    rate, peak = http(engine, clients, args.quick, 18090 + clients)
                    samples[engine.name][row].append(rate)
                    memory[engine.name] = max(memory.get(engine.name, 0), peak or 0)
    rows = []
    limit_of = {"decode1": statistics.median(x["decode_1_tokens_per_s"] for x in limits)} if limits else {}
    print(f"{'row':12} {'tessera':>10} {'llama.cpp':>10} {'ratio':>7} {'target':>7} {'limit':>10}   tokens/s, medians of {2 if args.quick else 5}, in turn")
    for row in args.rows:
        ours = statistics.median(samples["tessera"][row])
        peer = statistics.median(samples["llama.cpp"][row]) if len(engines) > 1 else None
        ratio, target, limit = ours / peer if peer else None, TARGETS.get(row), limit_of.get(row)
        rows.append({"row": row, "unit": "tokens/s", "ours": ours, "peer": peer, "limit": limit, "target": target,
                     "met": None if ratio is None or target is None else ratio >= target, "ratio": ratio, "samples": {n: s[row] for n, s in samples.items()}})
        show = lambda x, f: format(x, f) if x is not None else "–"
        print(f"{row:12} {ours:10.1f} {show(peer, '10.1f'):>10} {show(ratio, '7.2f'):>7} {show(target, '7.2f'):>7} {show(limit, '10.1f'):>10}")
    print("peak memory, MB: " + ", ".join(f"{n} {v:.0f}" for n, v in memory.items()))
    cpu = next((l.split(": ")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "")
    commit = run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT).strip()
    result = {"machine": {"cpu": cpu, "threads": args.threads, "kernel": platform.release(), "limits": limits[-1] if limits else None},
              "commit": commit, "command": "bench/cpu.sh " + " ".join(sys.argv[1:]), "peak_memory_mb": memory, "rows": rows}
    name = re.sub(r"[^A-Za-z0-9]+", "-", args.model if not pathlib.Path(args.model).exists() else pathlib.Path(args.model).stem).strip("-")
    out = ROOT / f"bench/results/cpu-{name}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
