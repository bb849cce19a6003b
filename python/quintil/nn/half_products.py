"""Products of half-integers: linear layers and 2-d convolutions on codes q that mean scale * (q + 1/2) [VECQ V10].

Codes of up to 7 bits are multiplied as the odd integers 2q + 1, which fit a byte. At 8 bits they do not, and sums stand
for the halves, with a over the left operand and b over the right one:

    SUM (a + 1/2) (b + 1/2) = SUM (a + 1/2) b + 1/2 SUM (a + 1/2)         where b has 8 bits
                            = SUM a (b + 1/2) + 1/2 SUM (b + 1/2)         where a has 8 bits
                            = SUM a b + 1/2 SUM a + 1/2 SUM (b + 1/2)     where both have

SUM a is the same for all outputs: it is taken once, over channels and then over windows. SUM (b + 1/2) is a constant of
each output, where padding does not cut it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fits_odd(bits: int) -> bool:
    """Whether the odd integers of such codes fit a byte."""
    return bits < 8


def _zero2(bits: int) -> int:
    """Twice the code of zero that the integer products take: that of half-integers where they fit."""
    return -1 if fits_odd(bits) else 0


def _left_sums(x: Tensor, dim: int, bits: int) -> Tensor:
    """SUM a along a dimension of size 1 then, or of odd integers where they fit: float32, which is exact up to 2^24."""
    sums = x.sum(dim, True, dtype=torch.int32)
    return (2 * sums + x.size(dim) if fits_odd(bits) else sums).float()


def _half_step(x_scale: Tensor, bits: int) -> Tensor:
    """Half of what one of `_left_sums` means."""
    return x_scale * (0.25 if fits_odd(bits) else 0.5)


def _per_output(length: Tensor, weight: Tensor) -> Tensor:
    """One value for each output, side by side in memory, which addcmul_ reads fastest."""
    return length.expand(weight.size(0)).contiguous()


def _over_windows(
    sums: Tensor, kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    """Sums over the taps of every window: float [N, 1, H, W] -> [N, 1, H', W']; padding adds nothing."""
    sums = F.pad(sums, [padding[1], padding[1], padding[0], padding[0]])
    for i in range(2):
        windows = sums.unfold(2 + i, dilation[i] * (kernel[i] - 1) + 1, stride[i])
        sums = windows[..., :: dilation[i]].sum(-1)
    return sums


def linear(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    alpha: Tensor,
    sums: Tensor,
    bias: Tensor | None,
    x_bits: int,
    weight_bits: int,
    relu: bool = False,
) -> Tensor:
    """x: int8 [..., K] of x_bits bits; weight: int8 [N, K] of weight_bits; x_scale: 0-dim; alpha: 0-dim or [N]; sums:
    [N], of the levels of each output times alpha; bias: [N]; relu: 0 for what is negative. Returns float32 [..., N].
    """
    rest = bias
    if not fits_odd(x_bits):
        halves = 0.5 * x_scale * sums
        rest = halves if bias is None else bias.float() + halves
    whole = fits_odd(weight_bits)
    output = torch.ops.quintil.int_linear(
        x, x_scale, weight, alpha, rest, x_zero2=_zero2(x_bits), weight_zero2=_zero2(weight_bits), relu=relu and whole
    )
    if not whole:
        output.addcmul_(_left_sums(x, -1, x_bits), _per_output(_half_step(x_scale, x_bits) * alpha, weight))
        output = output.relu_() if relu else output
    return output


def conv2d(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    alpha: Tensor,
    sums: Tensor,
    bias: Tensor | None,
    geometry: list[int],
    x_bits: int,
    weight_bits: int,
    relu: bool = False,
) -> Tensor:
    """As `linear`, for x [N, C, H, W]; geometry: stride, padding and dilation, rows before columns."""
    stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:]
    padded = padding[0] > 0 or padding[1] > 0
    rest = bias
    if not fits_odd(x_bits) and not padded:
        halves = 0.5 * x_scale * sums
        rest = halves if bias is None else bias.float() + halves
    whole = fits_odd(weight_bits) and (fits_odd(x_bits) or not padded)
    output = torch.ops.quintil.int_conv2d(
        x, x_scale, weight, alpha, rest, stride, padding, dilation, x_zero2=_zero2(x_bits),
        weight_zero2=_zero2(weight_bits), relu=relu and whole,
    )  # fmt: skip
    # In place: a second image of this size would cost more than a pass over it.
    if not fits_odd(weight_bits):
        left = _over_windows(_left_sums(x, 1, x_bits), weight.shape[2:], stride, padding, dilation)
        lengths = _per_output(_half_step(x_scale, x_bits) * alpha, weight)
        output.addcmul_(left, lengths.reshape(-1, 1, 1))
    if not fits_odd(x_bits) and padded:
        levels = (weight + 0.5) * alpha.reshape(-1, 1, 1, 1)
        half = (0.5 * x_scale).expand(1, x.size(1), x.size(2), x.size(3))
        output.add_(F.conv2d(half, levels, None, stride, padding, dilation))
    return output.relu_() if relu and not whole else output
