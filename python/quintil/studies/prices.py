"""What an operation costs: tables of picojoules that can be replaced, and how they extend to other widths."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType

from quintil.studies.counts import KINDS, Counts, Operation

_HOROWITZ = (
    "M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014: 45 nm, 0.9 V; integer add "
    "8 bits 0.03, 32 bits 0.1, multiply 0.2 and 3.1; float add 16 bits 0.4, 32 bits 0.9, multiply 1.1 and 3.7 pJ"
)


@dataclasses.dataclass(frozen=True)
class Prices:
    """Picojoules per operation. `dataclasses.replace` changes a price; a subclass may replace `picojoules`.

    int_add, int_multiply, float_add, float_multiply: bits of the operands -> pJ, at least one entry each.
    byte: pJ per byte that a layer reads or writes.
    scaled: True prices every width: powers of the width between two entries, and beyond the last ones adders in
        proportion to the width, multipliers to the product of both widths. False is a machine with units of the listed
        widths alone: an operation takes the next wider unit (4-bit codes the 8-bit one), the widest beyond.
    A transform addition costs an addition. A quantisation costs a comparison (an addition; the range), a multiplication
    by the reciprocal of the step and an addition (the rounding), on the numbers it reads: integers or floats.
    """

    name: str
    source: str
    int_add: Mapping[int, float]
    int_multiply: Mapping[int, float]
    float_add: Mapping[int, float]
    float_multiply: Mapping[int, float]
    byte: float
    scaled: bool = True

    def __post_init__(self) -> None:
        for field in ("int_add", "int_multiply", "float_add", "float_multiply"):
            table = dict(getattr(self, field))
            if not table or any(bits < 1 for bits in table) or not all(_is_price(price) for price in table.values()):
                raise ValueError(f"Prices: expected {field} to map bits of at least 1 to pJ >= 0, got {table}")
            object.__setattr__(self, field, MappingProxyType(dict(sorted(table.items()))))
        if not _is_price(self.byte):
            raise ValueError(f"Prices: expected byte to be pJ >= 0, got {self.byte}")

    def picojoules(self, operation: Operation) -> float:
        """Price of one operation; ValueError for a kind that is not in `KINDS`."""
        kind, number, bits = operation.kind, operation.number, operation.bits
        if kind == "move":
            return self.byte
        if kind in ("add", "transform"):
            return self._look_up(f"{number}_add", bits, 1.0)
        if kind == "multiply":
            return self._look_up(f"{number}_multiply", math.sqrt(bits * (operation.other_bits or bits)), 2.0)
        if kind == "quantise":
            add = self._look_up(f"{number}_add", bits, 1.0)
            return 2.0 * add + self._look_up(f"{number}_multiply", bits, 2.0)
        raise ValueError(f"Prices: expected kind to be one of {', '.join(KINDS)}, got {kind!r}")

    def total(self, counts: Counts) -> float:
        """Picojoules of all counted operations."""
        return math.fsum(self.picojoules(operation) * count for operation, count in counts.items())

    def _look_up(self, field: str, bits: float, power: float) -> float:
        """The entry of a width; what `scaled` says where there is none. power: of the width, beyond the entries."""
        table = getattr(self, field)
        widths = list(table)
        above = next((width for width in widths if width >= bits), None)
        if not self.scaled or above == bits:
            return table[above if above is not None else widths[-1]]
        below = max((width for width in widths if width < bits), default=None)
        if below is None or above is None or 0.0 in (table[below], table[above]):
            nearest = below or above
            return table[nearest] * (bits / nearest) ** power
        share = math.log(bits / below) / math.log(above / below)
        return table[below] ** (1.0 - share) * table[above] ** share


def _is_price(value: float) -> bool:
    return math.isfinite(value) and value >= 0.0


_SCALED = Prices(
    name="horowitz45_scaled",
    source=f"{_HOROWITZ}; other widths by powers of the width (multiplier quadratic, adder linear); byte: a 64-bit "
    "access of a 1 MB cache, 100 pJ",
    int_add={8: 0.03, 32: 0.1},
    int_multiply={8: 0.2, 32: 3.1},
    float_add={16: 0.4, 32: 0.9},
    float_multiply={16: 1.1, 32: 3.7},
    byte=100.0 / 8,
)
PRICES: dict[str, Prices] = {
    "horowitz45": dataclasses.replace(
        _SCALED,
        name="horowitz45",
        source=f"{_HOROWITZ}; narrower integers on the next wider unit; byte: a 64-bit access of a 1 MB cache, 100 pJ",
        scaled=False,
    ),
    "horowitz45_scaled": _SCALED,
    "horowitz45_dram": dataclasses.replace(
        _SCALED,
        name="horowitz45_dram",
        source=f"{_HOROWITZ}; other widths by powers of the width; byte: a 64-bit access of DRAM, 1.3 nJ, the lowest",
        byte=1300.0 / 8,
    ),
    "horowitz45_arithmetic": dataclasses.replace(
        _SCALED,
        name="horowitz45_arithmetic",
        source=f"{_HOROWITZ}; other widths by powers of the width; memory costs nothing",
        byte=0.0,
    ),
}


def prices_of(prices: Prices | str) -> Prices:
    """A table itself, or the built-in one of that name; ValueError for any other name."""
    if isinstance(prices, Prices):
        return prices
    if prices not in PRICES:
        raise ValueError(f"energy: expected prices to be a Prices or one of {', '.join(PRICES)}, got {prices!r}")
    return PRICES[prices]
