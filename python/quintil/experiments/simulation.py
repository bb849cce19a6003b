"""HDQT layers as they are simulated in eager PyTorch: code values in float32 tensors, one tensor op after another.

The same arithmetic as `quintil.hadamard_linear` and `hadamard_conv2d` [HDQT H1-H12], as somebody without integer
kernels writes it: float32 matmuls of code values, one per tile, with a clamp behind each; block-diagonal Hadamard
matrices by dense matmuls of their blocks; tensor ops for absmax, floor and clamp; `torch.rand` for stochastic rounding;
unfold for convolution. It is the baseline that speed is compared with, so it is written to be fast: in-place ops where
nothing else needs the operand, blocks of samples small enough for the caches, one matmul where no tile can saturate.

Code values and tile sums are integers below 2^24, which float32 holds exactly. Rounding draws other numbers than
quintil, from the same law. `simulate_(model, quintil.HDQT())` takes the place of `quintil.quantize_`.

Being float it can do what integers cannot: leave one operand unrounded. `HeldOut` is the scheme of such layers, for the
question which of the six operands costs the most [HDQT Fig. 2].
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quintil.nn import quantize_
from quintil.nn.registry import SwappedLayer, swaps
from quintil.schemes import HDQT
from quintil.schemes.hdqt import SITES

EPS = 1e-32
CHUNK = 1 << 18  # unfolded floats of the samples that are worked on together: 1 MiB


@dataclasses.dataclass(frozen=True)
class HeldOut(HDQT):
    """HDQT simulated in float32, but for one thing that stays as it is.

    held: an operand ('fw', 'fa', 'b1w', 'b1g', 'b2a', 'b2g'), which is scaled and clipped as ever but not rounded, or
        'nothing'. An operand of the forward that is not rounded is so in B1 and B2 too, until it is quantised again.
    """

    name: ClassVar[str] = "hdqt_held_out"

    held: str = "nothing"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("held", ("nothing", *SITES))
        _check_simulated(self)


def _check_simulated(scheme: HDQT) -> None:
    """NotImplementedError for options that the simulation lacks."""
    plain = HDQT(accumulate="tile_end", overflow="saturate", requantize=True, conv_backward="per_sample")
    for name in ("accumulate", "overflow", "requantize", "conv_backward", "dc_row", "weight_quantizer"):
        if getattr(scheme, name) != getattr(plain, name):
            wanted = getattr(plain, name)
            raise NotImplementedError(f"simulation: expected {name} {wanted!r}, got {getattr(scheme, name)!r}")
    for name, missing in (("hadamard", ("binary", "none_scaled")), ("ste", ("clip",))):
        if getattr(scheme, name) in missing:
            raise NotImplementedError(
                f"simulation: expected {name} other than {missing}, got {getattr(scheme, name)!r}"
            )
    if {"fw", "fa"} & set(scheme.stochastic):
        raise NotImplementedError(f"simulation: expected stochastic without fw and fa, got {scheme.stochastic}")


def _held(scheme: HDQT) -> str:
    return scheme.held if isinstance(scheme, HeldOut) else "nothing"


# ---- codes [H1, H2, H7, H8] --------------------------------------------------------------------------------


def _codes_at(z: Tensor, scale: Tensor, low: int, high: int, site: str, scheme: HDQT) -> Tensor:
    u = z / (scale + EPS)
    if site != _held(scheme):
        u = u.add_(torch.rand_like(u)).floor_() if site in scheme.stochastic else u.round_()
    return u.clamp_(low, high)


def forward_codes(z: Tensor, site: str, scheme: HDQT) -> tuple[Tensor, Tensor]:
    """One scale for the whole tensor; unsigned codes where nothing is negative."""
    smallest, largest = torch.aminmax(z)
    signed = bool(smallest < 0)
    high = 2 ** (scheme.bits - 1) - 1 if signed else 2**scheme.bits - 1
    scale = scheme.range_fraction * torch.maximum(-smallest, largest) / high
    return _codes_at(z, scale, -high if signed else 0, high, site, scheme), scale


def backward_codes(z: Tensor, site: str, scheme: HDQT) -> tuple[Tensor, Tensor]:
    """Signed codes with a scale per matrix: z [..., rows, columns], scale [..., 1, 1]."""
    high = 2 ** (scheme.bits - 1) - 1
    scale = z.abs().amax((-2, -1), keepdim=True) / high
    return _codes_at(z, scale, -high, high, site, scheme), scale


# ---- Hadamard transform [H5, H6] ---------------------------------------------------------------------------


@functools.cache
def _sylvester(order: int) -> Tensor:
    matrix = torch.ones(1, 1)
    while matrix.size(0) < order:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def block_order(n: int, scheme: HDQT) -> int:
    """Order of the equal blocks along an axis of length n; their product of two is divided by it."""
    if scheme.hadamard == "none":
        return 1
    if scheme.hadamard == "divisor":
        return n & -n
    return min(scheme.hadamard_block, 1 << max(n - 1, 0).bit_length())


def hadamard_columns(z: Tensor, p: int) -> Tensor:
    """H z along the second last dimension, which is padded to whole blocks of order p."""
    if p == 1:
        return z
    padded = F.pad(z, (0, 0, 0, -z.size(-2) % p)) if z.size(-2) % p else z
    return (_sylvester(p) @ padded.unflatten(-2, (-1, p))).flatten(-3, -2)


def hadamard_rows(z: Tensor, p: int) -> Tensor:
    """z H along the last dimension, which is padded to whole blocks of order p."""
    if p == 1:
        return z
    padded = F.pad(z, (0, -z.size(-1) % p)) if z.size(-1) % p else z
    return (padded.unflatten(-1, (-1, p)) @ _sylvester(p)).flatten(-2)


# ---- products with a limit per tile [H3] -------------------------------------------------------------------


def tiled_product(a: Tensor, b: Tensor, tile: int, accumulator_bits: int) -> Tensor:
    """Sum over tiles of clamp(a[..., tile] @ b[tile, ...])."""
    if accumulator_bits >= 32:
        return a @ b
    limit, depth = 2 ** (accumulator_bits - 1) - 1, a.size(-1)
    tile = tile or depth
    total = (a[..., :tile] @ b[..., :tile, :]).clamp_(-limit, limit)
    for k in range(tile, depth, tile):
        total += (a[..., k : k + tile] @ b[..., k : k + tile, :]).clamp_(-limit, limit)
    return total


def forward_product(a: Tensor, b: Tensor, scheme: HDQT) -> Tensor:
    return tiled_product(a, b, scheme.tile_size, scheme.accumulator_bits)


def backward_product(a: Tensor, b: Tensor, scheme: HDQT, bits: int) -> Tensor:
    return tiled_product(a, b, scheme.backward_tile_size, bits)


def straight_through(gradient: Tensor, z: Tensor, scheme: HDQT) -> Tensor:
    """H11: 'raw' stops the gradient where |z| exceeds the largest code, in unscaled units."""
    if scheme.ste == "raw":
        return gradient.masked_fill_(z.abs() > 2 ** (scheme.bits - 1) - 1, 0.0)
    return gradient


# ---- layers ------------------------------------------------------------------------------------------------


class LinearFunction(torch.autograd.Function):
    """y = x w' + b for x [rows, K], w [N, K]; dx = Q(g H) Q(H w), dw = Q(H g)' Q(H x) [H4, H9, H10]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, scheme: HDQT) -> Tensor:
        xc, sx = forward_codes(x, "fa", scheme)
        wc, sw = forward_codes(weight, "fw", scheme)
        raw = (x, weight) if scheme.ste == "raw" else ()
        ctx.save_for_backward(xc, sx, wc, sw, *raw)
        ctx.scheme = scheme
        y = forward_product(xc, wc.t(), scheme).mul_(sw).mul_(sx)
        return y if bias is None else y.add_(bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (xc, sx, wc, sw, *raw), scheme = ctx.saved_tensors, ctx.scheme
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            p = block_order(wc.size(0), scheme)
            weights, s1 = backward_codes(hadamard_columns(wc, p), "b1w", scheme)
            gradient, s2 = backward_codes(hadamard_rows(g, p), "b1g", scheme)
            dx = backward_product(gradient, weights, scheme, scheme.input_gradient_bits).mul_(s2 * s1 * sw / p)
            dx = straight_through(dx, raw[0], scheme) if raw else dx
        if ctx.needs_input_grad[1]:
            p = block_order(xc.size(0), scheme)
            activations, s3 = backward_codes(hadamard_columns(xc, p), "b2a", scheme)
            gradient, s4 = backward_codes(hadamard_columns(g, p), "b2g", scheme)
            dw = backward_product(gradient.t(), activations, scheme, scheme.weight_gradient_bits).mul_(s4 * s3 * sx / p)
            dw = straight_through(dw, raw[1], scheme) if raw else dw
        if ctx.needs_input_grad[2]:
            db = g.sum(0)
        return dx, dw, db, None


class Conv2dFunction(torch.autograd.Function):
    """Convolution as unfold [samples, K, positions] and the products of LinearFunction, backward per sample [H12]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: dict, scheme: HDQT) -> Tensor:
        xc, sx = forward_codes(x.contiguous(), "fa", scheme)
        wc, sw = forward_codes(weight, "fw", scheme)
        raw = (x, weight) if scheme.ste == "raw" else ()
        ctx.save_for_backward(xc, sx, wc, sw, *raw)
        ctx.geometry, ctx.scheme = geometry, scheme
        taps_first = scheme.tile_order == "khwc"
        rows = wc.permute(0, 2, 3, 1).flatten(1) if taps_first else wc.flatten(1)
        y = x.new_empty(x.size(0), wc.size(0), *output_size(x, geometry))
        for part in chunks(x, y, rows.size(1)):
            columns = F.unfold(xc[part], **geometry)
            if taps_first:
                columns = columns.unflatten(1, (x.size(1), -1)).transpose(1, 2).flatten(1, 2)
            y[part] = forward_product(rows, columns, scheme).mul_(sw).mul_(sx).view_as(y[part])
        return y if bias is None else y.add_(bias[:, None, None])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (xc, sx, wc, sw, *raw), scheme, geometry = ctx.saved_tensors, ctx.scheme, ctx.geometry
        wanted_x, wanted_w, wanted_b = ctx.needs_input_grad[:3]
        rows, g = wc.flatten(1), g.flatten(2)
        over_outputs, over_positions = (block_order(n, scheme) for n in g.shape[1:])
        weights, s1 = backward_codes(hadamard_columns(rows, over_outputs), "b1w", scheme)
        dx = torch.empty_like(xc) if wanted_x else None
        dw = torch.zeros_like(rows) if wanted_w else None
        for part in chunks(xc, g, rows.size(1)):
            if dx is not None:
                gradient, s2 = backward_codes(hadamard_columns(g[part], over_outputs), "b1g", scheme)
                columns = backward_product(weights.t(), gradient, scheme, scheme.input_gradient_bits)
                image = F.fold(columns, xc.shape[2:], **geometry)
                dx[part] = image.mul_((s2 * s1 * sw / over_outputs).unsqueeze(-1))
            if dw is not None:
                columns = hadamard_rows(F.unfold(xc[part], **geometry), over_positions)
                activations, s3 = backward_codes(columns, "b2a", scheme)
                gradient, s4 = backward_codes(hadamard_rows(g[part], over_positions), "b2g", scheme)
                product = backward_product(gradient, activations.mT, scheme, scheme.weight_gradient_bits)
                dw += product.mul_(s4 * s3 * sx / over_positions).sum(0)
        dw = None if dw is None else dw.view_as(wc)
        if raw:
            dx, dw = (None if d is None else straight_through(d, z, scheme) for d, z in zip((dx, dw), raw))
        return dx, dw, g.sum((0, 2)) if wanted_b else None, None, None


def output_size(x: Tensor, geometry: dict) -> list[int]:
    kernel, stride, padding, dilation = (geometry[k] for k in ("kernel_size", "stride", "padding", "dilation"))
    return [(x.size(2 + i) + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]


def chunks(x: Tensor, y: Tensor, depth: int) -> Iterator[slice]:
    """Slices of the samples whose unfolded inputs [depth, positions] are about CHUNK floats."""
    step = max(1, CHUNK // (depth * math.prod(y.shape[2:])))
    return (slice(start, start + step) for start in range(0, x.size(0), step))


@swaps(HeldOut, nn.Linear)
class SimulatedLinear(SwappedLayer, nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        y = LinearFunction.apply(input.reshape(-1, self.in_features), self.weight, self.bias, self.scheme)
        return y.reshape(*input.shape[:-1], self.out_features)


@swaps(HeldOut, nn.Conv2d)
class SimulatedConv2d(SwappedLayer, nn.Conv2d):
    @classmethod
    def refusal(cls, module: nn.Module, scheme: HDQT) -> str | None:
        if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
            return "groups are not 1, or the padding is not of zeros in numbers"
        return None

    def forward(self, input: Tensor) -> Tensor:
        names = ("kernel_size", "stride", "padding", "dilation")
        geometry = {name: getattr(self, name) for name in names}
        return Conv2dFunction.apply(input, self.weight, self.bias, geometry, self.scheme)


def simulate_(model: nn.Module, scheme: HDQT) -> nn.Module:
    """Turn every nn.Linear and nn.Conv2d of `model` into a simulated layer, in place: the same Parameters and names.

    NotImplementedError for options of the scheme that the simulation lacks, ValueError for groups or other padding.
    """
    held = {} if isinstance(scheme, HeldOut) else {"held": "nothing"}
    return quantize_(model, HeldOut(**{f.name: getattr(scheme, f.name) for f in dataclasses.fields(scheme)}, **held))
