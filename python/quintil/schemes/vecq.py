"""VecQ: weights as a length times half-integers, direction first [VECQ 2.1-2.7]."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from .base import Scheme

ACTIVATION_PLACES = ("input", "output", "before_activation")


@dataclasses.dataclass(frozen=True)
class VecQ(Scheme):
    """Weights of 1 to 16 bits in closed form, with as many values above zero as below; activations where wanted.

    weight_bits: of every weight [V1].
    activation_bits: of activations, with running averages of their step and length [V11, V12]; None = float32.
    drive: what the length is [V6, V13]: 'projection' of the weight on its half-integers, the ratio of norms, 'norm', of
        the authors' later code, or 'none', the step itself (ClipQ). Activations take the same, 'none' as 'projection'.
    activation_place: a layer quantises its 'input', so what follows the non-linearity before, or its 'output'; or, in
        float32 products, modules of a non-linearity quantise theirs, 'before_activation': nn.ReLU, nn.ReLU6,
        nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid. Functions that a forward calls are not seen.
    momentum: of the running averages, 0 <= momentum < 1.
    per_channel: a step and a length for each x[i] of a weight, else one for the tensor.
    group_size: > 0: for each run of so many elements of x[i]; it must divide them.
    quantize_bias: biases as well, each as one tensor, as published.
    lambda_mode: the step is that for bell-shaped numbers, 'table', or the best on the weight itself, 'search' [V4, V7].
    levels: 'vecq', or those of its predecessor, 'ul2q': around the weight's mean, the length a table's, not fitted
        [V14]. Then products are those of float32 and files keep the float weight; drive counts for activations alone.
    tie: where a weight halfway between two of uL2Q's levels goes: to the 'even' code, or 'away' from the mean.
    sigma: standard deviation of the 'population', or 'unbiased' as in the authors' later code.
    grad_mode, grad_ratio: the gradient of weights [V8]: 'ste', 'pwl' or 'pwl_c'. Evaluation has no ratio.
    ema_debias: evaluation removes what is left of the averages' start at 1.

    A wrong type raises TypeError, a value out of range ValueError, each naming the field.
    """

    name: ClassVar[str] = "vecq"

    weight_bits: int = 4
    activation_bits: int | None = None
    drive: str = "projection"
    activation_place: str = "input"
    momentum: float = 0.9
    per_channel: bool = False
    group_size: int = 0
    quantize_bias: bool = True
    lambda_mode: str = "table"
    levels: str = "vecq"
    tie: str = "even"
    sigma: str = "population"
    grad_mode: str = "ste"
    grad_ratio: float = 0.0
    ema_debias: bool = False

    def __post_init__(self) -> None:
        self._check_int("weight_bits", 1, 16)
        self._check_int("activation_bits", 1, 16, optional=True)
        self._check_int("group_size", 0)
        for field in ("per_channel", "quantize_bias", "ema_debias"):
            self._check_bool(field)
        self._check_choice("drive", ("projection", "norm", "none"))
        self._check_choice("activation_place", ACTIVATION_PLACES)
        self._check_choice("lambda_mode", ("table", "search"))
        self._check_choice("sigma", ("population", "unbiased"))
        self._check_choice("grad_mode", ("ste", "pwl", "pwl_c"))
        self._check_share("momentum", including_one=False)
        self._check_share("grad_ratio", including_one=True)
        self._check_choice("levels", ("vecq", "ul2q"))
        self._check_choice("tie", ("even", "away"))
        if self.levels == "ul2q" and self.lambda_mode != "table":
            raise ValueError(self._expected("lambda_mode", "'table' with levels 'ul2q'"))
        if self.tie == "away" and (self.levels != "ul2q" or self.grad_mode != "ste"):
            raise ValueError(self._expected("tie", "'even' without levels 'ul2q' and grad_mode 'ste'"))
        if self.grad_ratio and self.grad_mode == "ste":
            raise ValueError(self._expected("grad_ratio", "0 with grad_mode 'ste'"))

    @property
    def stored_bits(self) -> int:
        return self.weight_bits

    @classmethod
    def paper(cls, weight_bits: int, activation_bits: int | None = None, code: str = "paper") -> VecQ:
        """The paper's equations, which are the defaults; code='autoqnn': as the first author's later code computes."""
        if code not in ("paper", "autoqnn"):
            raise ValueError(f"VecQ.paper: expected code to be one of 'paper', 'autoqnn', got {code!r}")
        own = {"drive": "norm", "sigma": "unbiased"} if code == "autoqnn" else {}
        return cls(weight_bits, activation_bits, **own)
