#!/usr/bin/env python3
"""Accuracy by width of every finished run below a folder, mean ± std over seeds, and the fronts of its searches.

usage: width_table.py RUNS...       (RUNS: <results_dir>/<exp_name> of scripts/train_double_rounding.py)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from quintil.metrics import estimate


def cell(values: list[float]) -> str:
    if not values:
        return ""
    found = estimate(values)
    return f"{found.mean:.2f}" if len(values) == 1 else f"{found.mean:.2f} ± {found.std:.2f}"


def table(*folders: Path) -> str:
    """Markdown: a row per run directory, a column per width; then a row per point of a front; of all folders."""
    runs: dict[str, list[dict[str, float]]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*/seed*/summary.json")):
            name = file.parent.parent.name if len(folders) == 1 else f"{folder.name}/{file.parent.parent.name}"
            runs.setdefault(name, []).append(json.loads(file.read_text())["accuracy"])
    widths = sorted({int(width) for seeds in runs.values() for seed in seeds for width in seed}, reverse=True)
    if not widths:
        raise ValueError(f"width_table: expected finished runs in {', '.join(map(str, folders))}, got none")
    lines = ["| run | seeds | " + " | ".join(f"w{w}a{w}" if w < 32 else "float32" for w in widths) + " |"]
    lines.append("|---" * (len(widths) + 2) + "|")
    for name, seeds in runs.items():
        cells = [cell([seed[str(width)] for seed in seeds if str(width) in seed]) for width in widths]
        lines.append(f"| {name} | {len(seeds)} | " + " | ".join(cells) + " |")
    searches = sorted(file for folder in folders for file in folder.glob("*/seed*/search.json"))
    if searches:
        lines += ["", "| searched | mean bits | accuracy |", "|---|---|---|"]
    for file in searches:
        found = json.loads(file.read_text())
        for place in found["front"]:
            row = found["candidates"][place]
            where = "/".join(file.parts[-3:-1])
            lines.append(f"| {where} | {row['mean_bits']:.3f} | {row['accuracy']:.2f} |")
        lines += [f"| all layers the same | {r['mean_bits']:.0f} | {r['accuracy']:.2f} |" for r in found["uniform"]]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(table(*map(Path, arguments)))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
