#!/usr/bin/env python3
"""How far a serving path is from the exact one, on the same stored weights.

For each model and path it runs `tessera logits` twice on the same token ids, with --dtype float32 (exact) and as the path serves,
and prints KL(exact || path) a position, top-1 agreement where the exact margin is above 0.1 nat, and the change of perplexity.

  tools/parity_table.py --model smollm2:135m [--model tests/parity/models/llama …] [--path auto --path int8 …] [--json FILE]

Paths: auto (as stored), int8, int4 (--quantize), each optionally with an instruction set: auto/portable.
Token ids: the texts of tests/parity/smollm2 for models with that vocabulary, else input_ids of the folder's golden.safetensors,
else random ids. Needs numpy (tools/requirements.txt).
"""
import argparse
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent


def read_safetensors(path):
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        base = 8 + length
    types = {"F32": np.float32, "I64": np.int64, "I32": np.int32}
    out = {}
    for name, info in header.items():
        if name != "__metadata__" and info["dtype"] in types:
            begin, end = info["data_offsets"]
            out[name] = np.memmap(path, types[info["dtype"]], "r", base + begin, tuple(info["shape"]))
    return out


def smollm2_ids():
    cases = json.load(gzip.open(ROOT / "tests/parity/smollm2/reference.json.gz"))["cases"]
    return [c["prompt_tokens"] + [s["token"] for s in c.get("greedy", [])] for c in cases]


def token_ids(model):
    folder = pathlib.Path(model)
    golden = folder / "golden.safetensors" if folder.is_dir() else folder.with_suffix(".golden.safetensors")
    if golden.exists():
        tensors = read_safetensors(golden)
        return [np.concatenate([tensors["input_ids"].ravel(), tensors["greedy_tokens"].ravel()]).tolist()]
    return smollm2_ids()


def logits(tessera, model, ids, extra, folder):
    out = pathlib.Path(folder) / "logits.safetensors"
    text = "".join(json.dumps(p) + "\n" for p in ids)
    command = [tessera, "logits", "--model", model, "--out", str(out), *extra]
    subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.DEVNULL)
    return read_safetensors(out)


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def compare(ids, exact, path):
    kl, agree, counted, nll_exact, nll_path, positions = 0.0, 0, 0, 0.0, 0.0, 0
    for i, prompt in enumerate(ids):
        a, b = log_softmax(np.asarray(exact[str(i)])), log_softmax(np.asarray(path[str(i)]))
        kl += float((np.exp(a) * (a - b)).sum())
        positions += len(a)
        best = np.sort(a, -1)[:, -2:]
        clear = best[:, 1] - best[:, 0] > 0.1
        agree += int((a.argmax(-1) == b.argmax(-1))[clear].sum())
        counted += int(clear.sum())
        rows = np.arange(len(prompt) - 1)
        nll_exact -= float(a[rows, prompt[1:]].sum())
        nll_path -= float(b[rows, prompt[1:]].sum())
    tokens = sum(len(p) - 1 for p in ids)
    return {
        "positions": positions,
        "kl": kl / positions,
        "top1": agree / max(counted, 1),
        "perplexity_change": float(np.exp((nll_path - nll_exact) / tokens) - 1),
    }


def path_flags(path):
    weights, _, isa = path.partition("/")
    flags = ["--dtype", "auto"] if weights == "auto" else ["--dtype", "auto", "--quantize", weights]
    return flags + (["--isa", isa] if isa else [])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", default=str(ROOT / "build/release/tessera"))
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--path", action="append")
    parser.add_argument("--json")
    args = parser.parse_args()
    rows, failed = [], False
    print("| model | path | positions | KL (nats) | top-1, margin > 0.1 | perplexity |\n|---|---|---|---|---|---|")
    for model in args.model:
        ids = token_ids(model)
        with tempfile.TemporaryDirectory() as folder:
            exact = {k: np.array(v) for k, v in logits(args.tessera, model, ids, [], folder).items()}
        for path in args.path or ["auto"]:
            weights = path.partition("/")[0]
            with tempfile.TemporaryDirectory() as folder:
                if weights in ("int8", "int4"):  # the same stored weights: exact on what was quantised
                    exact_here = {k: np.array(v) for k, v in logits(args.tessera, model, ids, ["--quantize", weights], folder).items()}
                else:
                    exact_here = exact
                row = compare(ids, exact_here, logits(args.tessera, model, ids, path_flags(path), folder))
            name = pathlib.Path(model).name or model
            rows.append({"model": name, "path": path, **row})
            print(
                f"| {name} | {path} | {row['positions']} | {row['kl']:.5f} | {100 * row['top1']:.2f} % | "
                f"{100 * row['perplexity_change']:+.3f} % |",
                flush=True,
            )
            failed |= row["kl"] > 0.002 or row["top1"] < 0.98 or abs(row["perplexity_change"]) > 0.005
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
