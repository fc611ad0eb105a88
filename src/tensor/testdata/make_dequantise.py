"""Writes dequantise.bin: random blocks of each GGUF type and their values by PyPI's `gguf` package.

Entries: name (8 bytes, zero-padded), bytes u32, values u32, the bytes, the values as float32; little-endian.
    pip install gguf && python make_dequantise.py
"""
import struct
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, dequantize
from gguf.constants import GGML_QUANT_SIZES

rng = np.random.default_rng(1)
F16_OFFSETS = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2],
               "Q6_K": [208]}
out = b""
for name, offsets in F16_OFFSETS.items():
    kind = GGMLQuantizationType[name]
    elements, size = GGML_QUANT_SIZES[kind]
    blocks = 512 // elements
    data = rng.integers(0, 256, (blocks, size), dtype=np.uint8)
    for offset in offsets:
        scale = rng.uniform(-0.5, 0.5, blocks).astype(np.float16)
        data[:, offset:offset + 2] = scale.view(np.uint8).reshape(blocks, 2)
    values = dequantize(data.reshape(-1), kind).astype(np.float32).reshape(-1)
    out += name.encode().ljust(8, b"\0") + struct.pack("<II", data.size, values.size) + data.tobytes() + values.tobytes()
Path(__file__).with_name("dequantise.bin").write_bytes(out)
