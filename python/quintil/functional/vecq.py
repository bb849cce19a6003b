"""VecQ: half-integer levels."""

from __future__ import annotations

import torch
from torch import Tensor

from quintil import _library  # noqa: F401  (registers the ops)

_vecq_step = torch.ops.quintil.vecq_step.default
_vecq_quantize = torch.ops.quintil.vecq_quantize.default
_vecq_codes = torch.ops.quintil.vecq_codes.default
_vecq_activation = torch.ops.quintil.vecq_activation.default
_vecq_losses = torch.ops.quintil.vecq_losses.default


def vecq_step(
    x: Tensor,
    bits: int,
    *,
    per_channel: bool = False,
    group_size: int = 0,
    sigma: str = "population",
    lambda_mode: str = "table",
) -> Tensor:
    """The step between the half-integer levels of `vecq_quantize` [VECQ V4, V5, V7].

    x: float tensor of any shape. bits: 1..16. Returns float32: 0-dim for the whole tensor, [C] with `per_channel`, one
    for each x[i] of x [C, ...], or [C, G] with a group_size > 0, one for each run of `group_size` elements of x[i].
    lambda_mode: 'table', the best step for numbers of a normal distribution, lambda * standard deviation + 1e-7;
    'search', the step of the smallest orientation loss on x itself, from sorting x once: never worse, slower.
    sigma: 'population', or 'unbiased' (n - 1; 0 for one element). Not differentiable. NaN or Inf gives NaN.
    """
    return _vecq_step(x, bits, per_channel=per_channel, group_size=group_size, sigma=sigma, lambda_mode=lambda_mode)


def vecq_quantize(
    x: Tensor,
    bits: int,
    *,
    step: Tensor | None = None,
    drive: str = "projection",
    alpha: Tensor | None = None,
    grad_mode: str = "ste",
    grad_ratio: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers as a length times half-integers: direction first (steer), then length (drive) [VECQ V3, V6, V8, V9, V13].

    codes = clamp(round(x / step - 1/2), -2^(bits-1), 2^(bits-1)-1), v = codes + 1/2, y = alpha * v; ties to even, zeros
    of either sign have code 0. No level is 0.
    x: float tensor of any shape. bits: 1..16. step: float, as `vecq_step` returns it, by default of the whole tensor.
    alpha: given lengths, float, in the sizes of step; by default drive decides: 'projection', <v,x> / (<v,v> + 1e-7),
    'norm', |x| / (|v| + 1e-7), or 'none', the step itself (ClipQ).
    Returns y in x's shape and dtype, the codes (int8; int16 beyond 8 bits) and float32 alpha, in the sizes of step.
    Only y is differentiable; step and alpha are constants for its gradient. grad_mode: 'ste', the identity; 'pwl', the
    identity, and y moves by the fraction grad_ratio in 0..1 towards x; 'pwl_c', as 'pwl' with x clipped to the range of
    the values that occur, and no gradient outside it.
    NaN or Inf in x makes all that shares its step NaN, with code 0, unless step and alpha are given.
    """
    return _vecq_quantize(x, bits, step=step, drive=drive, alpha=alpha, grad_mode=grad_mode, grad_ratio=grad_ratio)


def vecq_codes(x: Tensor, bits: int, step: Tensor) -> Tensor:
    """The codes of `vecq_quantize` for a given step, without their values: int8, int16 beyond 8 bits [VECQ V9]."""
    return _vecq_codes(x, bits, step)


def vecq_activation(
    x: Tensor,
    bits: int,
    averages: Tensor,
    *,
    training: bool,
    momentum: float = 0.9,
    drive: str = "projection",
    sigma: str = "population",
) -> tuple[Tensor, Tensor]:
    """Activations on half-integer levels with running averages of step and length [VECQ V11, V12].

    x: float tensor of any shape. bits: 1..16. averages: float32 [3], step, length, and the share of both that is still
    their start; start with ones. training: y has the step and length of x, and the averages move,
    momentum * averages + (1 - momentum) * (step, length, 0); else y has those of `averages`, which stay. momentum:
    0 <= momentum < 1. drive, sigma: as in `vecq_quantize`, `vecq_step`. An empty x moves nothing.
    Returns y in x's shape and dtype, its gradient the identity, and the new averages.
    """
    return _vecq_activation(x, bits, averages, training=training, momentum=momentum, drive=drive, sigma=sigma)


def vecq_losses(x: Tensor, y: Tensor, *, per_channel: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """How far y is from x: orientation loss 1 - cos(x, y), modulus loss |x - y|^2, and their sum [VECQ V2].

    x, y: float, same sizes. Returns three float64 tensors, 0-dim, or [C] with `per_channel` for x [C, ...]. Not
    differentiable. The orientation loss is 0 where x is zero, 1 where only y is.
    """
    return _vecq_losses(x, y, per_channel=per_channel)
