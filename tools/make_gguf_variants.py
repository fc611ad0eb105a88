#!/usr/bin/env python3
"""GGUF files of every family and plain type, made from the tiny checkpoints of tests/parity/models, with reference logits.

  tools/make_gguf_variants.py OUT [--only qwen3moe-q5_1 …]
  TESSERA_GGUF_VARIANTS=OUT build/…/test_model_gguf_variants

Each NAME.gguf gets a NAME.golden.safetensors (input_ids, logits): a plain float64 forward pass in numpy over the file's own
dequantised weights. The pass is first held to the checkpoint's recorded reference, so that it stands on its own.
Needs the PyPI packages gguf and numpy (tools/requirements.txt).
"""
import argparse
import json
import math
import pathlib
import sys

import gguf
import numpy as np

MODELS = pathlib.Path(__file__).resolve().parent.parent / "tests/parity/models"
TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]
# GGUF architecture name → checkpoint, and what the format cannot say of it.
FAMILIES = {
    "llama": ("llama", {}),
    "llama-bias": ("llama-bias", {}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen2-yarn": ("qwen2-yarn", {}),
    "qwen3": ("qwen3", {}),
    "gemma2": ("gemma2", {"query_pre_attn_scalar": 32}),
    "gemma3": ("gemma3", {}),
    "phi3": ("phi3", {}),
    "phi3-longrope": ("phi3-longrope", {}),
    "mixtral": ("mixtral", {}),
    "qwen3moe": ("qwen3-moe", {}),
}
ARCHITECTURES = {"mistral": "llama", "mixtral": "llama", "qwen3_moe": "qwen3moe", "gemma3_text": "gemma3"}


def read_safetensors(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    out = {}
    for name, info in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in info["data_offsets"])
        raw = data[begin:end]
        if info["dtype"] == "BF16":
            values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, {"F32": np.float32, "F16": np.float16, "I64": np.int64}[info["dtype"]])
        out[name] = values.reshape(info["shape"])
    return out


def write_safetensors(path, tensors):
    header, blobs, offset = {}, [], 0
    for name, value in tensors.items():
        blob = np.ascontiguousarray(value).tobytes()
        dtype = {"float32": "F32", "int64": "I64"}[str(value.dtype)]
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


class Config:
    """config.json with the defaults that the checkpoints here rely on."""

    def __init__(self, values):
        self.values = values
        self.type = values["model_type"]
        self.layers, self.hidden = values["num_hidden_layers"], values["hidden_size"]
        self.heads, self.kv_heads = values["num_attention_heads"], values["num_key_value_heads"]
        self.head_dim = values.get("head_dim") or self.hidden // self.heads
        self.rope = dict(values.get("rope_parameters") or values.get("rope_scaling") or {})
        self.rope_type = self.rope.get("rope_type") or self.rope.get("type") or "default"
        self.theta = self.rope.get("rope_theta") or values["rope_theta"]
        self.rotary = int(self.head_dim * values.get("partial_rotary_factor", 1.0))
        self.gemma = self.type.startswith("gemma")

    def get(self, key, default=None):
        value = self.values.get(key)
        return default if value is None else value

    def window(self, layer):
        window = self.get("sliding_window", 0)
        if self.type.startswith("qwen") and not self.get("use_sliding_window"):
            return 0
        period = {"gemma2": 2, "gemma3_text": self.get("sliding_window_pattern", 6)}.get(self.type)
        return 0 if period and (layer + 1) % period == 0 else window

    def is_moe(self, layer):
        return self.type == "mixtral" or (self.type == "qwen3_moe" and layer not in self.get("mlp_only_layers", []))

    def llama3_factors(self):
        """What each inverse frequency is divided by."""
        r, inv = self.rope, self.theta ** (-np.arange(0, self.rotary, 2) / self.rotary)
        wavelength, old = 2 * math.pi / inv, r["original_max_position_embeddings"]
        smooth = (old / wavelength - r["low_freq_factor"]) / (r["high_freq_factor"] - r["low_freq_factor"])
        smooth = np.clip(smooth, 0, 1)
        return 1 / ((1 - smooth) / r["factor"] + smooth)

    def frequencies(self, layer, length):
        """(inverse frequencies, factor on cosine and sine)"""
        if self.type == "gemma3_text" and self.window(layer):
            return self.get("rope_local_base_freq", 1e4) ** (-np.arange(0, self.rotary, 2) / self.rotary), 1.0
        r, inv = self.rope, self.theta ** (-np.arange(0, self.rotary, 2) / self.rotary)
        if self.rope_type == "linear":
            return inv / r["factor"], 1.0
        if self.rope_type == "llama3":
            return inv / self.llama3_factors(), 1.0
        if self.rope_type == "longrope":
            old, most = self.values["original_max_position_embeddings"], self.values["max_position_embeddings"]
            factors = r["long_factor" if length > old else "short_factor"]
            return inv / np.array(factors), math.sqrt(1 + math.log(most / old) / math.log(old))
        if self.rope_type == "yarn":
            at = lambda turns: self.rotary * math.log(r["original_max_position_embeddings"] / (turns * 2 * math.pi)) / (2 * math.log(self.theta))
            low, high = max(math.floor(at(32)), 0), min(math.ceil(at(1)), self.rotary - 1)
            ramp = np.clip((np.arange(self.rotary // 2) - low) / max(high - low, 0.001), 0, 1)
            return inv / r["factor"] * ramp + inv * (1 - ramp), 0.1 * math.log(r["factor"]) + 1
        return inv, 1.0


def rms(x, weight, config):
    y = x / np.sqrt((x * x).mean(-1, keepdims=True) + config.values["rms_norm_eps"])
    return y * (1 + weight if config.gemma else weight)


def activate(x, config):
    if config.gemma:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / (1 + np.exp(-x))


def rotate(x, angles, factor):
    """x [tokens, heads, head_dim]"""
    half = angles.shape[1]
    cos, sin = np.cos(angles)[:, None] * factor, np.sin(angles)[:, None] * factor
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], -1)


def attention(x, layer, w, config):
    tokens, hd = len(x), config.head_dim
    q, k, v = (x @ w(f"self_attn.{n}_proj.weight").T + w(f"self_attn.{n}_proj.bias", 0) for n in "qkv")
    q, k, v = (a.reshape(tokens, -1, hd) for a in (q, k, v))
    if w("self_attn.q_norm.weight", None) is not None:
        q, k = rms(q, w("self_attn.q_norm.weight"), config), rms(k, w("self_attn.k_norm.weight"), config)
    inv, factor = config.frequencies(layer, tokens)
    angles = np.arange(tokens)[:, None] * inv
    q, k = rotate(q, angles, factor), rotate(k, angles, factor)
    k, v = (np.repeat(a, config.heads // config.kv_heads, 1) for a in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) * config.get("query_pre_attn_scalar", hd) ** -0.5
    cap = config.get("attn_logit_softcapping")
    if cap:
        scores = cap * np.tanh(scores / cap)
    distance = np.arange(tokens)[:, None] - np.arange(tokens)
    hidden = (distance < 0) | (distance >= (config.window(layer) or tokens))
    scores = np.where(hidden, -np.inf, scores)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    out = np.einsum("hqk,khd->qhd", p, v).reshape(tokens, -1)
    return out @ w("self_attn.o_proj.weight").T + w("self_attn.o_proj.bias", 0)


def mlp(x, layer, w, config):
    if not config.is_moe(layer):
        gate, up = (x @ w(f"mlp.{n}_proj.weight").T + w(f"mlp.{n}_proj.bias", 0) for n in ("gate", "up"))
        return (activate(gate, config) * up) @ w("mlp.down_proj.weight").T + w("mlp.down_proj.bias", 0)
    logits = x @ w("mlp.gate.weight").T
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    out = np.zeros_like(x)
    for t in range(len(x)):
        best = np.argsort(-p[t], kind="stable")[: config.values["num_experts_per_tok"]]
        share = p[t, best] / (p[t, best].sum() if config.get("norm_topk_prob", True) else 1)
        for e, s in zip(best, share):
            gate, up, down = (w(f"mlp.experts.{e}.{n}_proj.weight") for n in ("gate", "up", "down"))
            out[t] += s * (down @ (activate(gate @ x[t], config) * (up @ x[t])))
    return out


def forward(config, tensors, tokens):
    t = {name: value.astype(np.float64) for name, value in tensors.items()}
    x = t["embed"][tokens] * (math.sqrt(config.hidden) if config.gemma else 1)
    for layer in range(config.layers):
        def w(name, *default):
            return t.get(f"{layer}.{name}", *default) if default else t[f"{layer}.{name}"]

        a = attention(rms(x, w("attention_norm"), config), layer, w, config)
        x = x + (rms(a, w("post_attention_norm"), config) if config.gemma else a)
        m = mlp(rms(x, w("mlp_norm"), config), layer, w, config)
        x = x + (rms(m, w("post_mlp_norm"), config) if config.gemma else m)
    logits = rms(x, t["norm"], config) @ t.get("head", t["embed"]).T
    cap = config.get("final_logit_softcapping")
    return cap * np.tanh(logits / cap) if cap else logits


def load(folder, config):
    """Every tensor in float32 under one set of names, fused ones taken apart."""
    stored = {}
    for path in sorted(folder.glob("model*.safetensors")):
        stored.update(read_safetensors(path))
    norms = {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"}
    if config.gemma:
        norms |= {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "mlp_norm",
                  "post_feedforward_layernorm": "post_mlp_norm"}
    experts = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
    out = {}
    for name, value in stored.items():
        value = value.astype(np.float32)
        name = name.removeprefix("model.")
        top = {"embed_tokens.weight": "embed", "norm.weight": "norm", "lm_head.weight": "head"}.get(name)
        if top:
            out[top] = value
            continue
        layer, part = name.removeprefix("layers.").split(".", 1)
        if part.removesuffix(".weight") in norms:
            out[f"{layer}.{norms[part.removesuffix('.weight')]}"] = value
        elif "qkv_proj" in part:
            cuts = np.cumsum([config.heads * config.head_dim, config.kv_heads * config.head_dim])
            for n, piece in zip("qkv", np.split(value, cuts)):
                out[f"{layer}.self_attn.{n}_proj.weight"] = piece
        elif "gate_up_proj" in part:
            out[f"{layer}.mlp.gate_proj.weight"], out[f"{layer}.mlp.up_proj.weight"] = np.split(value, 2)
        else:
            part = part.replace("block_sparse_moe", "mlp")
            for old, new in experts.items():
                part = part.replace(f".{old}.", f".{new}.")
            out[f"{layer}.{part}"] = value
    return out


class Writer:
    def __init__(self, path, config, qtype):
        self.config, self.qtype = config, gguf.GGMLQuantizationType[qtype]
        self.arch = ARCHITECTURES.get(config.type, config.type)
        self.out = gguf.GGUFWriter(str(path), self.arch)
        self.kept = {}  # what the file's values mean, by our names

    def pairs(self, value):
        """The order in which architecture llama stores the rows of q and k."""
        if self.arch != "llama":
            return value
        hd = self.config.head_dim
        return value.reshape(-1, 2, hd // 2, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)

    def add(self, gguf_name, names, values, arrange=lambda v: v):
        """Writes arrange(values joined); keeps the dequantised values under `names` as they were."""
        stacked = values[0].ndim == 2 and gguf_name.endswith("_exps.weight")
        coded = []
        for name, value in zip(names, values):
            small = value.ndim < 2 or gguf_name.endswith("gate_inp.weight")
            qtype = gguf.GGMLQuantizationType.F32 if small else self.qtype
            coded.append(gguf.quants.quantize(arrange(value).astype(np.float32), qtype))
            back = gguf.quants.dequantize(gguf.quants.quantize(value.astype(np.float32), qtype), qtype)
            self.kept[name] = back.reshape(value.shape)
        data = np.stack(coded) if stacked else np.concatenate(coded)
        self.out.add_tensor(gguf_name, data, raw_dtype=qtype)

    def norm(self, gguf_name, name, value):
        one = np.float32(1 if self.config.gemma else 0)
        self.out.add_tensor(gguf_name, value + one)
        self.kept[name] = value

    def metadata(self):
        c, a, out = self.config, self.arch, self.out
        out.add_block_count(c.layers)
        out.add_context_length(c.values["max_position_embeddings"])
        out.add_embedding_length(c.hidden)
        out.add_feed_forward_length(c.values["intermediate_size"])
        out.add_head_count(c.heads)
        out.add_head_count_kv(c.kv_heads)
        out.add_key_length(c.head_dim)
        out.add_value_length(c.head_dim)
        out.add_layer_norm_rms_eps(c.values["rms_norm_eps"])
        out.add_rope_freq_base(c.theta)
        out.add_rope_dimension_count(c.rotary)
        if c.rope_type in ("linear", "yarn"):
            out.add_rope_scaling_type(gguf.RopeScalingType(c.rope_type))
            out.add_rope_scaling_factor(c.rope["factor"])
        original = c.rope.get("original_max_position_embeddings") or c.get("original_max_position_embeddings")
        if c.rope_type in ("yarn", "longrope"):
            out.add_rope_scaling_orig_ctx_len(original)
        if c.rope_type == "llama3":
            out.add_tensor("rope_freqs.weight", c.llama3_factors().astype(np.float32))
        if c.rope_type == "longrope":
            out.add_rope_scaling_attn_factors(c.frequencies(0, 0)[1])
            for kind in ("long", "short"):
                out.add_tensor(f"rope_factors_{kind}.weight", np.array(c.rope[f"{kind}_factor"], np.float32))
        if c.window(0) and a != "llama":
            out.add_sliding_window(c.window(0))
        if a == "gemma2":
            out.add_attn_logit_softcapping(c.values["attn_logit_softcapping"])
            out.add_final_logit_softcapping(c.values["final_logit_softcapping"])
        if a == "gemma3":
            out.add_uint32("gemma3.attention.sliding_window_pattern", c.values["sliding_window_pattern"])
        experts = c.get("num_local_experts") or c.get("num_experts")
        if experts:
            out.add_expert_count(experts)
            out.add_expert_used_count(c.values["num_experts_per_tok"])
            out.add_expert_feed_forward_length(c.get("moe_intermediate_size", c.values["intermediate_size"]))

    def block(self, layer, t):
        c, old, new = self.config, lambda n: f"{layer}.{n}", lambda n: f"blk.{layer}.{n}"
        self.norm(new("attn_norm.weight"), old("attention_norm"), t[old("attention_norm")])
        self.norm(new("ffn_norm.weight"), old("mlp_norm"), t[old("mlp_norm")])
        if c.gemma:
            self.norm(new("post_attention_norm.weight"), old("post_attention_norm"), t[old("post_attention_norm")])
            self.norm(new("post_ffw_norm.weight"), old("post_mlp_norm"), t[old("post_mlp_norm")])
        for n in "qk":
            if old(f"self_attn.{n}_norm.weight") in t:
                name = old(f"self_attn.{n}_norm.weight")
                self.norm(new(f"attn_{n}_norm.weight"), name, t[name])
        parts = [(new(f"attn_{n}"), [old(f"self_attn.{n}_proj")]) for n in "qkv"]
        if c.type == "phi3":
            parts = [(new("attn_qkv"), [old(f"self_attn.{n}_proj") for n in "qkv"])]
        parts.append((new("attn_output"), [old("self_attn.o_proj")]))
        if c.is_moe(layer):
            parts.append((new("ffn_gate_inp"), [old("mlp.gate")]))
            count = t[old("mlp.gate.weight")].shape[0]
            parts += [(new(f"ffn_{n}_exps"), [old(f"mlp.experts.{e}.{n}_proj") for e in range(count)])
                      for n in ("gate", "up", "down")]
        elif c.type == "phi3":
            parts += [(new("ffn_up"), [old("mlp.gate_proj"), old("mlp.up_proj")]), (new("ffn_down"), [old("mlp.down_proj")])]
        else:
            parts += [(new(f"ffn_{n}"), [old(f"mlp.{n}_proj")]) for n in ("gate", "up", "down")]
        for gguf_name, names in parts:
            arrange = self.pairs if gguf_name.endswith(("attn_q", "attn_k")) else lambda v: v
            for suffix in (".weight", ".bias"):
                if names[0] + suffix in t:
                    full = [n + suffix for n in names]
                    self.add(gguf_name + suffix, full, [t[n] for n in full], arrange)

    def write(self, t):
        self.metadata()
        self.add("token_embd.weight", ["embed"], [t["embed"]])
        if "head" in t:
            self.add("output.weight", ["head"], [t["head"]])
        self.norm("output_norm.weight", "norm", t["norm"])
        for layer in range(self.config.layers):
            self.block(layer, t)
        self.out.write_header_to_file()
        self.out.write_kv_data_to_file()
        self.out.write_tensors_to_file()
        self.out.close()
        return self.kept


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--only", nargs="+", help="FAMILY-type names, like qwen3moe-q5_1")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    bad = 0
    for family, (folder, changes) in FAMILIES.items():
        wanted = [q for q in TYPES if not options.only or f"{family}-{q.lower()}" in options.only]
        if not wanted:
            continue
        values = json.loads((MODELS / folder / "config.json").read_text())
        golden = read_safetensors(MODELS / folder / "golden.safetensors")
        tensors = load(MODELS / folder, Config(values))
        error = np.abs(forward(Config(values), tensors, golden["input_ids"]) - golden["logits"]).max()
        print(f"{family}: this script against the recorded reference: {error:.1e}")
        bad += error > 1e-4
        config = Config(values | changes)
        for qtype in wanted:
            name = f"{family}-{qtype.lower()}"
            kept = Writer(options.out / f"{name}.gguf", config, qtype).write(tensors)
            tokens = golden["input_ids"]
            logits = forward(config, kept, tokens).astype(np.float32)
            write_safetensors(options.out / f"{name}.golden.safetensors", {"input_ids": tokens, "logits": logits})
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
