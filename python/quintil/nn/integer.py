"""Layers of a deployed model: codes in, codes or real numbers out, at one width. `quintil.nn.deploy` makes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quintil.nn import half_products


class ToCodes(nn.Module):
    """Real numbers -> codes of one step, with a factor and a summand per channel (dimension 1) before, if given.

    float [N, C, ...] -> int8 or uint8 of the same size.
    """

    def __init__(self, step: Tensor, bits: int, signed: bool, affine: tuple[Tensor, Tensor] | None = None):
        super().__init__()
        self.bits, self.signed = bits, signed
        self.register_buffer("step", step)
        self.register_buffer("gain", None if affine is None else affine[0])
        self.register_buffer("shift", None if affine is None else affine[1])

    def forward(self, x: Tensor) -> Tensor:
        gain, shift = self.gain, self.shift
        if gain is not None and shift is not None:
            return torch.ops.quintil.affine_quantize(x, gain, shift, self.step, self.bits, signed=self.signed)
        return torch.ops.quintil.quantize(x, self.bits, signed=self.signed, narrow=False, scale=self.step)[0]

    def extra_repr(self) -> str:
        return f"bits={self.bits}, signed={self.signed}, affine={self.gain is not None}"


class _IntegerLayer(nn.Module):
    """Weight codes and the way from integer sums to the output: + bias, + residual, ReLU, and codes of `out_step`.

    weight: int8. weight_step: float, 0-dim or one per output. x_step: of the input's codes, 0-dim.
    """

    def __init__(self, weight: Tensor, weight_step: Tensor, x_step: Tensor, bias: Tensor | None):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("weight_step", weight_step)
        self.register_buffer("x_step", x_step)
        self.register_buffer("bias", bias)
        self.register_buffer("out_step", None)
        self.out_bits = 8
        self.relu = False

    def extra_repr(self) -> str:
        out = "float32" if self.out_step is None else f"{self.out_bits}-bit codes"
        return f"{list(self.weight.shape)}, relu={self.relu}, out={out}"


class IntegerLinear(_IntegerLayer):
    """Codes [..., K] and perhaps a residual [..., N] -> [..., N]."""

    def forward(self, codes: Tensor, residual: Tensor | None = None) -> Tensor:
        return torch.ops.quintil.int_linear(
            codes, self.x_step, self.weight, self.weight_step, self.bias, residual=residual, relu=self.relu,
            out_scale=self.out_step, out_bits=self.out_bits,
        )  # fmt: skip


class IntegerConv2d(_IntegerLayer):
    """Codes [N, C, H, W] and perhaps a residual [N, O, H', W'] -> [N, O, H', W']."""

    def __init__(
        self,
        weight: Tensor,
        weight_step: Tensor,
        x_step: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ):
        super().__init__(weight, weight_step, x_step, bias)
        self.stride, self.padding, self.dilation = stride, padding, dilation

    def forward(self, codes: Tensor, residual: Tensor | None = None) -> Tensor:
        return torch.ops.quintil.int_conv2d(
            codes, self.x_step, self.weight, self.weight_step, self.bias, self.stride, self.padding, self.dilation,
            residual=residual, relu=self.relu, out_scale=self.out_step, out_bits=self.out_bits,
        )  # fmt: skip


class _HalfIntegerLayer(nn.Module):
    """A layer of VecQ with its input's quantiser, a BatchNorm behind it and a ReLU: real numbers in and out.

    x_bits, x_step, x_length: of the input's codes. weight: int8 codes of weight_bits; length, sums: of every output, as
    `half_products.linear` takes them; bias: float or None.
    """

    def __init__(
        self,
        x_bits: int,
        x_step: Tensor,
        x_length: Tensor,
        weight_bits: int,
        weight: Tensor,
        length: Tensor,
        sums: Tensor,
        bias: Tensor | None,
        relu: bool,
    ):
        super().__init__()
        self.x_bits, self.weight_bits, self.relu = x_bits, weight_bits, relu
        self.register_buffer("x_step", x_step)
        self.register_buffer("x_length", x_length)
        self.register_buffer("weight", weight)
        self.register_buffer("length", length)
        self.register_buffer("sums", sums)
        self.register_buffer("bias", bias)

    def extra_repr(self) -> str:
        return f"{list(self.weight.shape)}, bits={self.weight_bits}, x_bits={self.x_bits}, relu={self.relu}"


class HalfIntegerLinear(_HalfIntegerLayer):
    """float [..., K] -> [..., N]."""

    def forward(self, x: Tensor) -> Tensor:
        codes = torch.ops.quintil.vecq_codes(x, self.x_bits, self.x_step)
        return half_products.linear(
            codes, self.x_length, self.weight, self.length, self.sums, self.bias, self.x_bits, self.weight_bits,
            self.relu,
        ).to(x.dtype)  # fmt: skip


class HalfIntegerConv2d(_HalfIntegerLayer):
    """float [N, C, H, W] -> [N, O, H', W']; geometry: stride, padding and dilation, rows before columns."""

    def __init__(self, *arguments: Any, geometry: list[int]):
        super().__init__(*arguments)
        self.geometry = geometry

    def forward(self, x: Tensor) -> Tensor:
        codes = torch.ops.quintil.vecq_codes(x, self.x_bits, self.x_step)
        return half_products.conv2d(
            codes, self.x_length, self.weight, self.length, self.sums, self.bias, self.geometry, self.x_bits,
            self.weight_bits, self.relu,
        ).to(x.dtype)  # fmt: skip
