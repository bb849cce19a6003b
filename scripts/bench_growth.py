"""How the time of a step grows with the batch, the width of a layer and the size of an image: bench_step.py --growth.

A step of n times the work should take at most n times as long; small sizes take longer per unit of work, since what a
step costs whatever its size is spread over less. `surprise` of a curve is the time per unit of work at a size over the
least of all smaller sizes, at its worst: 1 where nothing grows faster than the work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from bench_common import interleaved
from bench_nets import OURS, Workload, cifar_resnet, layer, mlp, training_step

SIDES = (OURS, "float32")
LIMIT = 2.0  # of `surprise`; leaving a cache level costs about 1.5


@dataclass(frozen=True)
class Curve:
    """Steps of one kind by size; order: the work per sample grows with size^order."""

    what: str
    axis: str
    sizes: tuple[int, ...]
    workload: Callable[[int], Workload]
    order: int


CURVES = {
    "batch": Curve("MLP 405-405-405-19", "batch size", tuple(2**i for i in range(11)), lambda n: mlp(405, 19, n), 0),
    "width": Curve(
        "Linear, batch 256, width → width", "width", (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048),
        lambda n: layer(256, n, n), 2,
    ),
    "image": Curve(
        "ResNet-20, batch 8", "height and width of an image", (8, 12, 16, 24, 32, 48, 64, 96, 128),
        lambda n: cifar_resnet(20, 8, n), 2,
    ),
}  # fmt: skip


def surprise(sizes: list[int], per_sample: list[float], order: int) -> tuple[float, int]:
    """The worst time per unit of work over the least at smaller sizes, and its size."""
    per_work = [t / size**order for size, t in zip(sizes, per_sample)]
    worst, where = 1.0, sizes[0]
    for i in range(1, len(sizes)):
        grown = per_work[i] / min(per_work[:i])
        if grown > worst:
            worst, where = grown, sizes[i]
    return worst, where


def measure(name: str, threads: int, repeats: int, largest: int | None, done: Callable[[], object]) -> dict[str, Any]:
    """One curve; `done` is called after every size."""
    curve = CURVES[name]
    torch.set_num_threads(threads)
    sizes = [n for n in curve.sizes if largest is None or n <= largest]
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for n in sizes:
        workload = curve.workload(n)
        steps = {side: training_step(workload, side) for side in SIDES}
        taken = interleaved(steps, dict.fromkeys(SIDES, repeats))
        for side in SIDES:
            times[side].append(1e3 * min(taken[side]) / workload.shape[0])
        done()
    sides = {}
    for side in SIDES:
        worst, where = surprise(sizes, times[side], curve.order)
        sides[side] = {"us_per_sample": times[side], "surprise": worst, "at": where}
    return {
        "curve": name, "what": curve.what, "axis": curve.axis, "order": curve.order, "threads": threads,
        "repeats": repeats, "sizes": sizes, "limit": LIMIT, "sides": sides,
    }  # fmt: skip
