#!/usr/bin/env python3
"""A model of random weights in the shape of a known one, as a speed bench needs it: no download, any type.

  tools/random_model.py SHAPE:TYPE OUT     random_model.py 1b:q8_0 /tmp/random-1b-q8_0.gguf

SHAPE: 1b (Llama-3.2-1B), 135m (SmolLM2-135M), 70b (Llama-3-70B), small-70b (as many blocks, tiny ones). TYPE: bf16 q8_0 q4_0 q4_1 q4_k (GGUF;
the mixtures that llama-quantize makes: the tied embedding of the 4-bit types is Q6_K or Q8_0), safetensors (a folder, bf16), or hollow: a
folder whose safetensors file is as long as the real one but a hole on disk, for `tessera plan --model FOLDER --worker …`, which reads sizes. Weights are noise around zero, of the size of a
trained model's, never zeros: their speed is a real model's, their text is not. Standard library only; about 10 s and as
many bytes as the model has.
"""
import array
import json
import math
import pathlib
import random
import struct
import sys

SHAPES = {
    "1b": dict(hidden=2048, layers=16, heads=32, kv_heads=8, ffn=8192, vocab=128256, theta=500000.0, context=131072, eps=1e-5, llama3=True),
    "135m": dict(hidden=576, layers=30, heads=9, kv_heads=3, ffn=1536, vocab=49152, theta=100000.0, context=8192, eps=1e-5, llama3=False),
    "70b": dict(hidden=8192, layers=80, heads=64, kv_heads=8, ffn=28672, vocab=128256, theta=500000.0, context=8192, eps=1e-5, llama3=False, tied=False),
    "small-70b": dict(hidden=64, layers=80, heads=8, kv_heads=1, ffn=224, vocab=1024, theta=500000.0, context=8192, eps=1e-5, llama3=False, tied=False),
}
# name → (GGUF type number, values a block, bytes a block)
TYPES = {"f32": (0, 1, 4), "q4_0": (2, 32, 18), "q4_1": (3, 32, 20), "q8_0": (8, 32, 34), "q4_k": (12, 256, 144), "q6_k": (14, 256, 210), "bf16": (30, 1, 2)}
FILE_TYPES = {"bf16": 32, "q8_0": 7, "q4_0": 2, "q4_1": 3, "q4_k": 15}
CHUNK = 1 << 20  # values of the pool of a type; tensors are cut from it at random places


def half(x):
    return struct.pack("<e", x)


def bf16(values):
    """Little-endian bfloat16 of floats, cut off: noise needs no rounding."""
    wide = array.array("f", values).tobytes()
    out = bytearray(len(wide) // 2)
    out[0::2], out[1::2] = wide[2::4], wide[3::4]
    return bytes(out)


def block(kind, std, rng):
    """One block of random codes whose values have mean zero and about this deviation."""
    sign = rng.choice((-1, 1))
    if kind == "q8_0":
        return half(sign * std / 73.6) + bytes(rng.randrange(1, 256) ^ 0x80 for _ in range(32))
    if kind == "q4_0":
        return half(sign * std / 4.6) + rng.randbytes(16)
    if kind == "q4_1":
        d = sign * std / 4.6
        return half(d) + half(-7.5 * d) + rng.randbytes(16)
    if kind == "q4_k":  # scale and minimum codes are equal, so that dmin = 7.5 d centres every group
        d = sign * std / 4.6 / 48
        s = [rng.randrange(33, 64) for _ in range(8)]
        low = [s[i] & 63 | (s[i + 4] >> 4) << 6 for i in range(4)]
        high = [(s[i + 4] & 15) * 0x11 for i in range(4)]
        return half(d) + half(7.5 * d) + bytes(low + low + high) + rng.randbytes(128)
    if kind == "q6_k":
        scales = struct.pack("16b", *(rng.choice((-1, 1)) * rng.randrange(40, 90) for _ in range(16)))
        return rng.randbytes(192) + scales + half(sign * std / 18.5 / 65)
    raise ValueError(kind)


class Pool:
    """Noise of one type and deviation; take() gives any number of values of it."""

    def __init__(self, kind, std, rng):
        _, self.values, self.bytes = TYPES[kind]
        self.rng = rng
        if kind == "bf16":
            self.data = bf16(rng.gauss(0, std) for _ in range(CHUNK))
        else:
            self.data = b"".join(block(kind, std, rng) for _ in range(CHUNK // self.values))

    def write(self, out, count):
        left = count // self.values * self.bytes
        while left > 0:
            first = self.rng.randrange(len(self.data) // self.bytes) * self.bytes
            piece = self.data[first : first + left]
            out.write(piece)
            left -= len(piece)


def more_bits(layer, layers):
    """The blocks whose attn_v and ffn_down are Q6_K in the mixture called Q4_K_M."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def head_dim(shape):
    return shape["hidden"] // shape["heads"]


def tensors(shape, kind):
    """(GGUF name, checkpoint name, dimensions outermost first, type)"""
    h, ffn, kv = shape["hidden"], shape["ffn"], shape["kv_heads"] * head_dim(shape)
    if h % 256 != 0 and kind in ("q4_0", "q4_1"):
        head = "q8_0"
    else:
        head = {"bf16": "bf16", "q8_0": "q8_0"}.get(kind, "q6_k")
    yield "token_embd.weight", "model.embed_tokens.weight", (shape["vocab"], h), head
    for i in range(shape["layers"]):
        fine = "q6_k" if kind == "q4_k" and more_bits(i, shape["layers"]) else kind
        for ours, theirs, dims, t in (
            ("attn_norm", "input_layernorm", (h,), "f32"),
            ("attn_q", "self_attn.q_proj", (h, h), kind),
            ("attn_k", "self_attn.k_proj", (kv, h), kind),
            ("attn_v", "self_attn.v_proj", (kv, h), fine),
            ("attn_output", "self_attn.o_proj", (h, h), kind),
            ("ffn_norm", "post_attention_layernorm", (h,), "f32"),
            ("ffn_gate", "mlp.gate_proj", (ffn, h), kind),
            ("ffn_up", "mlp.up_proj", (ffn, h), kind),
            ("ffn_down", "mlp.down_proj", (h, ffn), fine),
        ):
            yield f"blk.{i}.{ours}.weight", f"model.layers.{i}.{theirs}.weight", dims, t
    yield "output_norm.weight", "model.norm.weight", (h,), "f32"
    if not shape.get("tied", True):
        yield "output.weight", "lm_head.weight", (shape["vocab"], h), head


def llama3_factors(theta, dim):
    factors = []
    for i in range(dim // 2):
        wavelength = 2 * math.pi * theta ** (2 * i / dim)
        smooth = min(1.0, max(0.0, (8192 / wavelength - 1) / 3))
        factors.append(1 / ((1 - smooth) / 32 + smooth))
    return factors


def vocabulary(size):
    """Byte-level BPE with next to no merges: every text has tokens, and every token a text."""
    visible = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b]
    of_byte = {b: chr(b) for b in visible}
    for b in range(256):
        of_byte.setdefault(b, chr(256 + len(of_byte) - len(visible)))
    tokens = [of_byte[b] for b in range(256)] + [f"w{i:x}" for i in range(size - 258)]
    return tokens + ["<|begin|>", "<|end|>"], [1] * (size - 2) + [3, 3]


TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"


def value(v):
    """(GGUF type number, bytes)"""
    text = lambda s: struct.pack("<Q", len(s.encode())) + s.encode()
    if isinstance(v, bool):
        return 7, struct.pack("<?", v)
    if isinstance(v, int):
        return 4, struct.pack("<I", v)
    if isinstance(v, float):
        return 6, struct.pack("<f", v)
    if isinstance(v, str):
        return 8, text(v)
    if all(isinstance(x, str) for x in v):
        return 9, struct.pack("<IQ", 8, len(v)) + b"".join(text(x) for x in v)
    return 9, struct.pack("<IQ", 5, len(v)) + struct.pack(f"<{len(v)}i", *v)


def write_gguf(shape, kind, path, rng, pools):
    tokens, token_types = vocabulary(shape["vocab"])
    meta = {
        "general.architecture": "llama", "general.name": f"random {path.stem}", "general.file_type": FILE_TYPES[kind], "general.alignment": 32,
        "llama.block_count": shape["layers"], "llama.context_length": shape["context"], "llama.embedding_length": shape["hidden"],
        "llama.feed_forward_length": shape["ffn"], "llama.attention.head_count": shape["heads"],
        "llama.attention.head_count_kv": shape["kv_heads"], "llama.attention.layer_norm_rms_epsilon": shape["eps"],
        "llama.rope.freq_base": shape["theta"], "llama.rope.dimension_count": head_dim(shape), "llama.vocab_size": shape["vocab"],
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": token_types, "tokenizer.ggml.merges": ["w 0", "w 1"],
        "tokenizer.ggml.bos_token_id": shape["vocab"] - 2, "tokenizer.ggml.eos_token_id": shape["vocab"] - 1,
        "tokenizer.ggml.add_bos_token": True, "tokenizer.chat_template": TEMPLATE,
    }
    entries = [(name, dims, t) for name, _, dims, t in tensors(shape, kind)]
    if shape["llama3"]:
        entries.append(("rope_freqs.weight", (head_dim(shape) // 2,), "f32"))
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(entries), len(meta))
    for key, v in meta.items():
        number, data = value(v)
        header += struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", number) + data
    offset = 0
    for name, dims, t in entries:
        number, per_block, size = TYPES[t]
        header += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", len(dims))
        header += struct.pack(f"<{len(dims)}Q", *reversed(dims)) + struct.pack("<IQ", number, offset)
        offset += (math.prod(dims) // per_block * size + 31) // 32 * 32
    with open(path, "wb") as out:
        out.write(header + bytes(-len(header) % 32))
        for name, dims, t in entries:
            if name == "rope_freqs.weight":
                out.write(struct.pack(f"<{dims[0]}f", *llama3_factors(shape["theta"], head_dim(shape))))
            elif t == "f32":
                out.write(struct.pack(f"<{dims[0]}f", *(rng.gauss(1, 0.1) for _ in range(dims[0]))))
            else:
                pools(t, 1 / math.sqrt(dims[1])).write(out, math.prod(dims))
            out.write(bytes(-out.tell() % 32))


def write_safetensors(shape, folder, rng, pools, hollow=False):
    folder.mkdir(parents=True, exist_ok=True)
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "vocab_size": shape["vocab"],
        "hidden_size": shape["hidden"], "intermediate_size": shape["ffn"], "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"], "num_key_value_heads": shape["kv_heads"], "head_dim": head_dim(shape),
        "max_position_embeddings": shape["context"], "rms_norm_eps": shape["eps"], "rope_theta": shape["theta"],
        "rope_scaling": scaling if shape["llama3"] else None, "tie_word_embeddings": shape.get("tied", True), "hidden_act": "silu", "attention_bias": False,
        "mlp_bias": False, "bos_token_id": shape["vocab"] - 2, "eos_token_id": shape["vocab"] - 1}, indent=1) + "\n")
    tokens, _ = vocabulary(shape["vocab"])
    special = [{"id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
               for i in (shape["vocab"] - 2, shape["vocab"] - 1)]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None, "pre_tokenizer": level,
        "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "vocab": {t: i for i, t in enumerate(tokens[:-2])}, "merges": []}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": tokens[-2],
                                                              "eos_token": tokens[-1], "chat_template": TEMPLATE}))
    header, offset, entries = {}, 0, []
    for _, name, dims, _ in tensors(shape, "bf16"):
        size = 2 * math.prod(dims)
        header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [offset, offset + size]}
        entries.append(dims)
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        if hollow:
            out.truncate(out.tell() + offset)
            return
        for dims in entries:
            if len(dims) == 1:
                out.write(bf16(rng.gauss(1, 0.1) for _ in range(dims[0])))
            else:
                pools("bf16", 1 / math.sqrt(dims[1])).write(out, math.prod(dims))


def main():
    if len(sys.argv) != 3 or ":" not in sys.argv[1]:
        sys.exit(__doc__)
    name, kind = sys.argv[1].split(":")
    if name not in SHAPES or kind not in (*FILE_TYPES, "safetensors", "hollow"):
        sys.exit(f"unknown model {sys.argv[1]}")
    shape, path, rng = SHAPES[name], pathlib.Path(sys.argv[2]), random.Random(1)
    if kind == "q4_k" and shape["hidden"] % 256 != 0:
        sys.exit(f"rows of {shape['hidden']} values have no K-quants")
    made = {}

    def pools(t, std):
        if (t, std) not in made:
            made[(t, std)] = Pool(t, std, rng)
        return made[(t, std)]

    if kind in ("safetensors", "hollow"):
        write_safetensors(shape, path, rng, pools, kind == "hollow")
    else:
        write_gguf(shape, kind, path, rng, pools)


if __name__ == "__main__":
    main()
