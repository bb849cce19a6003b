"""Products of half-integers whose weights have several lengths for an output, of groups and around zeros [VECQ V10].

They take weights, and images that hold zeros, as integers centred on 0 and their unit: up to 7 bits the odd integers
2q + 1, a half each; at 8 bits, where these fit no byte, the codes themselves, and sums stand for the halves, as in
`half_products`. An output's weights, in the order in which they are summed, fall into runs of one length: run s are
those from starts[s] to starts[s + 1]. The sums of a run are exact integers; runs add up in float32, one by one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from quintil.nn.half_products import fits_odd


def centred(codes: Tensor, bits: int) -> Tensor:
    """int8 codes of half-integers as integers around 0, int8."""
    return 2 * codes + 1 if fits_odd(bits) else codes


def unit(bits: int) -> float:
    """What one of `centred` means in half-integers, but for the halves of 8 bits."""
    return 0.5 if fits_odd(bits) else 1.0


def run_lengths(alpha: Tensor, outputs: int, bits: int) -> Tensor:
    """Lengths [N, runs] of `centred` weights. alpha: 0-dim, [N] or [N, runs], of half-integers."""
    lengths = alpha if alpha.dim() == 2 else alpha.expand(outputs).unsqueeze(1)
    return lengths * unit(bits)


def linear_runs(
    x: Tensor,
    x_scale: Tensor,
    x_zero2: int,
    weight: Tensor,
    lengths: Tensor,
    starts: list[int],
    bias: Tensor | None,
    weight_bits: int,
) -> Tensor:
    """x: int8 [..., K], code q means x_scale * (q - x_zero2 / 2); weight: centred [N, K]; lengths: [N, runs];
    bias: [N]. Returns float32 [..., N].
    """
    one = len(starts) == 2
    output: Tensor | None = None
    for s in range(len(starts) - 1):
        first, last = starts[s], starts[s + 1]
        part, row = (x, weight) if one else (x[..., first:last], weight[:, first:last])
        added = torch.ops.quintil.int_linear(
            part, x_scale, row, lengths[:, s], bias if s == 0 else None, x_zero2=x_zero2, residual=output
        )
        if not fits_odd(weight_bits):
            sums = 2 * part.sum(-1, True, dtype=torch.int32) - x_zero2 * (last - first)
            added.addcmul_(sums.float(), lengths[:, s] * (0.25 * x_scale))
        output = added
    assert output is not None
    return output


def linear(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    lengths: Tensor,
    starts: list[int],
    bias: Tensor | None,
    x_bits: int,
    weight_bits: int,
) -> Tensor:
    """The same of half-integers x, of x_bits bits."""
    if fits_odd(x_bits):
        return linear_runs(x, x_scale, -1, weight, lengths, starts, bias, weight_bits)
    ones = torch.ones([1, x.size(-1)], dtype=torch.int8)
    halves = linear_runs(ones, 0.5 * x_scale, 0, weight, lengths, starts, bias, weight_bits)
    return linear_runs(x, x_scale, 0, weight, lengths, starts, halves[0], weight_bits)


def conv2d_runs(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    lengths: Tensor,
    starts: list[int],
    bias: Tensor | None,
    geometry: list[int],
    groups: int,
    weight_bits: int,
) -> Tensor:
    """x: int8 [N, groups * C, H, W], integers that mean x_scale each; weight: centred [O, C, kh, kw], whose runs lie in
    C * kh * kw; geometry: stride, padding and dilation, rows before columns. Returns float32 [N, O, H', W'].

    Small groups of one run are multiplied together, with zeros where an output does not look.
    """
    support = torch.ones_like(weight)
    bundle = bundle_of(groups, weight.size(0) // groups) if len(starts) == 2 else 1
    if bundle > 1:
        weight, support = block_diagonal(weight, groups, bundle), block_diagonal(support, groups, bundle)
        starts, groups = [0, weight[0].numel()], groups // bundle
    outputs = weight.size(0) // groups
    found: list[Tensor] = []
    for g in range(groups):
        own = slice_of(g, outputs, weight), slice_of(g, outputs, lengths), slice_of(g, outputs, support)
        image = x[:, g * weight.size(1) : (g + 1) * weight.size(1)]
        own_bias = bias
        if bias is not None:
            own_bias = slice_of(g, outputs, bias)
        mask = own[2] if bundle > 1 else own[2][:1]  # else the same for all outputs
        found.append(_conv2d_of_group(image, x_scale, own[0], own[1], mask, starts, own_bias, geometry, weight_bits))
    output = found[0] if groups == 1 else torch.cat(found, 1)
    return output.contiguous() if x.is_contiguous() else output  # one channel's layout says nothing


def bundle_of(groups: int, outputs: int) -> int:
    """How many groups of so many outputs fill the 32 columns of a panel; it divides their number."""
    found = 1
    for size in range(2, groups + 1):
        if groups % size == 0 and size * outputs <= 32:
            found = size
    return found


def block_diagonal(weight: Tensor, groups: int, bundle: int) -> Tensor:
    """[O, C, kh, kw] of groups -> [O, bundle * C, kh, kw] of groups / bundle, zero at the channels of other groups."""
    kernel = [weight.size(1), weight.size(2), weight.size(3)]
    outputs = weight.size(0) // groups
    own = weight.reshape([groups // bundle, bundle, outputs] + kernel)
    wide = torch.zeros([groups // bundle, bundle, outputs, bundle] + kernel, dtype=weight.dtype)
    for place in range(bundle):
        wide[:, place, :, place] = own[:, place]
    return wide.reshape([weight.size(0), bundle * kernel[0]] + kernel[1:])


def slice_of(group: int, outputs: int, t: Tensor) -> Tensor:
    """The part of a tensor that has an entry per output."""
    return t[group * outputs : (group + 1) * outputs]


def _conv2d_of_group(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    lengths: Tensor,
    support: Tensor,
    starts: list[int],
    bias: Tensor | None,
    geometry: list[int],
    weight_bits: int,
) -> Tensor:
    """A run takes the channels that it touches, with zeros in the place of their other weights.

    support: int8 [O or 1, C, kh, kw], 1 where an output has a weight.
    """
    taps = weight.size(2) * weight.size(3)
    one = torch.ones([])
    output: Tensor | None = None
    for s in range(len(starts) - 1):
        first, last = starts[s], starts[s + 1]
        low, high = first // taps, (last + taps - 1) // taps
        image, kernel = x[:, low:high], weight[:, low:high]
        places = torch.arange(low * taps, high * taps).reshape([1, high - low, weight.size(2), weight.size(3)])
        inside = ((places >= first) & (places < last)).to(torch.int8) * support[:, low:high]
        if low * taps < first or last < high * taps:
            kernel = kernel * inside
        added = torch.ops.quintil.int_conv2d(
            image, x_scale, kernel, lengths[:, s], bias if s == 0 else None, geometry[:2], geometry[2:4], geometry[4:],
            residual=output,
        )  # fmt: skip
        if not fits_odd(weight_bits):
            sums = torch.ops.quintil.int_conv2d(
                image, 0.5 * x_scale, inside, one, None, geometry[:2], geometry[2:4], geometry[4:]
            )
            added.addcmul_(sums, lengths[:, s].reshape(-1, 1, 1))
        output = added
    assert output is not None
    return output


def conv2d(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    lengths: Tensor,
    starts: list[int],
    bias: Tensor | None,
    geometry: list[int],
    groups: int,
    x_bits: int,
    weight_bits: int,
    spread: list[int],
    around: list[int],
) -> Tensor:
    """The same of half-integers x, of x_bits bits.

    spread: the image first gets so many less one zeros between its rows and its columns; around: then zeros around it,
    as `F.pad` takes them.
    """
    image = F.pad(_spread(centred(x, x_bits), spread), around)
    output = conv2d_runs(
        image, x_scale * unit(x_bits), weight, lengths, starts, bias, geometry, groups, weight_bits
    )  # fmt: skip
    if not fits_odd(x_bits):
        ones = torch.ones([1, x.size(1), x.size(2), x.size(3)], dtype=torch.int8)
        image = F.pad(_spread(ones, spread), around)
        output.add_(conv2d_runs(image, 0.5 * x_scale, weight, lengths, starts, None, geometry, groups, weight_bits))
    return output


def conv_transpose2d(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    lengths: Tensor,
    starts: list[int],
    bias: Tensor | None,
    stride: list[int],
    dilation: list[int],
    around: list[int],
    groups: int,
    x_bits: int,
    weight_bits: int,
) -> Tensor:
    """x: int8 half-integers [N, C, H, W]; weight: centred and turned by `as_forward`; around: `transposed_padding`.

    A convolution of the image with stride - 1 zeros between its rows and columns: exact, as all sums.
    """
    geometry = [1, 1, 0, 0, dilation[0], dilation[1]]
    return conv2d(
        x, x_scale, weight, lengths, starts, bias, geometry, groups, x_bits, weight_bits, stride, around
    )  # fmt: skip


def as_forward(weight: Tensor, groups: int) -> Tensor:
    """[I, O / groups, kh, kw] of a transposed convolution -> [O, I / groups, kh, kw] of one that does the same."""
    inputs, outputs = weight.size(0) // groups, weight.size(1)
    kernel = [weight.size(2), weight.size(3)]
    turned = weight.reshape([groups, inputs, outputs] + kernel).transpose(1, 2)
    return turned.reshape([groups * outputs, inputs] + kernel).flip([2, 3])


def transposed_padding(
    kernel: list[int], padding: list[int], dilation: list[int], output_padding: list[int]
) -> list[int]:
    """Zeros around the spread image, left, right, top, bottom; below 0: rows and columns to drop."""
    rows, columns = [dilation[i] * (kernel[i] - 1) - padding[i] for i in range(2)]
    return [columns, columns + output_padding[1], rows, rows + output_padding[0]]


def _spread(x: Tensor, stride: list[int]) -> Tensor:
    """With stride - 1 zeros between rows and between columns."""
    if stride[0] == 1 and stride[1] == 1:
        return x
    rows, columns = [max(0, (x.size(2 + i) - 1) * stride[i] + 1) for i in range(2)]
    image = torch.zeros([x.size(0), x.size(1), rows, columns], dtype=x.dtype)
    image[:, :, :: stride[0], :: stride[1]] = x
    return image
