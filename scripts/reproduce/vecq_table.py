#!/usr/bin/env python3
"""Accuracy and size on disk of every finished run of VecQ below a folder, mean ± std over seeds, beside float32.

usage: vecq_table.py RUNS       (RUNS: <results_dir>/<exp_name> of scripts/train_vecq.py)
The differences to float32 are means of those of each seed, over the seeds that have both: fine-tuned networks beside
float32 trained on for as long (float_tuned) where that is there, all others beside the float32 that they start from.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from quintil.metrics import estimate

_NAME = re.compile(r"(?P<what>.+)_(?P<stage>float_tuned|float|vecq|post)(_w\d+a\d+(?P<options>_.+)?)?")


def cell(values: list[float], form: str = ".2f") -> str:
    if not values:
        return ""
    found = estimate(values)
    return f"{found.mean:{form}}" if len(values) == 1 else f"{found.mean:{form}} ± {found.std:.2f}"


def _pairs(what: str, stage: str) -> list[tuple[str, str, str]]:
    """Which runs to subtract, the first that is there: what was fine-tuned is paired with float32 trained as long."""
    stages = {"vecq": ("float_tuned", "float"), "post": ("float",), "float_tuned": ("float",), "float": ()}
    return [(what, other, "32/32") for other in stages[stage]]


def table(folder: Path) -> str:
    """Markdown: a row per run directory."""
    runs: dict[tuple[str, str, str], dict[str, tuple[float, int]]] = {}
    for file in sorted(folder.glob("*/seed*/summary.json")):
        name = _NAME.fullmatch(file.parent.parent.name)
        if name is None:
            continue
        summary = json.loads(file.read_text())
        ((label, accuracy),) = summary["accuracy"].items()
        key = name["what"], name["stage"], label.replace("a", "/") + (name["options"] or "").replace("_", " ", 1)
        runs.setdefault(key, {})[file.parent.name] = accuracy, summary["bytes"]
    if not runs:
        raise ValueError(f"vecq_table: expected finished runs in {folder}, got none")
    lines = ["| data, model | stage | W/A | seeds | accuracy | to float32 | MiB |", "|---" * 7 + "|"]
    for (what, stage, widths), seeds in sorted(runs.items()):
        plain = next((runs[pair] for pair in _pairs(what, stage) if pair in runs), {})
        gains = [accuracy - plain[seed][0] for seed, (accuracy, _) in seeds.items() if seed in plain]
        mebibytes = max(size for _, size in seeds.values()) / 2**20
        accuracy = cell([accuracy for accuracy, _ in seeds.values()])
        cells = (what, stage, widths, str(len(seeds)), accuracy, cell(gains, "+.2f"), f"{mebibytes:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(table(Path(arguments[0])))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
