#!/usr/bin/env python3
"""transformers_cpu.py FOLDER --threads N --generate N ROW…: tokens a second of Hugging Face Transformers on this CPU, bf16, as JSON.

Rows as bench/cpu.sh names them: prefill512, decode1, batch16.
"""
import argparse
import json
import time

import torch
import transformers


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--generate", type=int, default=32)
    parser.add_argument("rows", nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).eval()
    ids = torch.randint(0, model.config.vocab_size - 2, (16, 512), generator=torch.Generator().manual_seed(1))
    rates = {}

    def decode(count):
        """Greedy tokens of `count` sequences behind 16 of prompt, counted from the second."""
        out = model(ids[:count, :16], use_cache=True, logits_to_keep=1)
        start = None
        for step in range(args.generate + 1):
            if step == 1:
                start = time.monotonic()
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            out = model(token, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
        return count * args.generate / (time.monotonic() - start)

    with torch.inference_mode():
        model(ids[:1, :64], logits_to_keep=1)  # warm-up
        for row in args.rows:
            if row == "prefill512":
                start = time.monotonic()
                model(ids[:1], logits_to_keep=1)
                rates[row] = 512 / (time.monotonic() - start)
            else:
                rates[row] = decode(16 if row == "batch16" else 1)
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
