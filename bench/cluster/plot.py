#!/usr/bin/env python3
"""plot.py: draws what bench/results/cluster.json and cluster-scale.json hold as docs/images/cluster-*.svg. Standard library only."""
import json
import math
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 560, 340, 64, 40, 150, 48
COLOURS = ["#1f6feb", "#d1242f", "#1a7f37", "#8250df", "#9a6700"]


def ticks(low, high, log):
    if log:
        return [10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    step = 10 ** math.floor(math.log10(high / 4 or 1))
    step *= next(f for f in (1, 2, 5, 10) if high / (step * f) <= 6)
    return [i * step for i in range(int(high / step) + 2)]


def chart(path, title, x_label, y_label, lines, log_x=False, log_y=False):
    """lines: {name: [(x, y), …]}; a name that ends in an asterisk is drawn dashed: a bound and no measurement."""
    points = [p for line in lines.values() for p in line]
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    x_ticks = sorted(set(xs)) if log_x else ticks(0, max(xs), False)
    y_ticks = ticks(min(ys), max(ys), log_y)
    x_low, x_high = (min(xs), max(xs)) if log_x else (0, x_ticks[-1])
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def scale(value, low, high, log):
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low) or 1) if log else (value - low) / (high - low or 1)

    def x(value):
        return LEFT + (WIDTH - LEFT - RIGHT) * scale(value, x_low, x_high, log_x)

    def y(value):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * scale(value, y_low, y_high, log_y)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/><text x="{LEFT}" y="22" font-size="14">{title}</text>']  # fmt: skip
    for value in y_ticks:
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#d8dee4"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in x_ticks:
        out.append(f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{x_label}</text>')
    out.append(f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{y_label}</text>')
    for i, (name, line) in enumerate(lines.items()):
        colour, dashed = COLOURS[i % len(COLOURS)], ' stroke-dasharray="5 4"' if name.endswith("*") else ""
        path_points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in sorted(line))
        out.append(f'<polyline points="{path_points}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>')
        if not dashed:
            out += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{colour}"/>' for a, b in line]
        label = TOP + 16 * i + 8
        out.append(f'<line x1="{WIDTH - RIGHT + 10}" x2="{WIDTH - RIGHT + 30}" y1="{label}" y2="{label}" stroke="{colour}" stroke-width="2"{dashed}/>')
        out.append(f'<text x="{WIDTH - RIGHT + 35}" y="{label + 4}">{name.rstrip("*")}</text>')
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(out) + "\n</svg>\n")
    print(f"wrote {path.relative_to(ROOT)}")


def main():
    images = ROOT / "docs/images"
    results = json.loads((ROOT / "bench/results/cluster.json").read_text())
    rows = {r["row"]: r for setup in results["setups"] for r in setup["rows"]}
    latency = {}
    for setup in results["setups"]:
        name, shape = setup["name"], setup["setup"]
        if "one_way_ms" not in shape:
            continue
        row, stages = rows[name + " decode step against its floor"], shape["stages"]
        latency.setdefault(f"{stages} stages", []).append((shape["one_way_ms"], row["ours"]))
        latency.setdefault(f"{stages} stages, floor*", []).append((shape["one_way_ms"], row["limit"]))
        if peer := rows[name + " decode, one session"]["peer"]:
            latency.setdefault(f"{stages} stages, llama.cpp", []).append((shape["one_way_ms"], 1e3 / peer))
    chart(images / "cluster-latency.svg", "A decode step over a cut model", "one-way delay of a hop, ms", "ms", latency)
    crowds = [(int(n.split()[-2]), r) for n, r in rows.items() if n.endswith(" sessions")]
    if crowds:
        chart(images / "cluster-sessions.svg", "Many sessions over four stages, 50 ms apart", "sessions", "tokens/s",
              {"measured": [(n, r["ours"]) for n, r in crowds], "bound*": [(n, r["limit"]) for n, r in crowds]}, log_x=True)  # fmt: skip
    scale = json.loads((ROOT / "bench/results/cluster-scale.json").read_text())["rows"]
    chart(images / "cluster-growth.svg", "What the control plane spends on a session", "workers", "ms",
          {"opened session, all": [(r["workers"], r["session_ms"]) for r in scale]})  # fmt: skip


if __name__ == "__main__":
    main()
