"""What a search for widths found, judged, tested and shown: beside one width for all layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from quintil.bits import evaluate, pareto_front, recalibrate, set_bits

Row = dict[str, Any]


class Judge:
    """Accuracies of a network at given widths: on training images, which choose, and on the test side, which reports.

    images: training images, drawn once from the seed, without augmentation; 0 = the test side chooses, as in the
        paper. batches: of the run. statistics: batches that BatchNorms are re-calibrated on for each choice; 0 = none.
    """

    def __init__(self, model: nn.Module, batches: Any, images: int, statistics: int, seed: int):
        self.model, self.batches, self.seed = model, batches, seed
        generator = torch.Generator().manual_seed(seed)
        self.sample = batches.sample(images, generator) if images else None
        self.statistics = statistics

    def choosing(self, widths: int | dict[str, int]) -> float:
        """Accuracy in percent that a choice may look at."""
        self._set(widths)
        return evaluate(self.model, self.batches.test() if self.sample is None else self.sample)

    def test(self, widths: int | dict[str, int]) -> float:
        """Accuracy in percent on the test side."""
        self._set(widths)
        return evaluate(self.model, self.batches.test())

    def _set(self, widths: int | dict[str, int]) -> None:
        set_bits(self.model, widths)
        if self.statistics:
            generator = torch.Generator().manual_seed(self.seed)
            images = self.batches.sample(self.statistics * self.batches.batch_size, generator)
            recalibrate(self.model, [x for x, _ in images])


def judged(rows: list[Row], widths: list[int], judge: Judge) -> tuple[list[int], list[Row]]:
    """Places of the front, whose rows receive an "accuracy", and rows of one width for all layers."""
    for row in tqdm(rows, desc="choose", leave=False, disable=None):
        row["judged"] = judge.choosing(row["bits"])
    front = pareto_front([(row["mean_bits"], row["judged"]) for row in rows])
    for place in tqdm(front, desc="test", leave=False, disable=None):
        rows[place]["accuracy"] = judge.test(rows[place]["bits"])
    uniform = [
        {"mean_bits": float(width), "judged": judge.choosing(width), "accuracy": judge.test(width)} for width in widths
    ]
    return front, uniform


def front_text(found: dict[str, Any]) -> str:
    """The front as a table, then the best of it for the average of every width that all layers can have."""
    front = [found["candidates"][place] for place in found["front"]]
    lines = ["mean bits  chosen by      test  widths"]
    for row in front:
        widths = " ".join(map(str, row["bits"].values()))
        lines.append(f"{row['mean_bits']:9.3f}  {row['judged']:9.2f}  {row['accuracy']:8.2f}  {widths}")
    for row in found["uniform"]:
        within = [other for other in front if other["mean_bits"] <= row["mean_bits"] + 1e-9]
        lines.append(f"{row['mean_bits']:9.3f}  {row['judged']:9.2f}  {row['accuracy']:8.2f}  all layers the same")
        if within:
            best = max(within, key=lambda other: other["judged"])
            lines[-1] += f"; chosen at {best['mean_bits']:.3f}: {best['accuracy'] - row['accuracy']:+.2f}"
    return "\n".join(lines)


def draw_search(found: dict[str, Any], stem: Path) -> None:
    """<stem>.png and <stem>.svg: accuracy against average width; ModuleNotFoundError without matplotlib."""
    from quintil.report.render import COLOURS, Panel, Picture, draw

    front = [found["candidates"][place] for place in found["front"]]

    def panel(key: str) -> Any:
        def lines(axes: Any) -> None:
            if key == "judged":
                rows = found["candidates"]
                axes.plot(
                    [r["mean_bits"] for r in rows], [r[key] for r in rows], ".", color=COLOURS[4], alpha=0.35,
                    ms=4, label="candidates",
                )  # fmt: skip
            for rows, label, style in (
                (front, "the front: widths by layer", {"marker": "o", "ms": 4, "color": COLOURS[0]}),
                (
                    found["uniform"],
                    "one width for all layers",
                    {"marker": "s", "ms": 5, "color": COLOURS[1], "linestyle": "--"},
                ),
            ):
                ordered = sorted(rows, key=lambda r: r["mean_bits"])
                axes.plot([r["mean_bits"] for r in ordered], [r[key] for r in ordered], label=label, **style)
            axes.set_xlabel("average width of the layers, bits")
            axes.set_ylabel("accuracy, %")

        return lines

    chosen = "training images that chose" if found["judge_images"] else "test images, which chose too"
    panels = [Panel(chosen, panel("judged")), Panel("test images", panel("accuracy"))]
    draw(Picture("search", "Widths by layer and one width for all", "", panels, 2), stem)
