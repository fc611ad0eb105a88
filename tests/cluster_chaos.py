#!/usr/bin/env python3
"""Ten minutes of random SIGKILL on a cluster of three workers: each worker in turn, 1 to 5 s apart, a replacement joining each time, under
16 streams. Every stream must equal the single machine's, token by token, and nothing may be left behind.

  tests/cluster_chaos.py --binary build/release/tessera [--model smollm2:135m] [--seconds 600] [--streams 16] [--seed 1] [--stop 0.2]
"""
import argparse
import json
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error

sys.path.insert(0, str(pathlib.Path(__file__).parent / "e2e"))


LEASE_MS = 600


def requests(count, tokens):
    rng = random.Random(1)
    for i in range(count):
        prompt = [rng.randrange(100, 40000) for _ in range(rng.choice([3, 40, 200]))]
        sampling = {"temperature": 0} if i % 2 else {"temperature": 0.8, "seed": i, "n": 1 + i % 4 // 2}
        yield {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, **sampling}


def ids(choices):
    return {c["index"]: c["token_ids"] for c in choices}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default="build/release/tessera")
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--store", default=os.path.expanduser("~/.local/share/tessera/models"))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="writes the figures here")
    parser.add_argument("--stop", type=float, default=0.2, help="share of workers that are stopped (SIGSTOP) and not killed")
    args = parser.parse_args()
    os.environ["TESSERA_BINARY"] = str(pathlib.Path(args.binary).resolve())
    from cluster import Cluster, complete, serve, stream

    rng = random.Random(args.seed)
    wanted = {}
    with tempfile.TemporaryDirectory() as folder:
        with serve(pathlib.Path(folder) / "single", args.model, args.store) as url:
            bodies = list(requests(32, args.tokens))
            for i, body in enumerate(bodies):
                wanted[i] = ids(complete(url, body))
        cluster = Cluster(folder, args.model, "--lease", str(LEASE_MS), "--failover-timeout", "300", models=args.store)
        workers = cluster.start("0:8,8:19,19:30", "--memory", "400MiB")
        end = time.monotonic() + args.seconds
        problems, done, refused, gaps = [], [0] * args.streams, [0] * args.streams, []

        def work(index):
            local = random.Random(args.seed * 1000 + index)
            while time.monotonic() < end and not problems:
                which = local.randrange(len(bodies))
                last = [time.monotonic()]

                def hear(_):
                    now = time.monotonic()
                    gaps.append(now - last[0])
                    last[0] = now

                try:
                    got = {i: c["token_ids"] for i, c in stream(cluster.url, bodies[which], hear, 180).items()}
                    if got != wanted[which]:
                        problems.append(f"stream of request {which} differs: {got} for {wanted[which]}")
                    done[index] += 1
                except urllib.error.HTTPError as error:
                    if error.code != 503:  # no worker for a range at this moment: a new request may be refused, a stream may not
                        problems.append(f"status {error.code}: {error.read()[:300]}")
                    refused[index] += 1
                    time.sleep(0.3)
                except Exception as error:  # noqa: BLE001 - any failure is a finding
                    problems.append(f"request {which}: {error!r}")

        threads = [threading.Thread(target=work, args=(i,)) for i in range(args.streams)]
        for thread in threads:
            thread.start()
        kills, stopped, hop = 0, [], 0
        struck = {}  # worker → (signal, unix time in ms)
        while time.monotonic() < end and not problems:
            time.sleep(rng.uniform(1, 5))
            victim = workers[hop % 3]
            stop = rng.random() < args.stop
            struck[victim.name] = ("SIGSTOP" if stop else "SIGKILL", time.time() * 1000)
            if stop:
                victim.signal(signal.SIGSTOP)
                stopped.append((time.monotonic() + 3, victim))
            else:
                victim.kill()
                del cluster.workers[victim.name]
            workers[hop % 3] = cluster.worker(victim.blocks, "--memory", "400MiB")
            hop, kills = hop + 1, kills + 1
            try:  # a replacement serves before the next one dies: two dead at once is another test
                cluster.wait_hosting(workers[(hop - 1) % 3])
            except AssertionError as error:
                problems.append(f"a replacement did not come: {error}")
            for due, process in [s for s in stopped if s[0] < time.monotonic()]:
                stopped.remove((due, process))
                process.signal(signal.SIGCONT)
                time.sleep(0.3)  # it speaks of sessions that went on elsewhere
                process.kill()
                del cluster.workers[process.name]
        for thread in threads:
            thread.join()
        for _, process in stopped:
            process.signal(signal.SIGCONT)
            process.kill()
        failovers = cluster.view()["failovers"]
        counted = cluster.model()["sessions"]["failovers"]
        stalls = sorted(f["stall_ms"] for f in failovers)
        noticed = {}  # signal → from it to the moment that the gateway knew, for each worker, in ms
        for name, (how, at) in struck.items():
            times = [f["unix_ms"] - at for f in failovers if f["worker"] == name]
            if times:
                noticed.setdefault(how, []).append(min(times))
        noticed = {how: {"count": len(ms), "median": statistics.median(ms), "longest": max(ms)} for how, ms in noticed.items()}
        gaps.sort()
        print(
            f"{sum(done)} streams, all token-exact; {kills} workers lost, {counted} sessions went on elsewhere, {sum(refused)} new requests refused"
            f" meanwhile; stalls of the last {len(stalls)} failovers: median {stalls[len(stalls) // 2] if stalls else 0:.0f} ms, longest"
            f" {stalls[-1] if stalls else 0:.0f} ms; longest pause in any stream {gaps[-1]:.2f} s; noticed after (ms) {noticed}"
            if not problems
            else f"after {sum(done)} streams and {kills} lost workers:"
        )
        try:
            if not problems:
                cluster.assert_nothing_left()
        except AssertionError as error:
            problems.append(str(error))
        status = cluster.stop()
        if args.json and not problems and status == 0:
            commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
            result = {
                "commit": commit, "command": "tests/cluster_chaos.py " + " ".join(sys.argv[1:]), "streams_token_exact": sum(done),
                "workers_lost": kills, "failovers": counted, "requests_refused": sum(refused), "stalls_ms_of_last_failovers": stalls,
                "lease_ms": LEASE_MS, "noticed_ms": noticed,
                "longest_pause_s": gaps[-1],
            }
            pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
        if problems:
            print(cluster.gateway.log[-4000:], file=sys.stderr)
            sys.exit("problem: " + problems[0])
        if status != 0:
            sys.exit(f"the gateway ended with status {status}: {json.dumps(cluster.gateway.log[-2000:])}")


if __name__ == "__main__":
    main()
