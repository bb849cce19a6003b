"""What the benchmarks share: calls that take turns, their ratios, and what a number needs beside it."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import quintil
import torch
from quintil.continual.rundir import processor

Call = Callable[[], object]
WARM_UP = 3


def interleaved(calls: Mapping[str, Call], repeats: Mapping[str, int]) -> dict[str, list[float]]:
    """Milliseconds of every call by round, after a warm-up.

    The calls take turns, so that a change of the machine's speed meets all of them; every round starts with another
    one. A call with fewer repeats than WARM_UP warms up as often as it repeats, and takes part in the first rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(-WARM_UP, max(repeats[name] for name in names)):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if not -min(WARM_UP, repeats[name]) <= number < repeats[name]:
                continue
            start = time.perf_counter()
            calls[name]()
            if number >= 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def ratios(ours: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Of the fastest repeats, and the median over the rounds that both took part in."""
    return {
        "ratio": min(ours) / min(other),
        "ratio_median": statistics.median(a / b for a, b in zip(ours, other)),
    }


def machine() -> dict[str, str]:
    """CPU, instruction set, versions, revision, and how busy the machine was."""
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "cpu": processor(), "cores": str(os.cpu_count()), "isa": quintil.active_isa(),
        "amx": "yes" if "amx" in quintil.runnable_isas() else "no",
        "oneDNN limit": os.environ.get("ONEDNN_MAX_CPU_ISA", "none"),
        "torch": torch.__version__, "quintil": quintil.__version__, "commit": commit.stdout.strip() or "unknown",
        "load": f"{os.getloadavg()[0]:.1f}",
    }  # fmt: skip


def positive(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def write_json(path: Path, numbers: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
