#!/usr/bin/env python3
"""The README's table of what was verified, from run directories: seeds, date, wall time, our number, the published one.

    python scripts/reproduce/verified_table.py runs/reproduce/*/* > docs/results/verified.md

One row per data set, learner and variant, float32 and HDQT beside each other: the last accuracy of the linear head,
mean ± std over seeds. "verified" says that the float32 mean is within one published standard deviation of the
published mean, for runs of the published protocol; everything else is "not verified" with the reason.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

from quintil.metrics import RunResult, estimate, read_run
from quintil.report.published import Published, published_rows

HEADER = (
    "data", "learner", "seeds", "float32", "published", "HDQT", "published", "float32 verified?", "minutes per seed",
    "date", "command",
)  # fmt: skip
ARITHMETICS = ("float32", "hdqt_w4a4acc8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="run directories; others are skipped")
    args = parser.parse_args()
    groups: dict[tuple[str, str], dict[str, RunResult]] = {}
    for run in (read_run(path) for path in args.runs if any(path.glob("seed*/config.json"))):
        if run.seeds and run.label in ARITHMETICS:
            groups.setdefault((run.config["dataset"], learner_of(run)), {})[run.label] = run
    commands: list[str] = []
    rows: list[Iterable[str]] = [HEADER, ["---"] * len(HEADER)]
    rows += [row(*key, found, commands) for key, found in sorted(groups.items())]
    for cells in rows:
        print("| " + " | ".join(cells) + " |")
    print()
    for number, command in enumerate(commands, start=1):
        print(f"[{number}] `{command}`  ")
    return 0


def learner_of(run: RunResult) -> str:
    return run.config["method"] + (" (compat)" if run.config.get("bic_compat") else "")


def row(dataset: str, learner: str, found: dict[str, RunResult], commands: list[str]) -> list[str]:
    first = next(iter(found.values()))
    command, date = environment(first)
    if command not in commands:
        commands.append(command)
    runs = [found.get(label) for label in ARITHMETICS]
    cells = [cell for run in runs for cell in (last(run), published(run))]
    minutes = " / ".join("–" if run is None else f"{minutes_per_seed(run):.1f}" for run in runs)
    seeds = "/".join(dict.fromkeys(str(len(run.seeds)) for run in runs if run is not None))
    return [dataset, learner, seeds, *cells, verdict(runs[0]), minutes, date, f"[{commands.index(command) + 1}]"]


def last(run: RunResult | None) -> str:
    return "–" if run is None else str(estimate(list(run.values("last_acc_cnn").values())))


def linear_head(run: RunResult | None) -> Published | None:
    rows = [] if run is None else [row for row in published_rows(run) if row.head == "cnn"]
    return rows[0] if rows else None


def published(run: RunResult | None) -> str:
    known = linear_head(run)
    return "–" if known is None else f"{known.last:.2f} ± {known.std:.2f}"


def verdict(run: RunResult | None) -> str:
    known = linear_head(run)
    if run is None or known is None:
        return "not verified: another protocol or nothing published"
    mean = estimate(list(run.values("last_acc_cnn").values())).mean
    if abs(mean - known.last) <= known.std:
        return "verified"
    return f"not verified: {mean - known.last:+.2f}, std {known.std:.2f}"


def minutes_per_seed(run: RunResult) -> float:
    """The median over seeds: one that was paused or shared its core does not count."""
    seconds = []
    for seed in run.seeds:
        lines = (run.path / f"seed{seed}/timing.jsonl").read_text(encoding="utf-8").splitlines()
        seconds.append(sum(t["train_s"] + t["end_task_s"] + t["eval_s"] for t in map(json.loads, lines)))
    return statistics.median(seconds) / 60


def environment(run: RunResult) -> tuple[str, str]:
    """The command of the newest seed, folders left out, and its date."""
    found = [json.loads((run.path / f"seed{seed}/env.json").read_text(encoding="utf-8")) for seed in run.seeds]
    newest = max(found, key=lambda env: env["date"])
    words = " ".join(newest["command"])
    words = re.sub(r"(^|\s)/\S*/(\S+\.py|quintil)\b", r"\1\2", words)
    return re.sub(r"\s/\S+", " DATA", words), newest["date"][:10]


if __name__ == "__main__":
    sys.exit(main())
