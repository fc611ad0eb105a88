#!/usr/bin/env python3
"""Fails when a file of src/ includes a folder that cmake/layers.txt does not allow, or when a folder's CMake DEPS name one.

Tests (*_test.cc) and fuzz targets follow the same rule. The table itself must be free of cycles.
"""
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
allowed: dict[str, set[str]] = {}
for line in (root / "cmake/layers.txt").read_text().splitlines():
    line = line.split("#")[0].strip()
    if line:
        name, _, rest = line.partition(":")
        allowed[name.strip()] = set(rest.split())
everything = set(allowed)
for name, deps in allowed.items():
    if deps == {"*"}:
        allowed[name] = everything - {name}

problems = []


def visit(name: str, path: tuple[str, ...]) -> None:
    if name in path:
        problems.append("cmake/layers.txt: cycle " + " → ".join(path[path.index(name) :] + (name,)))
        return
    for dep in allowed.get(name, ()):
        if dep not in allowed:
            problems.append(f"cmake/layers.txt: {name} names unknown folder {dep}")
        else:
            visit(dep, path + (name,))


for folder in allowed:
    visit(folder, ())

include = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
for file in sorted((root / "src").rglob("*")):
    if file.suffix not in {".h", ".cc", ".cu", ".cuh", ".inc"}:
        continue
    folder = file.relative_to(root / "src").parts[0]
    if folder not in allowed:
        problems.append(f"{file.relative_to(root)}: folder {folder} is not in cmake/layers.txt")
        continue
    for number, line in enumerate(file.read_text().splitlines(), 1):
        match = include.match(line)
        if not match:
            continue
        target = match.group(1).split("/")[0]
        where = f"{file.relative_to(root)}:{number}"
        if "/" not in match.group(1) or match.group(1).startswith("."):
            problems.append(f"{where}: includes are written from src/: {match.group(1)}")
        elif target in allowed and target != folder and target not in allowed[folder]:
            problems.append(f"{where}: {folder} must not include {target}")
        elif target not in allowed:
            problems.append(f"{where}: no folder {target} in cmake/layers.txt")

for file in sorted((root / "src").glob("*/CMakeLists.txt")):
    folder = file.parent.name
    for block in re.findall(r"tessera_library\(([^)]*)\)", file.read_text(), re.S):
        words = block.split()
        if "DEPS" not in words:
            continue
        for word in words[words.index("DEPS") + 1 :]:
            if word in {"SRCS", "HEAVY", "EXTERNAL", "NAME"}:
                break
            if word not in allowed[folder] and word != folder:
                problems.append(f"{file.relative_to(root)}: DEPS {word} is not below {folder}")

print("\n".join(problems) if problems else "layers: every include points down")
sys.exit(1 if problems else 0)
