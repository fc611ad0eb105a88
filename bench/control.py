#!/usr/bin/env python3
"""See bench/control.sh."""
import argparse
import json
import os
import pathlib
import re
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BENCH = ROOT / "build/release/bench_jobs"
CLIENTS = 256


def run(database, seconds, rows, clients=CLIENTS, traced=False):
    """bench_jobs' answer; with the number of syncs of all its processes, PostgreSQL's too, where it is traced."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(BENCH), "postgres" if database == "postgres" else folder, str(seconds), str(clients), str(rows)]
        trace = pathlib.Path(folder) / "trace"
        if traced:
            command = ["strace", "-f", "-q", "-e", "trace=fsync,fdatasync", "-e", "signal=none", "-o", str(trace), *command]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        answer = json.loads(done.stdout)
        if traced:
            answer["syncs"] = len(re.findall(r"^\d+ +f(?:data)?sync\(.* = 0$", trace.read_text(), re.M))
        return answer


def rate(database, quick):
    samples = [run(database, 2 if quick else 5, 0)["jobs_per_s"] for _ in range(1 if quick else 3)]
    return {"unit": f"durable jobs/s, {database}, {CLIENTS} clients", "ours": sorted(samples)[len(samples) // 2], "target": 2000, "samples": samples}


def syncs(database, quick):
    """One client: each job waits for a commit of its own, so there is a sync for each at least."""
    alone = run(database, 2, 0, clients=1, traced=True)
    many = run(database, 2, 0, traced=True)
    return {
        "unit": f"syncs per acknowledged job of one client, {database}, by strace",
        "ours": alone["syncs"] / alone["jobs"],
        "target": 1,
        "alone": alone,
        "many_clients": many,
    }


def full(database, quick):
    rows = 20_000 if quick else 1_000_000
    answer = run(database, 2 if quick else 5, rows)
    return {
        "unit": f"× time of a job's way through the queue beside {rows:,} ended ones, {database}",
        "ours": answer["cycle_ms_full"] / answer["cycle_ms"],
        "target": 1.25,
        "lower": True,
        "run": answer,
    }


ROWS = {f"{name}_{database}": (function, database) for name, function in (("jobs", rate), ("syncs", syncs), ("full", full)) for database in ("sqlite", "postgres")}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    options = parser.parse_args()
    results = []
    for name in options.rows or ROWS:
        function, database = ROWS[name]
        row = {"row": name, **function(database, options.quick)}
        row["met"] = row["ours"] <= row["target"] if row.pop("lower", False) else row["ours"] >= row["target"]
        results.append(row)
        print(f"{name:16} {row['ours']:10.2f}  target {row['target']:g} {'met' if row['met'] else 'MISSED'}  {row['unit']}", flush=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    machine = f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the end"
    out = {"machine": machine, "commit": commit, "command": "bench/control.sh " + " ".join(options.rows), "rows": results}
    (ROOT / "bench/results/control.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
