#!/usr/bin/env python3
"""Mixed load on one server for a while: streams, cancels, choices, long and short prompts, bad requests. Fails on an unexpected error,
when resident memory grows, or when the KV pages do not add up at the end (invariant I6).

  tests/soak.py --binary build/release/tessera [--model smollm2:135m] [--seconds 3600] [--workers 8]
"""
import argparse
import json
import random
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request


def start(binary, model):
    server = subprocess.Popen([binary, "serve", "--model", model, "--port", "0", "--kv-memory", "256MiB"], stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        match = re.search(r"listening on (http://\S+)", line)
        if match:
            threading.Thread(target=lambda: [None for _ in server.stderr], daemon=True).start()
            return server, match.group(1)
    sys.exit("the server did not start")


def resident_mb(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


def post(url, body, read=None):
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return answer.read(read) if read else answer.read()


def one(url, rng):
    kind = rng.random()
    prompt = [rng.randrange(100, 40000) for _ in range(rng.choice([3, 40, 200, 700]))]
    if rng.random() < 0.5:
        prompt = list(range(500, 500 + 160)) + prompt  # a shared prefix
    body = {"prompt": prompt, "max_tokens": rng.choice([1, 8, 48]), "seed": rng.randrange(1000), "temperature": rng.choice([0, 0.8])}
    if kind < 0.55:
        answer = json.loads(post(url, body))
        assert answer["choices"][0]["finish_reason"] in ("stop", "length"), answer
    elif kind < 0.75:
        raw = post(url, {**body, "stream": True})
        assert raw.rstrip().endswith(b"data: [DONE]"), raw[-200:]
    elif kind < 0.85:
        post(url, {**body, "stream": True, "max_tokens": 64, "ignore_eos": True}, read=200)  # and hang up
    elif kind < 0.95:
        answer = json.loads(post(url, {**body, "n": 3, "logprobs": 2}))
        assert len(answer["choices"]) == 3
    else:
        try:
            post(url, {**body, "temperature": 99})
            raise AssertionError("a wrong temperature was accepted")
        except urllib.error.HTTPError as error:
            assert error.code == 400, error.code


def metrics(url):
    with urllib.request.urlopen(url + "/metrics", timeout=60) as answer:
        return answer.read().decode()


def kv(url):
    text = metrics(url)
    states = {m.group(1): float(m.group(2)) for m in re.finditer(r'^tessera_kv_blocks\{[^}]*state="(\w+)"[^}]*\} ([\d.e+]+)', text, re.M)}
    capacity = float(re.search(r"^tessera_kv_blocks_capacity(?:\{[^}]*\})? ([\d.e+]+)", text, re.M).group(1))
    return states, capacity


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--workers", type=int, default=8)
    args = parser.parse_args()
    server, url = start(args.binary, args.model)
    end = time.monotonic() + args.seconds
    problems, done = [], [0] * args.workers

    def work(index):
        rng = random.Random(index)
        while time.monotonic() < end and not problems:
            try:
                one(url, rng)
                done[index] += 1
            except Exception as error:  # noqa: BLE001 - any failure is a finding
                problems.append(repr(error))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(args.workers)]
    for thread in threads:
        thread.start()
    samples = []
    while any(t.is_alive() for t in threads):
        time.sleep(min(10, args.seconds / 20))
        samples.append(resident_mb(server.pid))
    for _ in range(100):
        states, capacity = kv(url)
        if states.get("used") == 0:
            break
        time.sleep(0.1)
    server.terminate()
    status = server.wait(timeout=120)
    half = len(samples) // 2
    growth = max(samples[half:]) - max(samples[: half or 1])
    print(f"{sum(done)} requests, resident {samples[0]:.0f} → {samples[-1]:.0f} MB (growth of the second half {growth:.1f}), kv {states} of {capacity:.0f}")
    if problems:
        sys.exit("problem: " + problems[0])
    if states.get("used") != 0 or sum(states.values()) != capacity:
        sys.exit("KV pages do not add up")
    if growth > 20:
        sys.exit("memory grows")
    if status != 0:
        sys.exit(f"the server ended with status {status}")


if __name__ == "__main__":
    main()
