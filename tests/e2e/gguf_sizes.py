"""How many bytes each tensor of a GGUF file takes, and its header: read here without the program under test."""
import struct

SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9


def gguf_sizes(path):
    """(bytes before the first tensor, {tensor name: bytes to the next one})."""
    with open(path, "rb") as file:

        def number(code):
            return struct.unpack("<" + code, file.read(struct.calcsize(code)))[0]

        def string():
            return file.read(number("Q")).decode(errors="replace")

        def skip(kind):
            if kind == STRING:
                string()
            elif kind == ARRAY:
                inner, count = number("I"), number("Q")
                for _ in range(count):
                    skip(inner)
            else:
                file.read(SCALARS[kind])

        assert file.read(4) == b"GGUF"
        number("I")
        tensors, entries = number("Q"), number("Q")
        for _ in range(entries):
            string()
            skip(number("I"))
        offsets = {}
        for _ in range(tensors):
            name = string()
            for _ in range(number("I")):
                number("Q")
            number("I")
            offsets[name] = number("Q")
        header = (file.tell() + 31) // 32 * 32
        end = file.seek(0, 2) - header
    ordered = sorted(offsets.items(), key=lambda item: item[1])
    return header, {name: after - begin for (name, begin), after in zip(ordered, [o for _, o in ordered[1:]] + [end])}
