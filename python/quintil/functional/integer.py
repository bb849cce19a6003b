"""Inference on stored codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quintil import _library  # noqa: F401  (registers the ops)

from .shared import pair

_affine_quantize = torch.ops.quintil.affine_quantize.default
_int_linear = torch.ops.quintil.int_linear.default
_int_conv2d = torch.ops.quintil.int_conv2d.default


def affine_quantize(
    x: Tensor, gain: Tensor, shift: Tensor, scale: Tensor, bits: int, *, signed: bool = False
) -> Tensor:
    """Codes of `x * gain + shift` per channel: what a BatchNorm and the quantiser behind it make. For inference.

    x: float [N, C, ...]; gain, shift: float [C]; scale: float, 0-dim, the step; bits: 2..8.
    Returns uint8 codes 0 .. 2^b - 1 or int8 codes -2^(b-1) .. 2^(b-1) - 1, clamp(rint(value / scale)) [DR D10], of x's
    size, channels last in memory. No gradient. TypeError for other dtypes, ValueError for other sizes.
    """
    return _affine_quantize(x, gain, shift, scale, bits, signed=signed)


def int_linear(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    *,
    x_zero2: int = 0,
    weight_zero2: int = 0,
    residual: Tensor | None = None,
    relu: bool = False,
    out_scale: Tensor | None = None,
    out_bits: int = 8,
) -> Tensor:
    """`x @ weight.T + bias` on stored codes, where code q means scale * (q - zero2 / 2). For inference, no gradient.

    x: int8 or uint8 [..., K]; weight: int8 [N, K]; x_scale: float, 0-dim; weight_scale: float, 0-dim or [N];
    bias: float [N]. x_zero2, weight_zero2: twice the code of 0, -512..512; -1 is the zero of half-integer levels.
    residual: float [..., N], added; relu: 0 for what is negative then.
    Returns float32 [..., N]: the exact integer sum times weight_scale, times x_scale, + bias, + residual in this order.
    out_scale: float, 0-dim; with it the result is uint8 codes of that step, clamp(rint(value / out_scale), 0,
    2^out_bits - 1), out_bits 2..8: the input of a next layer.
    8-bit codes with an odd zero2 take a slower kernel. Raises ValueError where sums could leave int32: K above 65,793
    for uint8 without zero points, less with them.
    """
    return _int_linear(
        x, x_scale, weight, weight_scale, bias, x_zero2=x_zero2, weight_zero2=weight_zero2, residual=residual,
        relu=relu, out_scale=out_scale, out_bits=out_bits,
    )  # fmt: skip


def int_conv2d(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    *,
    x_zero2: int = 0,
    weight_zero2: int = 0,
    residual: Tensor | None = None,
    relu: bool = False,
    out_scale: Tensor | None = None,
    out_bits: int = 8,
) -> Tensor:
    """2-d convolution on stored codes, where code q means scale * (q - zero2 / 2). For inference, no gradient.

    x: int8 or uint8 [N, C, H, W], contiguous or channels_last (faster; the output keeps it);
    weight: int8 [O, C, kh, kw]; scales, bias, zero points, residual, relu, out_scale and errors as in
    `int_linear`, with O outputs. Padding is real zeros: it contributes nothing, whatever x_zero2. No groups.
    Returns float32 or codes [N, O, H', W'].
    """
    return _int_conv2d(
        x, x_scale, weight, weight_scale, bias, pair(stride), pair(padding), pair(dilation), x_zero2=x_zero2,
        weight_zero2=weight_zero2, residual=residual, relu=relu, out_scale=out_scale, out_bits=out_bits,
    )  # fmt: skip
