#!/usr/bin/env python3
"""Writes src/text/unicode_tables.inc from Python's unicodedata.

    python3 tools/make_unicode_tables.py > src/text/unicode_tables.inc

Run with Python 3.11 (Unicode 14, the version of the regex libraries that the tokenizers use).
"""
import sys
import unicodedata as u

CATEGORIES = ["Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi",
              "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co"]
ALL = range(0x110000)
HANGUL = range(0xAC00, 0xAC00 + 11172)


def table(declaration, rows):
    out, line = [f"{declaration} = {{"], "   "
    for row in rows:
        if len(line) + len(row) + 2 > 110:
            out.append(line)
            line = "   "
        line += f" {row},"
    return "\n".join(out + [line, "};"])


def runs(value_of):
    """(first, value) where the value changes."""
    last = None
    for c in ALL:
        value = value_of(c)
        if value != last:
            yield c, value
            last = value


def main():
    assert u.unidata_version == "14.0.0", u.unidata_version
    print(f"// Unicode {u.unidata_version}. Made by tools/make_unicode_tables.py; do not edit.")
    print(table("constexpr Run kCategories[]",
                [f"{{{c:#x},{CATEGORIES.index(v)}}}" for c, v in runs(lambda c: u.category(chr(c)))]))
    print(table("constexpr Run kCombiningClasses[]",
                [f"{{{c:#x},{v}}}" for c, v in runs(lambda c: u.combining(chr(c)))]))
    print(table("constexpr Mapping kLower[]",
                [f"{{{c:#x},{ord(chr(c).lower()):#x}}}" for c in ALL
                 if not 0xD800 <= c < 0xE000 and len(chr(c).lower()) == 1 and chr(c).lower() != chr(c)]))
    pool, canonical, compatible = [], [], []
    for c in ALL:
        if c in HANGUL or 0xD800 <= c < 0xE000:
            continue
        for form, rows in (("NFD", canonical), ("NFKD", compatible)):
            full = u.normalize(form, chr(c))
            if full != chr(c) and not (form == "NFKD" and full == u.normalize("NFD", chr(c))):
                rows.append(f"{{{c:#x},{len(pool)},{len(full)}}}")
                pool += [f"{ord(x):#x}" for x in full]
    print(table("constexpr char32_t kDecomposedPool[]", pool))
    print("// Full canonical decompositions.")
    print(table("constexpr Decomposition kCanonical[]", canonical))
    print("// Full compatibility decompositions where they differ from the canonical one.")
    print(table("constexpr Decomposition kCompatible[]", compatible))
    pairs = []
    for c in ALL:
        parts = u.decomposition(chr(c)).split()
        if len(parts) == 2 and not parts[0].startswith("<") and u.normalize("NFC", chr(c)) == chr(c):
            pairs.append((int(parts[0], 16), int(parts[1], 16), c))
    print(table("constexpr Composition kCompositions[]", [f"{{{a:#x},{b:#x},{c:#x}}}" for a, b, c in sorted(pairs)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
