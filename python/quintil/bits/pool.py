"""Candidates for mixed precision around the optimum, and the ones worth keeping [DR D25]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .allocate import Allocation, allocate


def candidate_pool(
    traces: Mapping[str, float], bits: Sequence[int], mean_bits: Iterable[float | None], **limits: Any
) -> list[Allocation]:
    """For every average in `mean_bits` the optimum and its neighbours, each choice of widths once [DR D25].

    A neighbour is the optimum under one more condition: layer i has width b, for every layer i and every b below the
    largest width of the optimum and not the one that i has there. Averages that round to the same sum count once;
    conditions that cannot be met are passed over. limits: `budgets`, `at_most` and `fixed` of `allocate`.
    """
    found: dict[tuple[int, ...], Allocation] = {}
    searched: set[tuple[tuple[int, ...], float | None]] = set()
    fixed = dict(limits.pop("fixed", None) or {})
    at_most = limits.get("at_most", False)
    for mean in mean_bits:
        best = allocate(traces, bits, mean, fixed=fixed, **limits)
        key = tuple(best.bits.values())
        found.setdefault(key, best)
        if (key, mean if at_most else None) in searched:
            continue
        searched.add((key, mean if at_most else None))
        for layer, width in best.bits.items():
            for other in bits:
                if layer in fixed or other == width or other >= max(key):
                    continue
                try:
                    near = allocate(traces, bits, mean, fixed={**fixed, layer: other}, **limits)
                except ValueError:  # the condition and the limits exclude each other
                    continue
                found.setdefault(tuple(near.bits.values()), near)
    return list(found.values())


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the (cost, value) points that no other beats, by ascending cost.

    A point is beaten by one that costs no more and is worth no less, and is better in one of the two; of equal points
    the first stays.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front
