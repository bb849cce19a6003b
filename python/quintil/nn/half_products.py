"""Products of half-integers: linear layers and 2-d convolutions on codes q that mean scale * (q + 1/2) [VECQ V10].

Codes of up to 7 bits are multiplied as the odd integers 2q + 1, which fit a byte. At 8 bits they do not, and sums stand
for the halves, with a over the left operand and b over the right one:

    SUM (a + 1/2) (b + 1/2) = SUM a b + 1/2 SUM a + 1/2 SUM (b + 1/2)

SUM a comes from one more output whose codes are 1; SUM (b + 1/2) is a constant of each output, where padding does not
cut it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fits_odd(bits: int) -> bool:
    """Whether the odd integers of such codes fit a byte."""
    return bits < 8


def extended(weight: Tensor, bits: int) -> Tensor:
    """Codes [O, ...] of a weight as the products take them: beyond 7 bits with one more output of ones."""
    if fits_odd(bits):
        return weight
    return torch.cat([weight, torch.ones_like(weight[:1])])


def _weight_scale(weight: Tensor, alpha: Tensor, is_odd: bool) -> Tensor:
    """Lengths of the outputs, and 1 for the output of ones."""
    if is_odd:
        return alpha
    return torch.cat([alpha.expand(weight.size(0) - 1), torch.ones_like(alpha).reshape(-1)[:1]])


def linear(
    x: Tensor, x_scale: Tensor, weight: Tensor, alpha: Tensor, sums: Tensor, bias: Tensor | None, x_bits: int
) -> Tensor:
    """x: int8 [..., K] of x_bits bits; weight: `extended` codes; alpha: 0-dim or [N]; sums: [N], of the levels of each
    output times alpha; bias: [N]. Returns float32 [..., N].
    """
    is_odd = sums.size(0) == weight.size(0)
    rest = sums.new_zeros(sums.size(0)) if bias is None else bias.float()
    if not fits_odd(x_bits):
        rest = rest + 0.5 * x_scale * sums
    output = torch.ops.quintil.int_linear(
        x, x_scale, weight, _weight_scale(weight, alpha, is_odd), rest if is_odd else None,
        x_zero2=-1 if fits_odd(x_bits) else 0, weight_zero2=-1 if is_odd else 0,
    )  # fmt: skip
    if is_odd:
        return output
    return output[..., :-1] + output[..., -1:] * (0.5 * alpha) + rest


def conv2d(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    alpha: Tensor,
    sums: Tensor,
    bias: Tensor | None,
    geometry: list[int],
    x_bits: int,
) -> Tensor:
    """As `linear`, for x [N, C, H, W]; geometry: stride, padding and dilation, rows before columns."""
    is_odd = sums.size(0) == weight.size(0)
    stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:]
    padded = padding[0] > 0 or padding[1] > 0
    rest = sums.new_zeros(sums.size(0)) if bias is None else bias.float()
    if not fits_odd(x_bits) and not padded:
        rest = rest + 0.5 * x_scale * sums
    output = torch.ops.quintil.int_conv2d(
        x, x_scale, weight, _weight_scale(weight, alpha, is_odd), rest if is_odd else None, stride, padding, dilation,
        x_zero2=-1 if fits_odd(x_bits) else 0, weight_zero2=-1 if is_odd else 0,
    )  # fmt: skip
    if not is_odd:
        output = output[:, :-1] + output[:, -1:] * (0.5 * alpha).reshape(-1, 1, 1) + rest.reshape(-1, 1, 1)
    if not fits_odd(x_bits) and padded:
        levels = (weight[: sums.size(0)] + 0.5) * alpha.reshape(-1, 1, 1, 1)
        half = (0.5 * x_scale).expand(1, x.size(1), x.size(2), x.size(3))
        output = output + F.conv2d(half, levels, None, stride, padding, dilation)
    return output
