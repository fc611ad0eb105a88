#!/usr/bin/env python3
"""See bench/cluster.sh."""
import argparse
import contextlib
import json
import math
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
import netns  # noqa: E402
from cluster import BINARY, Cluster, ready, serve, stock, wait_until  # noqa: E402

# name: (stages, ms one way, Mbit/s, cut of the default model's 30 blocks, target of decode against llama.cpp's RPC servers)
SETUPS = {
    "2-lan": (2, 0.5, 100, "0:15,15:30", 3.0),
    "2-10ms": (2, 10, 100, "0:15,15:30", 2.3),
    "4-10ms": (4, 10, 100, "0:7,7:15,15:23,23:30", 2.3),
    "2-50ms": (2, 50, 100, "0:15,15:30", 2.3),
    "4-50ms": (4, 50, 100, "0:7,7:15,15:23,23:30", 2.3),
}
EXTRA = ("local", "activations")
FLOOR_TARGET = 1.05  # a decode step against compute + one-way delays, where these decide (4 stages, 50 ms)
FIRST_TOKEN_TARGET = 2.0
PLAN_TARGET = 0.25
PREFILL_TARGET = 1.1  # first token of 2,048 against the bound of compute, links and delays
DISTURBED_TARGET = 1.2  # a decode step while another session's 2,048 tokens cross the same links
SATURATION_TARGET = 0.9  # of what the machine computes when one process does it all, batched
LOCAL_TARGET = 0.95  # two stages on one machine against one process
ACTIVATIONS_TARGET = 1.9
CROWDS = (1, 4, 16, 64)
LONG = 2048
ROW_BYTES = 576 * 4  # of the default model's residual stream
RPC_SERVER = "/usr/libexec/x86_64-linux-gnu/llama/bin/ggml-rpc-server"


def random_prompt(rng, count):
    return [rng.randrange(100, 40000) for _ in range(count)]


def event_times(url, prompt, tokens):
    """When each event of a streamed completion came."""
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True, "cache_prompt": False}
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    times = []
    with urllib.request.urlopen(request, timeout=600) as answer:
        for line in answer:
            if line.startswith(b"data: {") and json.loads(line[6:]).get("choices"):
                times.append(time.monotonic())
    if len(times) < tokens // 2:
        sys.exit(f"{url}: {len(times)} events for {tokens} tokens")
    return times


def timed_stream(url, prompt, tokens):
    """(seconds to the first event, seconds from it to the last, events between) of a streamed completion."""
    begin = time.monotonic()
    times = event_times(url, prompt, tokens)
    return times[0] - begin, times[-1] - times[0], tokens - 1


def step_times(url, prompt, tokens, during=None):
    """Seconds between the events of a stream; with `during`, a callable that says (begin, end), only those within."""
    times = event_times(url, prompt, tokens)
    begin, end = during() if during else (0, float("inf"))
    return [b - a for a, b in zip(times, times[1:]) if begin <= a and b <= end]


def disturbed_steps(url, rng, seconds_of_prefill):
    """A session's steps while the 2,048-token prompt of another crosses the same route."""
    span = {}

    def prefill():
        with netns.inside("tgw"):
            time.sleep(1)
            span["begin"] = time.monotonic()
            timed_stream(url, random_prompt(rng, LONG), 2)
            span["end"] = time.monotonic()

    thread = threading.Thread(target=prefill)
    thread.start()

    def during():
        thread.join()
        return span["begin"], span["end"]

    return step_times(url, random_prompt(random.Random(5), 8), 24 + int(8 * seconds_of_prefill), during)


def decode_rate(url, rng, tokens):
    _, seconds, steps = timed_stream(url, random_prompt(rng, 8), tokens)
    return steps / seconds


def first_token_s(url, rng):
    return timed_stream(url, random_prompt(rng, 512), 2)[0]


def crowd_rate(url, seed, tokens, clients=16):
    """Tokens a second of all clients together, from the first request to the last answer."""

    def one(index):
        with netns.inside("tgw"):  # a thread begins in the process's namespace
            timed_stream(url, random_prompt(random.Random(seed * 100 + index), 8), tokens)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(clients)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return clients * tokens / (time.monotonic() - begin)


class RpcPeer:
    """llama.cpp: an RPC server of one thread in each site, llama-server in the gateway's."""

    def __init__(self, prefix, model_file, addresses, sites):
        self.processes = []
        inside = pathlib.Path(prefix[1]) / "models"
        inside.mkdir(exist_ok=True)
        target = inside / model_file.name
        if not target.exists():
            target.write_bytes(model_file.read_bytes())
        run = lambda site, *command: self.processes.append(
            subprocess.Popen(["ip", "netns", "exec", site, *prefix, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        for site in sites:
            run(site, RPC_SERVER, "-H", "0.0.0.0", "-p", 50052, "-t", 1)
        time.sleep(2)
        servers = ",".join(f"{addresses[site]}:50052" for site in sites)
        run("tgw", "llama-server", "-m", "/models/" + target.name, "--rpc", servers, "-ngl", 99, "-t", 1, "-np", 16, "-c", 16 * 1024,
            "--host", "127.0.0.1", "--port", 18099, "--no-webui")  # fmt: skip
        self.url = "http://127.0.0.1:18099"

    def wait(self):
        def up():
            with contextlib.suppress(OSError), urllib.request.urlopen(self.url + "/health", timeout=5) as answer:
                return answer.status == 200

        wait_until(up, "llama-server answers", 300)

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait()


def bench(model, threads, prompt, generate, sequences=1):
    """{test: tokens/s} of one process."""
    command = [BINARY, "bench", "--model", model, "--threads", threads, "--prompt", prompt, "--generate", generate, "--sequences", sequences,
               "--repeat", 1, "--json"]  # fmt: skip
    data = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)
    return {(r["test"], r["sequences"]): r["tokens_per_s"] for r in data["results"]}


def single_step_s(model, quick):
    """A decode step of one process with one thread: what the stages compute between them."""
    return 1 / bench(model, 1, 16, 32 if quick else 96)["decode", 1]


def measure_long_route(cluster, args, model_file, one_way_ms, mbit):
    """What only the longest route shows: many sessions in flight, a long prompt's chunks overlapped over stages and links, and what
    that does to others. Everything runs on this machine's cores: what one process computes with all of them is the bound."""
    rng = random.Random(3)
    samples = {key: [] for key in ("prefill", "steps", "disturbed", "bound_prefill", "bound_crowd", *(f"crowd_{n}" for n in CROWDS))}
    for repeat in range(args.repeats):
        alone = bench(model_file, os.cpu_count(), LONG, 16, CROWDS[-1])
        samples["bound_crowd"].append(alone["decode", CROWDS[-1]])
        # Each link carries all rows once, while the stages compute; and the delays: in, from hop to hop, and back.
        link_s = LONG * ROW_BYTES / (mbit * 1e6 / 8)
        samples["bound_prefill"].append(max(LONG / alone["prefill", 1], link_s) + 5 * one_way_ms / 1e3)
        samples["prefill"].append(timed_stream(cluster.url, random_prompt(rng, LONG), 2)[0])
        samples["steps"].append(statistics.median(step_times(cluster.url, random_prompt(rng, 8), 16)))
        samples["disturbed"].append(statistics.median(disturbed_steps(cluster.url, rng, samples["prefill"][-1])))
        for clients in CROWDS:
            samples[f"crowd_{clients}"].append(crowd_rate(cluster.url, repeat, 16 if args.quick else 32, clients))
    return samples


def sent_bytes(site):
    """That have left a namespace by its one link."""
    return int(subprocess.run(["ip", "netns", "exec", site, "cat", "/sys/class/net/wan0/statistics/tx_bytes"], check=True, capture_output=True, text=True).stdout)


def likeliest(url, text):
    """Of every token of a text the probabilities of the 20 likeliest: [{token: probability}]."""
    body = {"prompt": text, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 20}
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        choice = json.load(answer)["choices"][0]
    return [{token: math.exp(value) for token, value in top.items()} for top in choice["logprobs"]["top_logprobs"] if top]


def divergence(exact, other):
    """Mean KL in nats over the tokens that both lists name and one bucket for all others; never above the whole vocabulary's."""
    total = 0.0
    for p, q in zip(exact, other, strict=True):
        shared = [t for t in p if t in q]
        rest_p, rest_q = (max(1 - sum(d[t] for t in shared), 1e-6) for d in (p, q))
        total += sum(p[t] * math.log(p[t] / q[t]) for t in shared) + rest_p * math.log(rest_p / rest_q)
    return total / len(exact)


def measure_activations(args, store):
    """What --activations saves on a link, and what it costs: bytes that leave the first of two workers for a prompt of 2,048 tokens."""
    texts = ["\n".join(m["content"] for m in p["messages"]) for p in json.loads((ROOT / "tests/parity/smollm2/prompts.json").read_text()) if "messages" in p]
    sites, found = ["tw1", "tw2"], {}
    for encoding in ("lossless", "int8", "fp8"):
        with tempfile.TemporaryDirectory() as folder, netns.wide_area(["tgw", *sites], 0.5, 100, folder) as addresses, netns.inside("tgw"):
            cluster = Cluster(folder, args.model, "--activations", encoding, models=store, netns="tgw", advertise=addresses["tgw"])
            try:
                for site, blocks in zip(sites, ("0:15", "15:30")):
                    home = pathlib.Path(folder) / site
                    stock(home, store)
                    cluster.worker(blocks, "--memory", "1GiB", home=home, netns=site, listen=addresses[site] + ":0")
                cluster.wait_hosting(*cluster.workers.values(), seconds=300)
                wait_until(lambda: ready(cluster.url)[0] == 200, lambda: str(ready(cluster.url)))
                time.sleep(8)  # the links are measured in the background
                before = sent_bytes("tw1")
                timed_stream(cluster.url, random_prompt(random.Random(6), LONG), 2)
                found[encoding] = {"bytes": sent_bytes("tw1") - before, "likeliest": [likeliest(cluster.url, text) for text in texts if text]}
            finally:
                cluster.stop()
    rows = []
    for encoding in ("int8", "fp8"):
        ratio = found["lossless"]["bytes"] / found[encoding]["bytes"]
        pairs = list(zip(found["lossless"]["likeliest"], found[encoding]["likeliest"]))
        kl = divergence([d for a, _ in pairs for d in a], [d for _, b in pairs for d in b])
        rows.append({"row": f"activations {encoding}: bytes", "unit": "MB", "ours": found[encoding]["bytes"] / 1e6, "peer": None, "ratio": ratio,
                     "limit": found["lossless"]["bytes"] / 1e6, "target": ACTIVATIONS_TARGET, "met": ratio >= ACTIVATIONS_TARGET})  # fmt: skip
        rows.append({"row": f"activations {encoding}: KL", "unit": "nats", "ours": kl, "peer": None, "ratio": None, "limit": None, "target": None, "met": None})
    return {"setup": {"activations": True}, "samples": {}, "rows": rows}


def measure_local(args):
    """Two stages on this machine, same cores, against one process that holds the whole model."""
    model = args.local_model
    samples = {"one": [], "cut": []}
    rng = random.Random(4)
    with tempfile.TemporaryDirectory() as folder:
        store = pathlib.Path(folder) / "none"
        with serve(pathlib.Path(folder) / "single", model, store) as url:
            cluster = Cluster(folder, model, models=store)
            try:
                cluster.start(args.local_cut, "--memory", "4GiB")
                wait_until(lambda: ready(cluster.url)[0] == 200, lambda: str(ready(cluster.url)), 300)
                for where in (url, cluster.url):
                    decode_rate(where, rng, 4)
                for _ in range(args.repeats):
                    samples["one"].append(decode_rate(url, rng, 24 if args.quick else 64))
                    samples["cut"].append(decode_rate(cluster.url, rng, 24 if args.quick else 64))
            finally:
                cluster.stop()
    one, cut = statistics.median(samples["one"]), statistics.median(samples["cut"])
    row = {"row": "2 stages on one machine, 1B", "unit": "tokens/s", "ours": cut, "peer": None, "ratio": cut / one, "limit": one,
           "target": LOCAL_TARGET, "met": cut / one >= LOCAL_TARGET}  # fmt: skip
    return {"setup": {"stages": 2, "model": str(model), "cut": args.local_cut}, "samples": samples, "rows": [row]}


def measure_setup(name, args, model_file, store, peer_prefix):
    stages, one_way_ms, mbit, cut, target = SETUPS[name]
    sites = [f"tw{i + 1}" for i in range(stages)]
    samples = {key: [] for key in ("decode", "first", "crowd", "peer_decode", "peer_first", "peer_crowd", "compute")}
    tokens = 24 if args.quick else 64
    with tempfile.TemporaryDirectory() as folder, netns.wide_area(["tgw", *sites], one_way_ms, mbit, folder) as addresses, netns.inside("tgw"):
        cluster = Cluster(folder, args.model, models=store, netns="tgw", advertise=addresses["tgw"])
        peer = None
        try:
            for site, blocks in zip(sites, cut.split(",")):
                home = pathlib.Path(folder) / site
                stock(home, store)
                cluster.worker(blocks, "--memory", "1GiB", home=home, netns=site, listen=addresses[site] + ":0")
            if peer_prefix:
                peer = RpcPeer(peer_prefix, model_file, addresses, sites)
                peer.wait()
            cluster.wait_hosting(*cluster.workers.values(), seconds=300)
            wait_until(lambda: ready(cluster.url)[0] == 200, lambda: str(ready(cluster.url)))
            time.sleep(8)  # the links are measured in the background
            plan = next(m for m in cluster.get("/api/v1/cluster/plan")["models"] if m["model"] == args.model)
            rng = random.Random(1)
            decode_rate(cluster.url, rng, 4)
            for repeat in range(args.repeats):
                samples["compute"].append(single_step_s(model_file, args.quick))
                samples["decode"].append(decode_rate(cluster.url, rng, tokens))
                samples["first"].append(first_token_s(cluster.url, rng))
                samples["crowd"].append(crowd_rate(cluster.url, repeat, tokens // 2))
                if peer:
                    samples["peer_decode"].append(decode_rate(peer.url, rng, tokens // 2))
                    samples["peer_first"].append(first_token_s(peer.url, rng))
                    samples["peer_crowd"].append(crowd_rate(peer.url, repeat, tokens // 4))
            long_route = measure_long_route(cluster, args, model_file, one_way_ms, mbit) if name == "4-50ms" else {}
        finally:
            if peer:
                peer.stop()
            cluster.stop()
    samples |= long_route
    median = {key: statistics.median(values) if values else None for key, values in samples.items()}
    floor_s = median["compute"] + stages * one_way_ms / 1e3
    setup = {"stages": stages, "one_way_ms": one_way_ms, "mbit_per_s": mbit, "cut": cut}
    rows = []

    def row(what, unit, ours, peer=None, limit=None, better=None, target=None, met=None):
        ratio = None if peer is None else (ours / peer if better == "more" else peer / ours)
        if met is None and target is not None and ratio is not None:
            met = ratio >= target
        rows.append({"row": f"{name} {what}", "unit": unit, "ours": ours, "peer": peer, "ratio": ratio, "limit": limit, "target": target, "met": met})

    step_ms = 1e3 / median["decode"]
    row("decode, one session", "tokens/s", median["decode"], median["peer_decode"], 1 / floor_s, "more", target)
    row("decode step against its floor", "ms", step_ms, None, 1e3 * floor_s, target=FLOOR_TARGET if name == "4-50ms" else None,
        met=step_ms <= FLOOR_TARGET * 1e3 * floor_s if name == "4-50ms" else None)  # fmt: skip
    row("first token of 512", "s", median["first"], median["peer_first"], None, "less", FIRST_TOKEN_TARGET)
    row("decode, 16 clients", "tokens/s", median["crowd"], median["peer_crowd"], None, "more", target)
    for what, ours, predicted in (("plan: tokens/s", median["decode"], plan["tokens_per_s"]), ("plan: first token", median["first"], plan["ttft_s"])):
        row(what, "predicted / measured", predicted / ours, target=PLAN_TARGET, met=abs(predicted / ours - 1) <= PLAN_TARGET)
    if long_route:
        row("first token of 2,048", "s", median["prefill"], None, median["bound_prefill"], target=PREFILL_TARGET,
            met=median["prefill"] <= PREFILL_TARGET * median["bound_prefill"])  # fmt: skip
        row("decode step while 2,048 tokens cross", "ms", 1e3 * median["disturbed"], None, 1e3 * median["steps"], target=DISTURBED_TARGET,
            met=median["disturbed"] <= DISTURBED_TARGET * median["steps"])  # fmt: skip
        for clients in CROWDS:
            most = min(median["bound_crowd"], clients * median["decode"])
            last = clients == CROWDS[-1]
            row(f"decode, {clients} sessions", "tokens/s", median[f"crowd_{clients}"], None, most, target=SATURATION_TARGET if last else None,
                met=median[f"crowd_{clients}"] >= SATURATION_TARGET * most if last else None)  # fmt: skip
    return {"setup": setup, "samples": samples, "rows": rows}


def show(value):
    return "–" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def save(setup, model):
    """Into the results file, where what other runs found stays."""
    cpu = next((l.split(": ")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    out = ROOT / "bench/results/cluster.json"
    setups = {}
    with contextlib.suppress(OSError, ValueError, KeyError):
        setups = {s["name"]: s for s in json.loads(out.read_text())["setups"]}
    setups[setup["name"]] = setup | {"commit": commit, "command": "bench/cluster.sh " + " ".join(sys.argv[1:])}
    machine = {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release()}
    out.write_text(json.dumps({"machine": machine, "model": model, "setups": list(setups.values())}, indent=1) + "\n")
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--backend", default="llama.cpp", choices=["llama.cpp", "none", "all"])
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--local-model", type=pathlib.Path, help="of the row `local`: a file or folder, e.g. of tools/random_model.py")
    parser.add_argument("--local-cut", default="0:8,8:16")
    parser.add_argument("rows", nargs="*")
    args = parser.parse_args()
    if "local" in args.rows and not args.local_model:
        sys.exit("the row local needs --local-model")
    args.repeats = args.repeats or (2 if args.quick else 5)
    if unknown := [r for r in args.rows if r not in (*SETUPS, *EXTRA)]:
        sys.exit(f"unknown rows {' '.join(unknown)}; there are {' '.join([*SETUPS, *EXTRA])}")
    model_file = pathlib.Path(subprocess.run([BINARY, "pull", args.model], check=True, capture_output=True, text=True).stdout.strip())
    prefix = []
    if args.backend != "none":
        root = os.environ.get("TESSERA_PEER_ROOT")
        command = [ROOT / "bench/peers/llama_cpp.sh", *([root] if root else [])]
        prefix = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    print(f"{'row':38} {'unit':>20} {'tessera':>8} {'peer':>8} {'ratio':>6} {'floor':>8} {'target':>6} met")
    for name in args.rows or SETUPS:
        if name in EXTRA:
            setup = measure_local(args) if name == "local" else measure_activations(args, model_file.parents[1])
        else:
            setup = measure_setup(name, args, model_file, model_file.parents[1], prefix)
        out = save({"name": name, **setup}, args.model)
        for r in setup["rows"]:
            met = "–" if r["met"] is None else "yes" if r["met"] else "no"
            print(f"{r['row']:38} {r['unit']:>20} {show(r['ours']):>8} {show(r['peer']):>8} {show(r['ratio']):>6} {show(r['limit']):>8} {show(r['target']):>6} {met}", flush=True)
    print(f"wrote {out.relative_to(ROOT)}")


if __name__ == "__main__":
    try:
        main()
    except netns.Unavailable as error:
        sys.exit(str(error))
