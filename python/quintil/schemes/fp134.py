"""FP134: 8-bit floats with integer scales per tensor; a baseline of HDQT [HDQT 2.8]."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from .base import Scheme

#: Significant bits per binade from the top, hidden bit included [H18].
FORMATS = {"fp134": (5, 5, 5, 5, 5, 5, 5, 4, 3, 2, 1, 0), "fp130": (1, 1, 1, 1, 1, 1, 1, 0)}


@dataclasses.dataclass(frozen=True)
class FP134(Scheme):
    """Outputs of layers, their errors and the weight gradients are small floats; products are float32 [H18-H22].

    Each of these tensors of a layer has an integer scale, which moves by at most one per training step [H20].

    weights: 'fp134' or 'fp130' (4 bits), the format of weights. They are rounded with full=True alone, so that without
        it this choice changes nothing, as in the code behind the published numbers.
    errors_stochastic: errors round stochastically, else to nearest. Weight gradients always round stochastically.
    full: round the inputs and weights of the layers as well, weights with a scale per output channel.
    activations: 'fp134' or 'fp130', the format of everything but weights.
    hysteresis: weights stay on their side of the previous rounded weight [H22]; needs full.
    float_master: the learners of `quintil.continual` keep parameters and momentum in floats of 1 + 6 + 9 bits [H22];
        elsewhere call `quintil.nn.round_master_(optimizer)`.

    A wrong type raises TypeError, a value out of range ValueError, each naming the field.
    """

    name: ClassVar[str] = "fp134"

    weights: str = "fp134"
    errors_stochastic: bool = True
    full: bool = False
    activations: str = "fp134"
    hysteresis: bool = False
    float_master: bool = True

    def __post_init__(self) -> None:
        self._check_choice("weights", FORMATS)
        self._check_choice("activations", FORMATS)
        for field in ("errors_stochastic", "full", "hysteresis", "float_master"):
            self._check_bool(field)
        if self.hysteresis and not self.full:
            raise ValueError(self._expected("hysteresis", "False without full"))

    @property
    def stored_bits(self) -> int:
        """Weights are stored in 16 bits with `float_master`, else in 32."""
        return 16 if self.float_master else 32
