"""HDQT: Hadamard-domain training with 4-bit integers and narrow accumulators [HDQT 2.2-2.6]."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from .base import Scheme

SITES = ("fw", "fa", "b1w", "b1g", "b2a", "b2g")
FORWARD_SITES = ("fw", "fa")
DC_ROWS = ("together", "separate")
WEIGHT_QUANTIZERS = ("absmax", "vecq")
ACCUMULATOR_PRESETS = ("uniform", "iclr2023", "response", "collas2024", "head")

_UNLIMITED = 32  # accumulator bits from which nothing is clamped


@dataclasses.dataclass(frozen=True)
class HDQT(Scheme):
    """All three products of a layer (forward, input gradient B1, weight gradient B2) on integer operands.

    bits: width of every operand's codes, 2..8.
    accumulator_bits: width of the forward accumulator, 4..32; 32 has no limit [H3].
    tile_size: products that share one forward accumulator; 0 = the whole sum.
    hadamard: blocks of the backward transforms [H6]: 'padded', 'divisor', 'binary', 'none', or 'none_scaled' (no
        transform, yet divided by its order; for parity with one published ablation).
    hadamard_block: largest block order of 'padded', a power of two.
    stochastic: operands that round stochastically while gradients are computed [H8]: any of 'fw', 'fa' (forward
        weight, activation), 'b1w', 'b1g' (B1 weight, gradient), 'b2a', 'b2g' (B2 activation, gradient). The others,
        and everything in evaluation, round to nearest. Any order is accepted; it is stored in the order given here.
    range_fraction: part of max |x| that the forward codes span [H1], in (0, 1].
    backward_accumulator_bits: the same limit for B1 and B2; None = accumulator_bits.
    weight_gradient_accumulator_bits: the limit of B2 alone; None = that of B1.
    backward_tile_size: products that share one backward accumulator; 0 = the whole sum [H9, H10].
    accumulate: 'tile_end' limits finished tile sums, 'every_mac' every partial sum (a real narrow register).
    overflow: 'saturate' or 'wrap' (two's complement).
    requantize: False keeps the transformed weight and activation codes of the backward as exact integers; not
        available with hadamard='binary', whose unequal blocks are scaled before they are quantised again.
    dc_row: 'separate' sets the first row of every block apart in B2 [H23]: the plain sum of the block's rows, after a
        ReLU far larger than the others. It has 8-bit codes and an accumulator without limit, an exception to `bits` for
        one row per block, and leaves the others a step of their own. 'padded' and 'divisor' blocks only; where they
        have order 1 (an odd number of rows under 'divisor') nothing is set apart.
    ste: gradient through the forward quantisers [H11]: 'identity', 'clip' (0 where [H1] clipped) or 'raw' (0 where
        |x| exceeds the largest code in unscaled units, as published).
    conv_backward: 'per_sample' (steps, transforms and limits per image [H12]) or 'batch'.
    tile_order: which products of a convolution share a tile: 'khwc' (taps, then channels) or 'chw' (as published).
    weight_quantizer: what a weight's codes are: 'absmax', multiples of a step up to the range [H1], or 'vecq', twice
        VecQ's half-integers of `bits` - 1 bits, odd integers without 0, their step half of VecQ's length [VECQ V10].
        The forward and B1 take these codes; of a bell-shaped weight they are larger, so narrow accumulators saturate
        more often. Files keep the float weight. Not with 'fw' in stochastic, nor with ste='clip'.

    A wrong type raises TypeError, a value out of range ValueError, each naming the field.
    """

    name: ClassVar[str] = "hdqt"

    bits: int = 4
    accumulator_bits: int = 8
    tile_size: int = 32
    hadamard: str = "padded"
    hadamard_block: int = 64
    stochastic: tuple[str, ...] = ("b1g", "b2a", "b2g")
    range_fraction: float = 0.975
    backward_accumulator_bits: int | None = None
    weight_gradient_accumulator_bits: int | None = None
    backward_tile_size: int = 32
    accumulate: str = "tile_end"
    overflow: str = "saturate"
    requantize: bool = True
    dc_row: str = "together"
    ste: str = "identity"
    conv_backward: str = "per_sample"
    tile_order: str = "khwc"
    weight_quantizer: str = "absmax"

    def __post_init__(self) -> None:
        self._check_int("bits", 2, 8)
        self._check_int("accumulator_bits", 4, _UNLIMITED)
        self._check_int("tile_size", 0)
        self._check_choice("hadamard", ("padded", "divisor", "binary", "none", "none_scaled"))
        self._check_int("hadamard_block", 1)
        if self.hadamard_block & (self.hadamard_block - 1):
            raise ValueError(self._expected("hadamard_block", "to be a power of two"))
        self._check_subset("stochastic", SITES)
        self._check_fraction("range_fraction")
        self._check_int("backward_accumulator_bits", 4, _UNLIMITED, optional=True)
        self._check_int("weight_gradient_accumulator_bits", 4, _UNLIMITED, optional=True)
        self._check_int("backward_tile_size", 0)
        self._check_choice("accumulate", ("tile_end", "every_mac"))
        self._check_choice("overflow", ("saturate", "wrap"))
        self._check_bool("requantize")
        self._check_choice("dc_row", DC_ROWS)
        self._check_choice("ste", ("identity", "clip", "raw"))
        self._check_choice("conv_backward", ("per_sample", "batch"))
        self._check_choice("tile_order", ("khwc", "chw"))
        self._check_choice("weight_quantizer", WEIGHT_QUANTIZERS)
        if self.weight_quantizer == "vecq":
            if "fw" in self.stochastic:
                raise ValueError(self._expected("stochastic", "without 'fw' with weight_quantizer='vecq'"))
            if self.ste == "clip":
                raise ValueError(self._expected("ste", "'identity' or 'raw' with weight_quantizer='vecq'"))
        if self.dc_row == "separate" and self.hadamard not in ("padded", "divisor"):
            raise ValueError(self._expected("hadamard", "to be 'padded' or 'divisor' with dc_row='separate'"))
        if not self.requantize and self.hadamard == "binary":
            raise NotImplementedError(self._expected("requantize", "True with hadamard='binary'"))

    @classmethod
    def paper(cls, accumulators: str = "collas2024", bits: int = 4, accumulator_bits: int | None = 8) -> HDQT:
        """The authors' published arithmetic: divisor blocks, one backward clamp on the whole sum, 'chw' tiles.

        It sets hadamard='divisor', backward_tile_size=0, ste='raw' and tile_order='chw'; the rest are the defaults.
        `accumulators` names the state of the authors' code, which decides where a limit of A = `accumulator_bits`
        bits acts ("if A < 16": from 16 bits on there is none; None = no limit):

        ============== ===================== ===================== =====================
        accumulators   forward               B1                    B2
        ============== ===================== ===================== =====================
        'uniform'      A                     A                     A
        'iclr2023'     A = 2 `bits`          A = 2 `bits`          A = 2 `bits`
        'response'     A if A < 16           A if A < 16           A if A < 16
        'collas2024'   A if A < 16           A if A < 16           A
        'head'         no limit              no limit              no limit
        ============== ===================== ===================== =====================

        'iclr2023' takes A from `bits` and does not read `accumulator_bits`, nor does 'head'. For `bits` = 4 and
        A = 8 the first four agree. ValueError for an unknown name.
        """
        if accumulators not in ACCUMULATOR_PRESETS:
            names = ", ".join(map(repr, ACCUMULATOR_PRESETS))
            raise ValueError(f"HDQT.paper: expected accumulators to be one of {names}, got {accumulators!r}")
        limit = _UNLIMITED if accumulator_bits is None else accumulator_bits
        if accumulators == "iclr2023" and isinstance(bits, int):
            limit = 2 * bits
        elif accumulators == "head":
            limit = _UNLIMITED
        scheme = cls(
            bits=bits,
            accumulator_bits=limit,
            hadamard="divisor",
            backward_tile_size=0,
            ste="raw",
            tile_order="chw",
        )
        if accumulators in ("response", "collas2024") and 16 <= scheme.accumulator_bits < _UNLIMITED:
            own = scheme.accumulator_bits if accumulators == "collas2024" else None
            return dataclasses.replace(scheme, accumulator_bits=_UNLIMITED, weight_gradient_accumulator_bits=own)
        return scheme

    @classmethod
    def best(cls) -> HDQT:
        """Lost least in a search at 4-bit operands and 8-bit accumulators.

        The forward's codes span 70 % of the largest number, so that the others have finer steps, and 8 products share
        an accumulator, since larger codes saturate sooner; the backward has tiles of 16. All else is HDQT(). Of 20
        variants, trained on 20 classes of CIFAR-100 (ResNet-20, 6 epochs, two seeds) and tested on a fifth of the
        training images, it comes closest to float32: `quintil study best-search`.
        """
        return cls(tile_size=8, backward_tile_size=16, range_fraction=0.7)

    @property
    def input_gradient_bits(self) -> int:
        """Width of B1's accumulator, whichever field gives it."""
        return self.accumulator_bits if self.backward_accumulator_bits is None else self.backward_accumulator_bits

    @property
    def weight_gradient_bits(self) -> int:
        """Width of B2's accumulator, whichever field gives it."""
        own = self.weight_gradient_accumulator_bits
        return self.input_gradient_bits if own is None else own

    def linear_options(self, *, training: bool = True) -> dict[str, Any]:
        """Keyword arguments of `hadamard_linear`, seed apart. `training=False`: the forward rounds to nearest."""
        sites = self.stochastic if training else (s for s in self.stochastic if s not in FORWARD_SITES)
        return {
            "bits": self.bits,
            "accumulator_bits": self.accumulator_bits,
            "tile_size": self.tile_size,
            "backward_accumulator_bits": self.backward_accumulator_bits,
            "weight_gradient_accumulator_bits": self.weight_gradient_accumulator_bits,
            "backward_tile_size": self.backward_tile_size,
            "accumulate": self.accumulate,
            "overflow": self.overflow,
            "hadamard": self.hadamard,
            "hadamard_block": self.hadamard_block,
            "requantize": self.requantize,
            "dc_row": self.dc_row,
            "ste": self.ste,
            "stochastic": ",".join(sites),
            "range_fraction": self.range_fraction,
        }

    def conv2d_options(self, *, training: bool = True) -> dict[str, Any]:
        """Keyword arguments of `hadamard_conv2d`, seed and geometry apart; `training` as in `linear_options`."""
        own = {"conv_backward": self.conv_backward, "tile_order": self.tile_order}
        return {**self.linear_options(training=training), **own}
