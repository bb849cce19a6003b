"""Measures of trained networks, task by task from the checkpoints of their runs; as a table and a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from quintil.continual import load_checkpoint
from quintil.continual.run import prepare
from quintil.metrics import estimate
from quintil.report.render import COLOURS, Panel, Picture, draw

from .inside import MEASURES, Row
from .study import Cell, Study

_MOST_PANELS = 9


@dataclass(frozen=True)
class Measure:
    """How a measure is shown: numbers -> column heads, and what its picture draws.

    drawn: one number, a line for every `what` of a layer; or several, a line for each.
    """

    columns: dict[str, str]
    drawn: tuple[str, ...]
    unit: str


SHOWN = {
    "saturation": Measure({"clamped": "clamped tile sums, %"}, ("clamped",), "clamped tile sums (%)"),
    "gradient-statistics": Measure(
        {"crest": "largest / rms", "levels": "levels in use", "zeros": "codes 0, %"}, ("crest",), "largest / rms"
    ),
    "rounding-bias": Measure(
        {"bias": "bias", "spread": "spread of a draw", "nearest": "error of nearest", "limit": "error by limits"},
        ("bias", "spread", "nearest"),
        "error (% of the gradient)",
    ),
}  # fmt: skip


def collect(study: Study, cell: Cell, run: Path, on_task: Callable[[], None]) -> list[Row]:
    """Rows of every seed and task of a finished run that kept a checkpoint per task.

    The batch is as large as in training, drawn by the seed from the training samples of all classes seen so far.
    """
    measure, rows = MEASURES[study.measure], []
    for seed in cell.config.seeds:
        setup = prepare(cell.config, seed)
        for task in setup.tasks:
            path = run / f"seed{seed}" / "ckpt" / f"task{task.number}.pt"
            learner = load_checkpoint(path)
            generator = torch.Generator().manual_seed(seed)
            chosen = torch.randperm(task.y_seen.numel(), generator=generator)[: cell.config.batch_size]
            x = learner._inputs(task.x_seen.index_select(0, chosen))
            found = measure(learner.net, x, task.y_seen.index_select(0, chosen))
            rows += [{"seed": seed, "task": task.number, **row} for row in found]
            on_task()
    return rows


def table(study: Study, rows: Sequence[Row]) -> list[list[str]]:
    """A row per layer and thing: mean over tasks, then mean ± standard deviation over seeds."""
    columns = SHOWN[study.measure].columns
    lines = [["layer", "", *columns.values()]]
    for layer, what in dict.fromkeys((row["layer"], row["what"]) for row in rows):
        own = [row for row in rows if (row["layer"], row["what"]) == (layer, what)]
        lines.append([layer, what, *(str(estimate(_by_seed(own, name))) for name in columns)])
    return lines


def _by_seed(rows: Sequence[Row], name: str) -> list[float]:
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    own = {seed: [row[name] for row in rows if row["seed"] == seed] for seed in seeds}
    return [sum(values) / len(values) for values in own.values()]


def draw_rows(study: Study, rows: Sequence[Row], stem: Path) -> Path:
    """Write <stem>.png and <stem>.svg: a panel per layer, a line per thing, over the tasks; returns the PNG."""
    drawn = SHOWN[study.measure].drawn

    def panel_of(row: Row) -> str:
        return f"layer {row['layer']}" + (f", {row['what']}" if len(drawn) > 1 else "")

    titles = list(dict.fromkeys(panel_of(row) for row in rows))
    titles = titles[:: -(-len(titles) // _MOST_PANELS)]
    panels = [Panel(t, partial(_lines, study, [row for row in rows if panel_of(row) == t])) for t in titles]
    formula = "mean over seeds after each task"
    draw(Picture("measure", study.title, formula, panels, min(3, len(panels)), (3.6, 2.8), heat=True), stem)
    return stem.with_name(f"{stem.name}.png")


def _lines(study: Study, rows: Sequence[Row], axes: Axes) -> None:
    shown = SHOWN[study.measure]
    several = len(shown.drawn) > 1
    names = [(None, name) for name in shown.drawn] if several else [
        (what, shown.drawn[0]) for what in dict.fromkeys(row["what"] for row in rows)
    ]  # fmt: skip
    colours: dict[str, Any] = {}
    for what, name in names:
        own = [row for row in rows if what is None or row["what"] == what]
        tasks = sorted({row["task"] for row in own})
        means = [estimate([row[name] for row in own if row["task"] == task]).mean for task in tasks]
        label = shown.columns[name] if what is None else what
        subject, _, when = label.rpartition(" ")
        paired = when in ("before", "after")
        colour = colours.setdefault(subject if paired else label, COLOURS[len(colours) % len(COLOURS)])
        axes.plot(tasks, means, "--" if when == "before" else "-", color=colour, linewidth=1.6, label=label)
    axes.set_xlabel("task")
    axes.set_ylabel(shown.unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
