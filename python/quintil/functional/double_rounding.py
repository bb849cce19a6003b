"""LSQ and Double Rounding."""

from __future__ import annotations

import torch
from torch import Tensor

from quintil import _library  # noqa: F401  (registers the ops)

_lsq_quantize = torch.ops.quintil.lsq_quantize.default
_double_round = torch.ops.quintil.double_round.default
_double_round_quantize = torch.ops.quintil.double_round_quantize.default


def lsq_quantize(
    x: Tensor,
    scale: Tensor,
    bits: int,
    *,
    signed: bool = False,
    offset: Tensor | None = None,
    mask_on: str = "scaled",
) -> Tensor:
    """A uniform quantiser that learns its step, and its offset where one is given [DR D10, D11, D13].

    With u = (x - offset) / scale: y = clamp(round(u), lo, hi) * scale + offset, ties to even. The range lo..hi is
    0..2^bits-1, or -2^(bits-1)..2^(bits-1)-1 if `signed` (-1..1 for one bit).
    x: float tensor of any shape. scale: float, 0-dim or one per x.size(0), positive. offset: float, 0-dim. bits: 1..8.
    Returns y in x's shape and dtype. NaN stays NaN.
    Gradients, with N elements per step and c = 1 / sqrt(N * hi): dx = g inside lo <= u <= hi, else 0;
    dscale = c * sum of g * (lo below, hi above, else round(u) - u); doffset = c * sum of g outside.
    mask_on='rounded' tests round(u) instead of u, as torch's own learnable fake quantiser does.
    """
    return _lsq_quantize(x, scale, bits, signed=signed, offset=offset, mask_on=mask_on)


def double_round(codes: Tensor, from_bits: int, to_bits: int, *, rounding: str = "half_even") -> Tensor:
    """The integers of a lower width from the stored ones: clamp(round(q / 2^(from_bits - to_bits))) [DR D2, D4, D5].

    codes: int8 of any shape. 1 <= to_bits <= from_bits <= 8. The range is -2^(to_bits-1)..2^(to_bits-1)-1, or -1..1 for
    one bit. rounding: 'half_even', 'half_up' or 'floor' (an arithmetic shift). Returns int8.
    """
    return _double_round(codes, from_bits, to_bits, rounding=rounding)


def double_round_quantize(
    x: Tensor,
    scale: Tensor,
    from_bits: int,
    to_bits: int,
    *,
    rounding: str = "half_even",
    chain_pow2: bool = False,
    weight_source: str = "stored",
    mask_on: str = "scaled",
    scale_residual: str = "double",
    scale_grad_sum: str = "channel",
) -> Tensor:
    """Weights at `to_bits` bits as a second rounding of the stored integers of `from_bits` bits [DR D1-D8].

    With D = from_bits - to_bits: q = double_round(clamp(round(x / scale)), from_bits, to_bits), y = q * (scale * 2^D).
    x: float tensor of any shape. scale: the stored step, float, 0-dim or one per x.size(0), positive.
    1 <= to_bits <= from_bits <= 8. Returns y in x's shape and dtype. NaN stays NaN.
    Gradients, with u = x / (scale * 2^D), the range lo..hi of `to_bits` (hi = 1 for one bit), N elements per step and
    c = 1 / sqrt(N * hi): dx = g inside lo <= u <= hi, else 0; dscale = c * sum of g * (lo below, hi above, else q - u).
    Options: chain_pow2 multiplies dscale by 2^D, the exact chain rule. rounding: 'half_even', 'half_up' or 'floor'
    (a plain shift) of the second rounding; the first one rounds half to even. weight_source='float' rounds u at once
    instead of the stored integers. mask_on='rounded' tests the rounded u, before any clamp, instead of u.
    scale_residual='single' compares with round(u) instead of q. scale_grad_sum='all' gives every channel the sum over
    all of them.
    """
    return _double_round_quantize(
        x,
        scale,
        from_bits,
        to_bits,
        rounding=rounding,
        chain_pow2=chain_pow2,
        weight_source=weight_source,
        mask_on=mask_on,
        scale_residual=scale_residual,
        scale_grad_sum=scale_grad_sum,
    )
