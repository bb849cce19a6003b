"""LUQ: 4-bit operands, gradients as powers of two; a baseline of HDQT [HDQT 2.7]."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from .base import Scheme

LEVELS = ("corrected", "original")
_MOST_SAMPLES = 1024


@dataclasses.dataclass(frozen=True)
class LUQ(Scheme):
    """4-bit integers in the forward (SAWB), zero and powers of two as gradients, multiplied as integers.

    bits: 4, the width that SAWB's coefficients belong to [H13].
    samples: draws of the gradient per backward, 1..1024; the gradients of the layer are the means [H16].
    accumulator_bits: limit of the forward sums, 4..32; none from 16 bits on, as published [H17].
    tile_size: products that share one forward accumulator; 0 = the whole sum, as published.
    levels: 'corrected': 15 weights -7..7, inputs 0..15 or, once a layer has seen a negative one in training, -7..7, and
        gradients of 15 levels. 'original', as published: weights -8..8, inputs 0..15 or -8..15, gradients of 17 levels
        and more, twice as fine, which start from the signed maximum; the products of the backward are float32 then.

    A wrong type raises TypeError, a value out of range ValueError, each naming the field.
    """

    name: ClassVar[str] = "luq"

    bits: int = 4
    samples: int = 1
    accumulator_bits: int = 32
    tile_size: int = 0
    levels: str = "corrected"

    def __post_init__(self) -> None:
        self._check_int("bits", 4, 4)
        self._check_int("samples", 1, _MOST_SAMPLES)
        self._check_int("accumulator_bits", 4, 32)
        self._check_int("tile_size", 0)
        self._check_choice("levels", LEVELS)

    @property
    def limit_bits(self) -> int:
        """Width of the forward accumulator as the product takes it; 32 = no limit."""
        return self.accumulator_bits if self.accumulator_bits < 16 else 32
