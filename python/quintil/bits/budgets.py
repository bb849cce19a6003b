"""What a choice of widths may cost: one cost per layer and width, and an upper bound on their sum [DR D24]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: layer -> width -> cost of the layer at that width
Costs = Mapping[str, Mapping[int, float]]

_WIDTHS = tuple(range(1, 9))


@dataclass(frozen=True)
class Budget:
    """The sum over all layers of costs[layer][its width] may be at most `limit`.

    what: the name under which errors and results speak of it, such as "latency". A layer that is left out costs
    nothing. Raises ValueError for a limit that is not finite and for costs that are negative or not finite.
    """

    what: str
    costs: Costs
    limit: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.limit):
            raise ValueError(f"Budget: expected limit to be finite, got {self.limit} ({self.what})")
        for layer, row in self.costs.items():
            for width, cost in row.items():
                if not (math.isfinite(cost) and cost >= 0):
                    raise ValueError(
                        f"Budget: expected costs to be finite and at least 0, got {cost} ({self.what} of {layer!r} "
                        f"at {width} bits)"
                    )

    def cost(self, layer: str, width: int) -> float:
        """Cost of one layer at one width; ValueError if the table has the layer but not the width."""
        row = self.costs.get(layer)
        if row is None:
            return 0.0
        if width not in row:
            there = ", ".join(map(str, sorted(row)))
            raise ValueError(f"Budget: expected costs of {layer!r} to hold {width} bits, got {there} ({self.what})")
        return row[width]

    def total(self, widths: Mapping[str, int]) -> float:
        """Cost of all layers at the given widths."""
        return math.fsum(self.cost(layer, width) for layer, width in widths.items())


def bit_sum(layers: Sequence[str], limit: float) -> Budget:
    """The widths themselves: a bound on their sum, so on their average."""
    return Budget("sum of bits", {name: {b: b for b in _WIDTHS} for name in layers}, limit)


def model_bytes(parameters: Mapping[str, int], limit: float) -> Budget:
    """Bytes of packed weights: a layer of n weights takes ceil(n b / 8) at b bits."""
    return Budget("model bytes", {name: {b: -(-n * b // 8) for b in _WIDTHS} for name, n in parameters.items()}, limit)


def mac_bits(macs: Mapping[str, int], limit: float) -> Budget:
    """Multiplications of one sample times their width."""
    return Budget("MACs x bits", {name: {b: n * b for b in _WIDTHS} for name, n in macs.items()}, limit)


def table(what: str, costs: Mapping[str, Mapping[int | str, float]], limit: float) -> Budget:
    """Measured costs, such as latency or energy; widths may be texts, as keys are in JSON."""
    return Budget(what, {name: {int(b): float(c) for b, c in row.items()} for name, row in costs.items()}, limit)
