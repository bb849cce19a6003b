"""The energy ratios that HDQT's authors name [HDQT 5.5], derived again from counts and prices, beside butterflies."""

from __future__ import annotations

from dataclasses import dataclass

from quintil.studies.counts import Operation, transform_additions
from quintil.studies.prices import Prices, prices_of

PUBLISHED = {8: 4.5, 12: 3.4, 16: 3.3}  # accumulator bits -> how many times less energy than the reference
PUBLISHED_WITHOUT = 17.7  # the transforms left out; accumulator and reference are not named
REFERENCES = {
    "int16": (Operation("multiply", "int", 16), Operation("add", "int", 32)),
    "float16": (Operation("multiply", "float", 16), Operation("add", "float", 16)),
    "float32": (Operation("multiply", "float", 32), Operation("add", "float", 32)),
}
_SUM_BITS = 16  # of a butterfly's integers: 15 * 2048 fits [HDQT 2.3]


@dataclass(frozen=True)
class TransformRatios:
    """Energy of the reference as a multiple of HDQT's, products and transforms alone, at one accumulator width.

    without: no transforms. dense: each a matrix product of n^2 multiply-accumulates per vector, as the authors
    modelled. butterflies: n log2 n additions of 16-bit integers in 'binary' blocks. published: the authors' value.
    """

    accumulator_bits: int
    published: float
    without: float
    dense: float
    butterflies: float


def transform_ratios(
    prices: Prices | str = "horowitz45_scaled",
    reference: str = "int16",
    *,
    rows: int = 128,
    width: int = 405,
    bits: int = 4,
) -> list[TransformRatios]:
    """One training step of a hidden layer [rows, width] x [width, width]; a row per accumulator of `PUBLISHED`.

    Three products of rows x width x width multiply-accumulates: `bits`-bit multipliers and an adder of the
    accumulator's width, against the reference's. Four transforms: along the outputs of the weight (width vectors) and
    the gradient (rows vectors), along the rows of the input and the gradient (width vectors each). Quantisation and
    memory are left out. ValueError for an unknown reference or table, or a width or rows below 1.
    """
    if reference not in REFERENCES:
        raise ValueError(
            f"transform_ratios: expected reference to be one of {', '.join(REFERENCES)}, got {reference!r}"
        )
    if min(width, rows) < 1:
        raise ValueError(f"transform_ratios: expected width and rows of at least 1, got {width} and {rows}")
    table = prices_of(prices)
    macs = 3 * rows * width * width
    dense = (width + rows) * width**2 + 2 * width * rows**2
    additions = (width + rows) * transform_additions(width, "binary") + 2 * width * transform_additions(rows, "binary")
    whole = macs * sum(map(table.picojoules, REFERENCES[reference]))
    butterflies = additions * table.picojoules(Operation("transform", "int", _SUM_BITS))
    found = []
    for accumulator, published in PUBLISHED.items():
        mac = table.picojoules(Operation("multiply", "int", bits))
        mac += table.picojoules(Operation("add", "int", accumulator))
        found.append(
            TransformRatios(
                accumulator,
                published,
                whole / (macs * mac),
                whole / ((macs + dense) * mac),
                whole / (macs * mac + butterflies),
            )
        )
    return found
