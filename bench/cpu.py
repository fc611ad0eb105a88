#!/usr/bin/env python3
"""See bench/cpu.sh."""
import argparse
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TESSERA = ROOT / "build/release/tessera"
MODELS = pathlib.Path(os.environ.get("TESSERA_BENCH_MODELS", "/tmp/tessera-bench"))
ROWS = ["decode1", "prefill512", "batch16", "decode8k", "http1", "http16"]
# What to reach against llama.cpp in the same run: by weights ("default": the default model, 4-bit and small) and row. One sequence
# may instead reach NEAR of what the measured memory bandwidth allows.
TARGETS = {
    "default": {"decode1": 1.8, "prefill512": 4.5, "batch16": 3.5, "http16": 3.5},
    "1b:bf16": {"decode1": 1.05, "prefill512": 3, "batch16": 3, "decode8k": 1.5, "http16": 4},
    "1b:q8_0": {"decode1": 1.2, "prefill512": 5, "batch16": 5, "decode8k": 1.5, "http16": 6},
    "1b:q4_0": {"decode1": 1.15, "prefill512": 1.5, "batch16": 2, "decode8k": 1.5, "http16": 2.5},
    "1b:q4_k": {"decode1": 1.15, "prefill512": 1.8, "decode8k": 1.5},
    "135m:bf16": {"decode1": 1.2, "prefill512": 3, "batch16": 3, "http16": 4},
    "135m:q8_0": {"decode1": 1.5, "prefill512": 5, "batch16": 5, "http16": 6},
    "135m:q4_0": {"decode1": 1.8, "prefill512": 1.5, "batch16": 2, "http16": 2.5},
}
NEAR = {"decode1": 0.9, "decode8k": 0.85}
TRANSFORMERS_TARGETS = {"decode1": 2.3, "prefill512": 3.3, "batch16": 5}
CONTEXT = 8192  # of decode8k


def run(command, **kwargs):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True, **kwargs).stdout


def run_measured(command):
    """(standard output, peak resident MB of the process)"""
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process.stdout, process.stderr:
        drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    drain.wait()
    if process.returncode != 0:
        sys.exit(f"exit status {process.returncode}: {' '.join(map(str, command))}")
    return out, usage.ru_maxrss / 1024


class Engine:
    """Measures rows of one kind of program; `peak` is the most memory that it held, in MB."""

    def __init__(self, model, threads, quick):
        self.model, self.threads, self.quick, self.peak = model, threads, quick, 0.0
        self.generate = 32 if quick else 128

    def measured(self, command):
        out, peak = run_measured(command)
        self.peak = max(self.peak, peak)
        return out


class Tessera(Engine):
    name = "tessera"

    def bench(self, *flags):
        data = json.loads(run([TESSERA, "bench", "--model", self.model, "--threads", self.threads, "--repeat", 1, *flags, "--json"]))
        self.peak = max(self.peak, data["peak_memory_bytes"] / 2**20)  # without what measuring the limits takes
        return data

    def rows(self, wanted):
        rates, limits = {}, None
        near = [r for r in wanted if r in ("decode1", "prefill512", "batch16")]
        if near:
            counts = "1,16" if "batch16" in near else "1"
            data = self.bench("--prompt", 512, "--generate", self.generate, "--sequences", counts)
            limits = data["limits"]
            rate = {(r["test"], r["sequences"]): r["tokens_per_s"] for r in data["results"]}
            found = {"decode1": rate.get(("decode", 1)), "prefill512": rate.get(("prefill", 1)), "batch16": rate.get(("decode", 16))}
            rates |= {r: found[r] for r in near}
        if "decode8k" in wanted:
            data = self.bench("--prompt", 16, "--generate", 16, "--sequences", 1, "--depth", CONTEXT - 64, "--context", CONTEXT)
            rates["decode8k"] = next(r["tokens_per_s"] for r in data["results"] if r["test"] == "decode")
        return rates, limits

    def serve(self, port):
        return [TESSERA, "serve", "--model", self.model, "--threads", self.threads, "--port", port, "--log-level", "warn"]


class LlamaCpp(Engine):
    name = "llama.cpp"

    def __init__(self, model, threads, quick):
        super().__init__(model, threads, quick)
        root = os.environ.get("TESSERA_PEER_ROOT")
        self.prefix = run([ROOT / "bench/peers/llama_cpp.sh", *([root] if root else [])]).split()
        inside = pathlib.Path(self.prefix[1]) / "models"
        inside.mkdir(exist_ok=True)
        target = inside / pathlib.Path(model).name
        if not target.exists() or not target.samefile(model):
            target.unlink(missing_ok=True)
            try:
                os.link(model, target)
            except OSError:  # another file system
                target.write_bytes(pathlib.Path(model).read_bytes())
        self.model = "/models/" + target.name
        self.weights = pathlib.Path(model).stat().st_size

    def rows(self, wanted):
        rates = {}
        common = ["-m", self.model, "-t", self.threads, "-r", 1, "-o", "json"]
        if "decode1" in wanted or "prefill512" in wanted:
            rows = json.loads(self.measured([*self.prefix, "llama-bench", *common, "-p", 512, "-n", self.generate]))
            rates["prefill512"] = next(r["avg_ts"] for r in rows if r["n_prompt"] == 512)
            rates["decode1"] = next(r["avg_ts"] for r in rows if r["n_gen"] > 0)
        if "decode8k" in wanted:
            rows = json.loads(self.measured([*self.prefix, "llama-bench", *common, "-p", 0, "-n", 16, "-d", CONTEXT - 64]))
            rates["decode8k"] = rows[0]["avg_ts"]
        if "batch16" in wanted:
            out = self.measured([*self.prefix, "llama-batched-bench", "-m", self.model, "-t", self.threads, "-c", 16 * (16 + self.generate), "-npp", 16,
                                 "-ntg", self.generate, "-npl", 16, "--output-format", "jsonl"])
            rates["batch16"] = json.loads(next(l for l in out.splitlines() if l.startswith("{")))["speed_tg"]
        return {r: v for r, v in rates.items() if r in wanted}, None

    def serve(self, port):
        return [*self.prefix, "llama-server", "-m", self.model, "-t", self.threads, "--host", "127.0.0.1", "--port", port, "-np", 16, "-c", 16 * 512, "--no-webui"]


class Transformers(Engine):
    """Float checkpoints only; no HTTP server of its own."""

    name = "transformers"

    def rows(self, wanted):
        wanted = [r for r in wanted if r in ("decode1", "prefill512", "batch16")]
        out = self.measured([sys.executable, ROOT / "bench/peers/transformers_cpu.py", self.model, "--threads", self.threads, "--generate",
                             8 if self.quick else 32, *wanted])
        return json.loads(out), None

    serve = None


def wait_for(port, path, seconds=180):
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
        return 0.0


def http(engine, clients, quick, port):
    server = subprocess.Popen([str(c) for c in engine.serve(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, "/health")
        requests = clients if quick else 2 * clients
        out = run([TESSERA, "bench", "--url", f"http://127.0.0.1:{port}", "--clients", clients, "--requests", requests, "--input", 64,
                   "--output", 32 if quick else 96, "--json"])
        engine.peak = max(engine.peak, peak_memory_mb(server.pid))
        return json.loads(out)["output_tokens_per_s"]
    finally:
        server.terminate()
        server.wait()


def random_model(name):
    """random:SHAPE:TYPE → its file, made if it is not there."""
    spec = name.removeprefix("random:")
    path = MODELS / (spec.replace(":", "-") + ("" if spec.endswith(":safetensors") else ".gguf"))
    if not path.exists():
        MODELS.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        run([sys.executable, ROOT / "tools/random_model.py", spec, part])
        part.rename(path)
    return path


def peers_of(args, model, spec):
    peers = []
    if args.backend in ("llama.cpp", "all") and pathlib.Path(model).is_file():
        peers.append(LlamaCpp(model, args.threads, args.quick))
    if args.backend in ("transformers", "all"):
        try:
            run([sys.executable, "-c", "import torch, transformers"])
        except subprocess.CalledProcessError:
            print("transformers: skipped, torch and transformers are not installed here")
            return peers
        if spec and spec.endswith((":bf16", ":safetensors")):
            peers.append(Transformers(random_model("random:" + spec.split(":")[0] + ":safetensors"), args.threads, args.quick))
        else:
            print("transformers: skipped, it runs float checkpoints (--model random:1b:bf16)")
    return peers


def limits_of(limits, weights, shape):
    """Tokens a second that the machine allows, by row: reads of the weights for one sequence, multiply-adds for many."""
    if not limits:
        return {}
    median = lambda key: statistics.median(x[key] for x in limits)
    out = {"decode1": median("decode_1_tokens_per_s")}
    if shape:
        peak = median("int8_gop_per_s") if weights.startswith("q") else max(median("fma_gflop_per_s"), median("bf16_gflop_per_s"))
        out["prefill512"] = 1e9 * peak / (2 * shape["multiplied"])
        read = 1e9 * median("read_gb_per_s")
        out["batch16"] = 16 / (median("weight_bytes") / read + 16 * 2 * shape["all"] / (1e9 * peak))
        out["decode8k"] = read / (median("weight_bytes") + CONTEXT * shape["kv_bytes"])
    return out


SIZES = {  # values multiplied for a token of a prompt (no head) and for one that is sampled; f16 KV bytes a position
    "1b": {"multiplied": 973e6, "all": 1236e6, "kv_bytes": 16 * 2 * 512 * 2},
    "135m": {"multiplied": 106e6, "all": 134e6, "kv_bytes": 30 * 2 * 192 * 2},
}


def measure(args, name):
    spec = name.removeprefix("random:") if name.startswith("random:") else None
    model = random_model(name) if spec else name if pathlib.Path(name).exists() else run([TESSERA, "pull", name]).strip()
    engines = [Tessera(model, args.threads, args.quick), *peers_of(args, model, spec)]
    samples = {e.name: {row: [] for row in args.rows} for e in engines}
    limits = []
    repeats = args.repeats or (2 if args.quick else 5)
    for repeat in range(repeats):
        for engine in engines:
            rates, limit = engine.rows(args.rows)
            for row, rate in rates.items():
                samples[engine.name][row].append(rate)
            if limit:
                limits.append(limit)
            for row, clients in (("http1", 1), ("http16", 16)):
                if row in args.rows and engine.serve:
                    samples[engine.name][row].append(http(engine, clients, args.quick, 18090 + clients))
    shape, weights = (spec or "135m:q4_1").split(":") if spec or "135m" in name else (None, "")
    limit_of = limits_of(limits, weights, SIZES.get(shape))
    targets = TARGETS.get(spec or "default", {})
    show = lambda x, f: format(x, f) if x is not None else "–"
    print(f"\n{name}: tokens/s, medians of {repeats}, in turn\n{'row':12} {'peer':>12} {'tessera':>9} {'peer':>9} {'ratio':>6} {'target':>6} {'limit':>9} {'of limit':>8} met")
    rows = []
    for row in args.rows:
        ours = statistics.median(samples["tessera"][row])
        limit = limit_of.get(row)
        for peer in engines[1:] or [None]:
            if peer and not samples[peer.name][row]:
                continue
            theirs = statistics.median(samples[peer.name][row]) if peer else None
            ratio = ours / theirs if theirs else None
            target = (TRANSFORMERS_TARGETS if peer and peer.name == "transformers" else targets).get(row)
            met = None if ratio is None or target is None else ratio >= target or bool(limit and row in NEAR and ours >= NEAR[row] * limit)
            rows.append({"row": row, "unit": "tokens/s", "ours": ours, "peer_name": peer and peer.name, "peer": theirs, "ratio": ratio,
                         "target": target, "limit": limit, "of_limit": ours / limit if limit else None, "met": met,
                         "samples": {"tessera": samples["tessera"][row], **({peer.name: samples[peer.name][row]} if peer else {})}})
            print(f"{row:12} {peer.name if peer else '–':>12} {ours:9.1f} {show(theirs, '9.1f'):>9} {show(ratio, '6.2f'):>6} {show(target, '6.2f'):>6} "
                  f"{show(limit, '9.1f'):>9} {show(ours / limit if limit else None, '8.2f'):>8} {'–' if met is None else 'yes' if met else 'no'}")
    file_mb = (pathlib.Path(model).stat().st_size if pathlib.Path(model).is_file() else sum(f.stat().st_size for f in pathlib.Path(model).iterdir())) / 2**20
    print(f"peak memory, MB (file {file_mb:.0f}): " + ", ".join(f"{e.name} {e.peak:.0f}" for e in engines))
    return {"model": name, "file_mb": file_mb, "peak_memory_mb": {e.name: e.peak for e in engines}, "limits": limits[-1] if limits else None, "rows": rows}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--backend", default="llama.cpp", choices=["llama.cpp", "transformers", "all", "none"])
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("rows", nargs="*", default=[])
    args = parser.parse_args()
    args.rows = args.rows or ["decode1", "prefill512", "batch16", "http1", "http16"]
    if unknown := [r for r in args.rows if r not in ROWS]:
        sys.exit(f"unknown rows {' '.join(unknown)}; there are {' '.join(ROWS)}")
    cpu = next((l.split(": ")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "")
    machine = {"cpu": cpu, "threads": args.threads, "kernel": platform.release(), "backend": run([TESSERA, "--version"]).strip()}
    commit = run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT).strip()
    for name in args.model or ["smollm2:135m"]:
        result = {"machine": machine, "commit": commit, "command": "bench/cpu.sh " + " ".join(sys.argv[1:]), **measure(args, name)}
        label = pathlib.Path(name).stem if pathlib.Path(name).exists() else name
        out = ROOT / f"bench/results/cpu-{re.sub(r'[^A-Za-z0-9]+', '-', label).strip('-')}.json"
        out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
