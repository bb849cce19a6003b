#!/usr/bin/env python3
"""Accuracy after each task of stored single-seed runs as a picture: draw_curves.py docs/results/cifar100_short.json

The file holds a title, what the numbers are, and one entry per run and head: learner, arithmetic, head, accuracy. It is
made of run directories by `--from`, entries of other runs are kept:
  draw_curves.py docs/results/cifar100_short.json --from runs/reproduce/cifar100_short/*
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from quintil.metrics import read_run

HEADS = {"cnn": "linear", "nme": "nearest mean"}


def entries_of(path: Path) -> list[dict[str, Any]]:
    """One entry per head of the first seed of a run."""
    run = read_run(path)
    seed, result = sorted(run.seeds.items())[0]
    return [
        {
            "learner": run.config["method"], "arithmetic": "float32" if run.label == "float32" else "HDQT",
            "head": HEADS[head], "seed": seed, "accuracy": [round(a, 2) for a in result.curve(head, "acc")],
            "forgetting_class_best": round(result.summary[f"forgetting_class_best_{head}"], 2),
        }
        for head in run.heads()
    ]  # fmt: skip


def merged(stored: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """New entries replace stored ones of the same learner, arithmetic and head."""
    key = lambda e: (e["learner"], e["arithmetic"], e["head"])  # noqa: E731
    return sorted({**{key(e): e for e in stored}, **{key(e): e for e in new}}.values(), key=key)


def picture(content: dict[str, Any], stem: Path) -> None:
    """<stem>.png and <stem>.svg: a panel per head, a line per learner and arithmetic, dashed where it is float32."""
    from quintil.report.render import COLOURS, Panel, Picture, draw

    learners = sorted({entry["learner"] for entry in content["runs"]})

    def panel(head: str) -> Panel:
        def lines(axes: Any) -> None:
            for entry in (e for e in content["runs"] if e["head"] == head):
                style = dict(color=COLOURS[learners.index(entry["learner"])], marker="o", ms=3)
                style["linestyle"] = "--" if entry["arithmetic"] == "float32" else "-"
                accuracy = entry["accuracy"]
                axes.plot(
                    range(1, len(accuracy) + 1), accuracy, label=f"{entry['learner']}, {entry['arithmetic']}", **style
                )
            axes.set_xlabel("task")
            axes.set_ylabel("accuracy over all seen classes, %")
            axes.xaxis.get_major_locator().set_params(integer=True)

        return Panel(head, lines)

    heads = [head for head in HEADS.values() if any(e["head"] == head for e in content["runs"])]
    draw(Picture("curves", content["title"], content["about"], [panel(head) for head in heads], 2), stem)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path, metavar="JSON")
    parser.add_argument(
        "--from", dest="runs", nargs="+", type=Path, default=[], metavar="RUN_DIR", help="add these runs"
    )
    args = parser.parse_args()
    try:
        content = json.loads(args.curves.read_text(encoding="utf-8"))
        if args.runs:
            folders = [path for path in args.runs if any(path.glob("seed*/config.json"))]  # a report lies beside them
            content["runs"] = merged(content["runs"], [e for path in folders for e in entries_of(path)])
            args.curves.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        picture(content, args.curves.with_suffix(""))
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
