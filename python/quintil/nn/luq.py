"""LUQLinear and LUQConv2d: nn.Linear and nn.Conv2d with LUQ's products on integers [HDQT H13-H17].

A layer is one matrix product, of a convolution that of its unfolded input. Forward and backward multiply int8 codes:
gradients are 0 or +-1 .. +-64 times their alpha, so that all sums are exact. With levels 'original' the gradients have
no bound in codes, and the backward is a float32 product of the same values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from quintil.functional import can_have_gradient, draw_seed
from quintil.nn.geometry import even_padding, why_not_plain
from quintil.nn.swap import SwappedLayer, swaps, unsupported
from quintil.schemes import LUQ

_DEEPEST = 1 << 16  # products of one int8 sum that `tiled_int_mm` takes for sure


def _codes(x: Tensor, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes in lowest..highest, and their float32 step [H13]."""
    span = (highest - lowest).double()
    step = (2.0 * torch.ops.quintil.sawb_clip(x) / span + 1e-10).float()
    codes = torch.ops.quintil.quantize(x, 5, scale=step)[0]
    return codes.clamp(lowest.to(torch.int8), highest.to(torch.int8)), step


def weight_codes(weight: Tensor, original: bool) -> tuple[Tensor, Tensor]:
    top = torch.tensor(8 if original else 7)
    return _codes(weight, -top, top)


def input_codes(x: Tensor, negative: Tensor, original: bool) -> tuple[Tensor, Tensor]:
    """negative: bool, 0-dim: whether the codes have a sign."""
    lowest = torch.where(negative, -8 if original else -7, 0)
    return _codes(x, lowest, torch.where(negative, 15 if original else 7, 15))


def unfold(codes: Tensor, geometry: list[int]) -> Tensor:
    """int8 [N, C, H, W] -> [N * L, C * kh * kw] over output positions, zeros at the border.

    geometry: kernel, stride, padding and dilation, rows before columns.
    """
    kernel, stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:6], geometry[6:]
    windows = F.pad(codes, [padding[1], padding[1], padding[0], padding[0]])
    for i in range(2):
        windows = windows.unfold(2 + i, dilation[i] * (kernel[i] - 1) + 1, stride[i])[..., :: dilation[i]]
    return windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, codes.size(1) * kernel[0] * kernel[1])


def output_size(sizes: list[int], geometry: list[int]) -> list[int]:
    """Height and width of a convolution's output. ValueError where the kernel does not fit."""
    found: list[int] = []
    for i in range(2):
        room = sizes[2 + i] + 2 * geometry[4 + i] - geometry[6 + i] * (geometry[i] - 1)
        if room < 1:
            raise ValueError(
                f"LUQConv2d: expected an input of at least the kernel's size, got {sizes[2:]} with kernel "
                f"{geometry[:2]}, padding {geometry[4:6]} and dilation {geometry[6:]}"
            )
        found.append((room - 1) // geometry[2 + i] + 1)
    return found


def product(x: Tensor, weight: Tensor, tile_size: int, bits: int) -> Tensor:
    """int8 [R, K] by int8 [N, K]: int32 [R, N] with the accumulator law [H17]."""
    return torch.ops.quintil.tiled_int_mm(x, weight.t(), tile_size=tile_size, accumulator_bits=bits)


def scaled(sums: Tensor, weight_step: Tensor, input_step: Tensor, bias: Tensor | None) -> Tensor:
    """[H17] float32."""
    output = sums.float() * weight_step * input_step
    return output if bias is None else output + bias


def _exact(a: Tensor, b: Tensor) -> Tensor:
    """int8 [M, K] by int8 [K, N], exact at any depth: int32, or int64 for a deep one."""
    if a.size(1) <= _DEEPEST:
        return torch.ops.quintil.tiled_int_mm(a, b, tile_size=0, accumulator_bits=32)
    pieces = zip(a.split(_DEEPEST, 1), b.split(_DEEPEST, 0))
    return torch.stack([_exact(left, right).long() for left, right in pieces]).sum(0)


class _Product(torch.autograd.Function):
    """Float32 x [R, K] or an image, weight [N, K], bias [N] -> [R, N]; the gradient of the output is drawn once per
    sample, and its codes make all gradients: dx = g w^, dw = g' x^, db = sums of g (straight-through, H13)."""

    @staticmethod
    def forward(ctx, x, weight, bias, negative, seed, scheme, geometry):
        original = scheme.levels == "original"
        codes, input_step = input_codes(x, negative, original)
        weights, weight_step = weight_codes(weight, original)
        ctx.save_for_backward(codes, input_step, weights, weight_step)
        ctx.seed, ctx.scheme, ctx.geometry = seed, scheme, geometry
        rows = unfold(codes, geometry) if geometry else codes
        sums = product(rows, weights, scheme.tile_size, scheme.limit_bits)
        return scaled(sums, weight_step, input_step, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        codes, input_step, weights, weight_step = ctx.saved_tensors
        rows = unfold(codes, ctx.geometry) if ctx.geometry else codes
        make = _float_gradients if ctx.scheme.levels == "original" else _integer_gradients
        (dx, dw, db), scales = make(ctx, grad, rows, weights)
        if dx is not None and ctx.geometry:
            dx = _folded(dx, codes.shape, ctx.geometry)
        for scale in scales:
            dx, dw, db = (None if t is None else t * scale for t in (dx, dw, db))
        dx = None if dx is None else dx * weight_step
        dw = None if dw is None else dw * input_step
        return dx, dw, db, None, None, None, None


def _integer_gradients(ctx, grad, rows, weights):
    """Sums over the samples as floats of exact integers, and what they are still to be multiplied by."""
    totals = [None, None, None]
    for sample in range(ctx.scheme.samples):
        codes, alpha = torch.ops.quintil.luq_codes(grad, seed=ctx.seed, sample=sample)
        parts = (
            _exact(codes, weights) if ctx.needs_input_grad[0] else None,
            _exact(codes.t(), rows) if ctx.needs_input_grad[1] else None,
            codes.sum(0, dtype=torch.int64) if ctx.needs_input_grad[2] else None,
        )
        totals = [part if total is None else total.long() + part for total, part in zip(totals, parts)]
    scales = [alpha] if ctx.scheme.samples == 1 else [1.0 / ctx.scheme.samples, alpha]
    return [None if t is None else t.float() for t in totals], scales


def _float_gradients(ctx, grad, rows, weights):
    drawn = torch.ops.quintil.luq_quantize(grad, seed=ctx.seed, samples=ctx.scheme.samples, levels="original")
    gradients = (
        drawn @ weights.float() if ctx.needs_input_grad[0] else None,
        drawn.t() @ rows.float() if ctx.needs_input_grad[1] else None,
        drawn.sum(0) if ctx.needs_input_grad[2] else None,
    )
    return gradients, []


def _folded(rows: Tensor, sizes: torch.Size, geometry: list[int]) -> Tensor:
    """The adjoint of `unfold`."""
    kernel, stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:6], geometry[6:]
    columns = rows.reshape(sizes[0], -1, rows.size(1)).transpose(1, 2)
    return F.fold(columns, sizes[2:], kernel, dilation, padding, stride)


class _LUQLayer(SwappedLayer):
    """What both layers share. `seen_negative`: whether a training forward had a negative input; it stays (sticky)."""

    def attach(self, scheme: LUQ) -> None:
        super().attach(scheme)
        self.register_buffer("seen_negative", torch.zeros((), dtype=torch.bool, device=self.weight.device))
        self._original = scheme.levels == "original"
        self._tile_size, self._limit_bits = scheme.tile_size, scheme.limit_bits

    def detach(self) -> None:
        del self.seen_negative, self._original, self._tile_size, self._limit_bits
        super().detach()

    def has_sign(self, x: Tensor) -> Tensor:
        """Whether the input's codes are signed: bool, 0-dim. A training forward remembers it."""
        negative = self.seen_negative.logical_or((x < 0).any())
        if self.training:
            self.seen_negative.copy_(negative)
        return negative

    def multiply(self, x: Tensor, geometry: list[int]) -> Tensor:
        """float [R, K], or [N, C, H, W] with a geometry -> float32 [R, N]."""
        weight, bias = self.weight.float().flatten(1), self.bias
        x = x.float()
        bias = None if bias is None else bias.float()
        negative = self.has_sign(x.detach())
        if torch.jit.is_scripting():
            if self.training:
                raise RuntimeError("LUQ: expected evaluation mode in TorchScript, got training mode (no gradients)")
            codes, input_step = input_codes(x, negative, self._original)
            weights, weight_step = weight_codes(weight, self._original)
            rows = unfold(codes, geometry) if len(geometry) > 0 else codes
            return scaled(product(rows, weights, self._tile_size, self._limit_bits), weight_step, input_step, bias)
        return self._differentiable(x, weight, bias, negative, geometry)

    @torch.jit.unused
    def _differentiable(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, negative: Tensor, geometry: list[int]
    ) -> Tensor:
        seed = draw_seed() if can_have_gradient(x, weight, bias) else 0
        return _Product.apply(x, weight, bias, negative, seed, self.scheme, geometry)


@swaps(LUQ, nn.Linear)
class LUQLinear(_LUQLayer, nn.Linear):
    """nn.Linear on LUQ's integers: float [..., in_features] -> [..., out_features].

    `quintil.quantize_` turns nn.Linear into it; directly: LUQLinear(<arguments of nn.Linear>, scheme=LUQ()).
    """

    def forward(self, input: Tensor) -> Tensor:
        geometry: list[int] = []
        output = self.multiply(input.reshape(-1, self.in_features), geometry)
        return output.reshape(input.shape[:-1] + (self.out_features,)).to(input.dtype)


@swaps(LUQ, nn.Conv2d)
class LUQConv2d(_LUQLayer, nn.Conv2d):
    """nn.Conv2d on LUQ's integers: float [N, C, H, W] -> [N, O, H', W'], or both without N; keeps the memory format.

    groups = 1 and zero padding only. Products that share a tile follow each other in the order channel, row, column.
    """

    overridable = ("forward", "_conv_forward")

    @classmethod
    def refusal(cls, module: nn.Conv2d, scheme: LUQ) -> str | None:
        return why_not_plain(module)

    def attach(self, scheme: LUQ) -> None:
        super().attach(scheme)
        self._geometry = [*self.kernel_size, *self.stride, *even_padding(self), *self.dilation]

    def detach(self) -> None:
        del self._geometry
        super().detach()

    def forward(self, input: Tensor) -> Tensor:
        batch = input.unsqueeze(0) if input.dim() == 3 else input
        size = output_size(list(batch.shape), self._geometry)
        rows = self.multiply(batch, self._geometry)
        output = rows.reshape(batch.size(0), size[0], size[1], self.out_channels).permute(0, 3, 1, 2)
        if not batch.is_contiguous(memory_format=torch.channels_last):
            output = output.contiguous()
        output = output.squeeze(0) if input.dim() == 3 else output
        return output.to(input.dtype)


unsupported(
    LUQ,
    nn.Conv1d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
