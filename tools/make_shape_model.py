#!/usr/bin/env python3
"""make_shape_model.py FOLDER [--shape NAME | --config FILE] [--random SEED]: a Llama checkpoint of a given shape.

Without --random the weights are a hole in the file: as long as the real one and nothing on disk. `tessera plan --model FOLDER --worker …`
reads the sizes from it, for machines that are not there yet; nothing can be generated with it. With --random (small shapes) they are
random numbers: it generates, and every cut of it must generate the same."""
import argparse
import json
import pathlib
import random
import struct

SHAPES = {
    "llama-3-70b": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256},
    "llama-3-8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
    "small-70b": {"hidden_size": 64, "intermediate_size": 224, "num_hidden_layers": 80, "num_attention_heads": 8, "num_key_value_heads": 1, "vocab_size": 1000},
}  # fmt: skip
COMMON = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
          "max_position_embeddings": 8192, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}  # fmt: skip


def tensors(config):
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for block in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{block}."
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        for name, rows in (("q", hidden), ("k", kv), ("v", kv), ("o", hidden)):
            yield f"{prefix}self_attn.{name}_proj.weight", (rows, hidden)
        yield prefix + "mlp.gate_proj.weight", (inner, hidden)
        yield prefix + "mlp.up_proj.weight", (inner, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], hidden)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--shape", choices=SHAPES, default="llama-3-70b")
    parser.add_argument("--config", type=pathlib.Path, help="a Llama config.json of your own")
    parser.add_argument("--random", type=int, metavar="SEED")
    args = parser.parse_args()
    config = json.loads(args.config.read_text()) if args.config else {**COMMON, **SHAPES[args.shape]}
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    table, offset = {}, 0
    for name, shape in tensors(config):
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        table[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    with open(args.folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        if args.random is None:
            file.truncate(8 + len(header) + offset)
        else:
            rng = random.Random(args.random)
            for name, shape in tensors(config):
                # Norms at one; products that neither grow nor vanish over the blocks.
                spread = 0.6 / shape[1] ** 0.5 if len(shape) > 1 else 0
                values = (rng.gauss(0, spread) if spread else 1.0 for _ in range(shape[0] * (shape[1] if len(shape) > 1 else 1)))
                file.write(b"".join(struct.pack("<f", value)[2:] for value in values))
    print(f"{args.folder}: {offset / 1e9:.3g} GB of weights" + ("" if args.random is not None else " that are not there"))


if __name__ == "__main__":
    main()
