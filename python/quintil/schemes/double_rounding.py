"""Double Rounding: one model of integers whose layers switch their width at run time [DR 2.1-2.4]."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterable
from typing import ClassVar

from .base import Scheme

ROUNDINGS = ("half_even", "half_up", "floor")


@dataclasses.dataclass(frozen=True)
class DoubleRounding(Scheme):
    """Weights are stored at the highest width alone; each lower width is a second rounding of those integers.

    bits: widths that a layer can have, 1..8, the highest of them at least 2 and stored. Any order is accepted. Weight
        and input of a layer share one width; one bit means the values -1, 0, 1 for weights.
    activation_offset: inputs have a learned offset beside the step, for layers whose input has both signs [D13].
    per_channel: one weight step per output channel, else one per layer.
    rounding: the second rounding [D5]: 'half_even', 'half_up' or 'floor' (a plain shift, as AdaBits and Bit-Mixer do).
    chain_pow2: the exact chain rule for the weight step, 2^D times the published gradient [D8].
    switch_norm: every BatchNorm has parameters and statistics per width [D19].
    skip_ends: the first and the last layer stay in float32.
    activation_signed: inputs have codes -2^(b-1)..2^(b-1)-1 instead of 0..2^b-1 [D10].
    weight_init: where a weight's step starts: 'lsq', at the rule of LSQ+ per channel and of LSQ per tensor [D9], or
        'vecq', at the length of VecQ's levels for that weight, with the best direction [VECQ V6, V7].
    activation_init: where an input's step starts: 'percentile' of the values, or 'lsq', from their mean size [D12].
        Inputs with an offset start from their extremes.
    weight_source: 'stored', or 'float': a lower width is rounded once, from the float weight, which must be kept.
    shared_step: False gives every width a weight step of its own, and rounds it from the float weight.
    transitional_norm: a BatchNorm has parameters and statistics per pair of widths, of the layer before it and the one
        before that; needs switch_norm [D19].
    mask_on: the gradient passes where the 'scaled' or where the 'rounded' value lies in the range [D6].
    scale_residual: 'single' takes the weight step's gradient from the value rounded once, 'double' from the integer
        that is used [D7].
    scale_grad_sum: the weight step of a channel gets the gradient of its 'channel', or of 'all' channels together.

    A wrong type raises TypeError, a value out of range ValueError, each naming the field.
    """

    name: ClassVar[str] = "double_rounding"

    bits: tuple[int, ...] = (8, 6, 4, 2)
    activation_offset: bool = False
    per_channel: bool = True
    rounding: str = "half_even"
    chain_pow2: bool = False
    switch_norm: bool = True
    skip_ends: bool = True
    activation_signed: bool = False
    activation_init: str = "percentile"
    weight_init: str = "lsq"
    weight_source: str = "stored"
    shared_step: bool = True
    transitional_norm: bool = False
    mask_on: str = "scaled"
    scale_residual: str = "double"
    scale_grad_sum: str = "channel"

    def __post_init__(self) -> None:
        self._check_bits()
        for field in ("activation_offset", "per_channel", "chain_pow2", "switch_norm", "skip_ends",
                      "activation_signed", "shared_step", "transitional_norm"):  # fmt: skip
            self._check_bool(field)
        self._check_choice("rounding", ROUNDINGS)
        self._check_choice("activation_init", ("percentile", "lsq"))
        self._check_choice("weight_init", ("lsq", "vecq"))
        self._check_choice("weight_source", ("stored", "float"))
        self._check_choice("mask_on", ("scaled", "rounded"))
        self._check_choice("scale_residual", ("double", "single"))
        self._check_choice("scale_grad_sum", ("channel", "all"))
        if self.transitional_norm and not self.switch_norm:
            raise ValueError(self._expected("transitional_norm", "False without switch_norm"))

    @classmethod
    def paper(cls, bits: Iterable[int] = (8, 6, 4, 2)) -> DoubleRounding:
        """The arithmetic of the authors' code, whose step gradients are not those of the paper [DR 3].

        It sets scale_residual='single' and scale_grad_sum='all'. How the authors train (learning rates per width, a
        second optimiser step) is `quintil.bits.SwitchConfig.paper`.
        """
        return cls(bits=tuple(bits), scale_residual="single", scale_grad_sum="all")

    def _check_bits(self) -> None:
        """Different widths in 1..8, stored descending; two values at least at the highest."""
        if isinstance(self.bits, str) or not isinstance(self.bits, Iterable):
            raise TypeError(self._expected("bits", "to be a tuple of ints"))
        widths = tuple(self.bits)
        if not all(isinstance(b, numbers.Integral) and not isinstance(b, bool) for b in widths):
            raise TypeError(self._expected("bits", "to be a tuple of ints"))
        if not widths or len(set(widths)) < len(widths) or min(widths) < 1 or not 2 <= max(widths) <= 8:
            raise ValueError(self._expected("bits", "to be different widths in 1..8, the highest at least 2"))
        object.__setattr__(self, "bits", tuple(sorted(map(int, widths), reverse=True)))
