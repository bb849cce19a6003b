"""HDQT in plain torch and numpy: the papers' formulas, clear and slow, written apart from the C++ sources.

Codes and sums are int64 tensors, floats are float32 in the written order: comparisons with the ops may use `==`.
Convolution is a gather over taps; what layers are made of stands in `reference_codes`, their
options in `reference_options`, and both are found here too.
"""

from __future__ import annotations

import math

import torch
from reference_codes import (  # noqa: F401
    SITES,
    STOCHASTIC_CAP,
    block_normalisers,
    codes_at_scale,
    dequantize,
    hadamard_blocks,
    hadamard_matrix,
    hadamard_transform,
    next_power_of_two,
    pack_int4,
    philox4x32,
    quantize,
    random_bits,
    tile_saturation,
    tile_sums,
    tiled_int_mm,
    undoing_divisor,
    unpack_int4,
)
from reference_options import DEFAULTS, Options, paper_options  # noqa: F401
from torch import Tensor

# ---- the two layers [HDQT H4, H9-H12] ----------------------------------------------------------------------


def rescale(accumulated: Tensor, *factors: Tensor | float) -> Tensor:
    """Float factors one after another, each its own rounding [N9]."""
    out = accumulated if accumulated.is_floating_point() else accumulated.to(torch.float32)
    for factor in factors:
        out = out * factor
    return out


def forward_codes(z: Tensor, site: str, o: Options, seed: int | None) -> tuple[Tensor, Tensor]:
    if o.exact:
        return z, torch.ones((), dtype=z.dtype)
    draws = seed if o.is_stochastic(site) else None
    return quantize(z, o.bits, signed=None, range_fraction=o.range_fraction, seed=draws, site=SITES[site])


def multiply(a: Tensor, b: Tensor, o: Options, register: dict) -> Tensor:
    return a @ b if o.exact else tiled_int_mm(a, b, **register)


def backward_operand(
    z: Tensor, dim: int, site: str, o: Options, seed: int | None, first_row: int = 0, run: int = 1
) -> tuple[Tensor, Tensor]:
    """H along `dim` of codes or gradients [rows, features], then a second quantisation [HDQT H7, H8]."""
    n, is_codes = z.size(dim), not z.is_floating_point()
    out = hadamard_transform(z, dim, hadamard=o.hadamard, block=o.hadamard_block)
    if o.exact or (is_codes and not o.requantize):
        out = out if o.hadamard != "binary" else out * block_normalisers(n).to(out.dtype).unsqueeze(1 - dim)
        return out, torch.ones((), dtype=torch.float32)
    out = out.float()
    if o.hadamard == "binary":
        out = out * block_normalisers(n).unsqueeze(1 - dim)
    if not o.is_stochastic(site):
        return quantize(out, o.bits)
    return quantize(out, o.bits, seed=seed, site=SITES[site], first_row=first_row, run=run, cap=STOCHASTIC_CAP)


def input_product(
    g: Tensor, wc: Tensor, sw: Tensor, o: Options, seed: int | None, first_row: int = 0, run: int = 1
) -> tuple[Tensor, tuple]:
    """B1 for g [rows, N] and codes [N, K]: accumulated integers [rows, K], factors still to apply."""
    weights, s1 = backward_operand(wc, 0, "b1w", o, seed)
    gradient, s2 = backward_operand(g, 1, "b1g", o, seed, first_row, run)
    d = undoing_divisor(wc.size(0), o.hadamard, o.hadamard_block)
    return multiply(gradient, weights, o, o.backward_register()), (s2, s1, sw, 1.0 / d)


def first_rows_apart(
    z: Tensor,
    bits: int,
    site: str | None,
    first_site: str | None,
    seed: int | None,
    first_row: int,
    run: int,
    order: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[H23] codes of the rows that are not the first of a block of `order`, 0 for those that are, and their step; then the
    8-bit codes of the first rows and theirs. A site of None rounds to nearest."""
    blocks = z.reshape(-1, order, z.size(1))
    steps = [
        quantize(part, width, cap=math.inf if place is None else STOCHASTIC_CAP)[1]
        for part, width, place in ((blocks[:, 1:], bits, site), (blocks[:, 0], 8, first_site))
    ]
    high = 2 ** (bits - 1) - 1
    rest = codes_at_scale(z, steps[0], -high, high, seed if site else None, SITES[site or "single"], first_row, run)
    rest.reshape(blocks.shape)[:, 0] = 0
    row = first_row // order
    first = codes_at_scale(
        blocks[:, 0], steps[1], -127, 127, seed if first_site else None, SITES[first_site or "single"], row, run
    )
    return rest, steps[0], first, steps[1]


def weight_product_apart(
    g: Tensor, xc: Tensor, sx: Tensor, o: Options, seed: int | None, first_row: int, run: int, order: int
) -> Tensor:
    """B2 with the first rows of blocks apart [H23]: dw [N, K]."""

    def transformed(z: Tensor) -> Tensor:
        return hadamard_transform(z, 0, hadamard=o.hadamard, block=o.hadamard_block)

    a_site, g_site, first_site = (
        name if o.is_stochastic(name.split()[0]) else None for name in ("b2a", "b2g", "b2g first rows")
    )
    x, gradient = transformed(xc), transformed(g)
    if o.requantize:
        xr, s3, xd, u3 = first_rows_apart(x.float(), o.bits, a_site, None, seed, first_row, run, order)
    else:
        one = torch.tensor(1.0)
        xr, s3, xd, u3 = x, one, x.reshape(-1, order, x.size(1))[:, 0], one
    gr, s4, gd, u4 = first_rows_apart(gradient, o.bits, g_site, first_site, seed, first_row, run, order)
    rest = rescale(multiply(gr.t(), xr, o, o.backward_register(weight_gradient=True)), s4, s3)
    first = rescale((gd.t().double() @ xd.double()).to(torch.int64), u4, u3)
    return rescale(rest + first, sx, 1.0 / order)


def weight_product(
    g: Tensor, xc: Tensor, sx: Tensor, o: Options, seed: int | None, first_row: int = 0, run: int = 1
) -> Tensor:
    """B2 for g [rows, N] and activation codes [rows, K]: dw [N, K]."""
    order = max(hadamard_blocks(xc.size(0), o.hadamard, o.hadamard_block), default=1)
    if o.dc_row == "separate" and order > 1:
        return weight_product_apart(g, xc, sx, o, seed, first_row, run, order)
    activations, s3 = backward_operand(xc, 0, "b2a", o, seed, first_row, run)
    gradient, s4 = backward_operand(g, 0, "b2g", o, seed, first_row, run)
    d = undoing_divisor(xc.size(0), o.hadamard, o.hadamard_block)
    accumulated = multiply(gradient.t(), activations, o, o.backward_register(weight_gradient=True))
    return rescale(accumulated, s4, s3, sx, 1.0 / d)


def sum_in_chunks(parts: list[Tensor], chunk: int, like: Tensor) -> Tensor:
    """Ascending sums inside chunks, then the chunk sums ascending [N8]."""
    sums = []
    for start in range(0, len(parts), chunk):
        partial = parts[start].clone()
        for part in parts[start + 1 : start + chunk]:
            partial = partial + part
        sums.append(partial)
    total = sums[0] if sums else torch.zeros_like(like)
    for partial in sums[1:]:
        total = total + partial
    return total


def bias_gradient(g: Tensor) -> Tensor:
    return sum_in_chunks(list(g), 1024, g.new_zeros(g.size(1)))


def straight_through(gradient: Tensor, z: Tensor, o: Options) -> Tensor:
    """H11: 0 where the forward quantiser clamped ('clip') or where |z| > Qs in raw units ('raw')."""
    if o.ste == "identity" or z.numel() == 0:
        return gradient
    bound = torch.tensor(o.range_fraction) * z.abs().max() if o.ste == "clip" else 2 ** (o.bits - 1) - 1
    return torch.where(z.abs() > bound, torch.zeros_like(gradient), gradient)


def hadamard_linear(
    x: Tensor, w: Tensor, bias: Tensor | None = None, o: Options = DEFAULTS, seed: int | None = None
) -> Tensor:
    xc, sx = forward_codes(x.reshape(-1, x.size(-1)), "fa", o, seed)
    wc, sw = forward_codes(w, "fw", o, seed)
    y = rescale(multiply(xc, wc.t(), o, o.forward_register()), sw, sx)
    return (y if bias is None else y + bias).reshape(*x.shape[:-1], w.size(0))


def hadamard_linear_backward(x: Tensor, w: Tensor, g: Tensor, o: Options = DEFAULTS, seed: int | None = None) -> tuple:
    """(dx, dw, db) for dL/dy = g."""
    rows, g = x.reshape(-1, x.size(-1)), g.reshape(-1, w.size(0))
    xc, sx = forward_codes(rows, "fa", o, seed)
    wc, sw = forward_codes(w, "fw", o, seed)
    accumulated, factors = input_product(g, wc, sw, o, seed)
    dx = straight_through(rescale(accumulated, *factors), rows, o).reshape(x.shape)
    dw = straight_through(weight_product(g, xc, sx, o, seed), w, o)
    return dx, dw, bias_gradient(g)


class Taps:
    """Which padded pixel each (position, tap) of a convolution reads; K runs in the order `tile_order`."""

    def __init__(self, x: Tensor, w: Tensor, stride: tuple, padding: tuple, tile_order: str) -> None:
        self.size, self.kernel, self.stride, self.padding = x.shape[2:], w.shape[2:], stride, padding
        self.out = [(self.size[i] + 2 * padding[i] - self.kernel[i]) // stride[i] + 1 for i in (0, 1)]
        self.channels_last = tile_order == "khwc"

    def _windows(self):
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                yield i, j, slice(i, i + self.stride[0] * self.out[0], self.stride[0]), slice(
                    j, j + self.stride[1] * self.out[1], self.stride[1]
                )

    def unfold(self, pixels: Tensor) -> Tensor:
        """[N, H, W, C] -> [N, L, K]"""
        n, h, w, c = pixels.shape
        (ph, pw), (kh, kw) = self.padding, self.kernel
        padded = pixels.new_zeros(n, h + 2 * ph, w + 2 * pw, c)
        padded[:, ph : ph + h, pw : pw + w] = pixels
        out = pixels.new_zeros(n, *self.out, kh, kw, c)
        for i, j, rows, columns in self._windows():
            out[:, :, :, i, j] = padded[:, rows, columns]
        return self._order(out).reshape(n, self.out[0] * self.out[1], kh * kw * c)

    def _order(self, taps: Tensor) -> Tensor:
        return taps if self.channels_last else taps.movedim(-1, -3)

    def fold(self, columns: Tensor, channels: int) -> Tensor:
        """[L, K] -> [C, H, W]: the taps of one sample added, exactly for integers"""
        (ph, pw), (kh, kw) = self.padding, self.kernel
        shape = (*self.out, kh, kw, channels) if self.channels_last else (*self.out, channels, kh, kw)
        taps = columns.reshape(shape)
        taps = taps if self.channels_last else taps.movedim(-3, -1)
        image = columns.new_zeros(self.size[0] + 2 * ph, self.size[1] + 2 * pw, channels)
        for i, j, rows, columns_ in self._windows():
            image[rows, columns_] += taps[:, :, i, j]
        return image[ph : ph + self.size[0], pw : pw + self.size[1]].movedim(-1, 0)

    def weight_rows(self, w: Tensor) -> Tensor:
        return (w.permute(0, 2, 3, 1) if self.channels_last else w).reshape(w.size(0), -1)

    def weight_from_rows(self, rows: Tensor, shape: torch.Size) -> Tensor:
        o, c, kh, kw = shape
        return rows.reshape(o, kh, kw, c).permute(0, 3, 1, 2) if self.channels_last else rows.reshape(shape)


def _conv_operands(x: Tensor, w: Tensor, stride: tuple, padding: tuple, o: Options, seed: int | None) -> tuple:
    taps = Taps(x, w, stride, padding, o.tile_order)
    pixels, sx = forward_codes(x.permute(0, 2, 3, 1), "fa", o, seed)
    wc, sw = forward_codes(taps.weight_rows(w), "fw", o, seed)
    return taps, taps.unfold(pixels), sx, wc, sw


def hadamard_conv2d(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    stride: tuple = (1, 1),
    padding: tuple = (0, 0),
    o: Options = DEFAULTS,
    seed: int | None = None,
) -> Tensor:
    taps, xc, sx, wc, sw = _conv_operands(x, w, stride, padding, o, seed)
    y = rescale(multiply(xc.reshape(-1, xc.size(2)), wc.t(), o, o.forward_register()), sw, sx)
    y = y if bias is None else y + bias
    return y.reshape(x.size(0), *taps.out, w.size(0)).permute(0, 3, 1, 2)


def hadamard_conv2d_backward(
    x: Tensor,
    w: Tensor,
    g: Tensor,
    stride: tuple = (1, 1),
    padding: tuple = (0, 0),
    o: Options = DEFAULTS,
    seed: int | None = None,
) -> tuple:
    """(dx, dw, db) for dL/dy = g [N, O, oh, ow]."""
    taps, xc, sx, wc, sw = _conv_operands(x, w, stride, padding, o, seed)
    n, positions = xc.shape[:2]
    g = g.permute(0, 2, 3, 1).reshape(n, positions, -1)
    together = o.conv_backward == "batch"
    groups = [(g.flatten(0, 1), xc.flatten(0, 1))] if together else list(zip(g, xc))
    padded_rows = sum(hadamard_blocks(groups[0][0].size(0), o.hadamard, o.hadamard_block)) if groups else 0
    images, weight_parts = [], []
    for i, (gradient, codes) in enumerate(groups):
        accumulated, factors = input_product(gradient, wc, sw, o, seed, i * positions, 16)
        images += [rescale(taps.fold(part, x.size(1)), *factors) for part in accumulated.split(max(positions, 1))]
        weight_parts.append(weight_product(gradient, codes, sx, o, seed, i * padded_rows, 16))
    dx = torch.stack(images) if n else torch.zeros_like(x)
    dw = taps.weight_from_rows(sum_in_chunks(weight_parts, 8, taps.weight_rows(w)), w.shape)
    return straight_through(dx, x, o), straight_through(dw, w, o), bias_gradient(g.flatten(0, 1))
