#!/usr/bin/env python3
"""stream.py URL [--ids FILE] [--after N --run COMMAND --mark TEXT]: streams a completion to stdout as it comes.

Writes its token ids to FILE and says, on stdout, how long the longest pause between two tokens was. Runs COMMAND, while the stream goes
on, when N tokens have come; TEXT in the answer shows where it was done. Exits 1 when the stream ends with an error.
"""
import argparse
import json
import subprocess
import sys
import threading
import time
import urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("--ids")
parser.add_argument("--after", type=int)
parser.add_argument("--run")
parser.add_argument("--mark", default="")
args = parser.parse_args()


def run(command, mark):
    if subprocess.run(command, shell=True).returncode == 0:
        print(f" {mark} ", end="", flush=True)


body = {"prompt": "Once upon a time", "max_tokens": 200, "temperature": 0, "stream": True, "return_token_ids": True, "ignore_eos": True}
request = urllib.request.Request(args.url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
ids, pauses, last = [], [], None
with urllib.request.urlopen(request, timeout=180) as answer:
    for line in answer:
        if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
            continue
        event = json.loads(line[6:])
        if "error" in event:
            sys.exit("\nerror: " + event["error"]["message"])
        for choice in event["choices"]:
            print(choice["text"], end="", flush=True)
            ids += choice["token_ids"]
        now = time.monotonic()
        if last is not None:
            pauses.append(now - last)
        last = now
        if args.run and len(ids) >= args.after:
            command, args.run = args.run, None
            threading.Thread(target=run, args=(command, args.mark)).start()
pauses.sort()
print(f"\n({len(ids)} tokens; between two of them {1000 * pauses[len(pauses) // 2]:.0f} ms, at most {1000 * pauses[-1]:.0f} ms)")
if args.ids:
    with open(args.ids, "w") as file:
        file.write(" ".join(map(str, ids)) + "\n")
