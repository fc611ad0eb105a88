"""Reads a safetensors file into flat Python lists: enough for small golden files, without numpy."""
import array
import json
import pathlib

CODES = {"F32": "f", "I64": "q", "I32": "i"}


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    out = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        values = array.array(CODES[info["dtype"]])
        values.frombytes(data[8 + length + begin : 8 + length + end])
        out[name] = list(values)
    return out
