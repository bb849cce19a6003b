"""nn.Linear and convolutions with VecQ weights, and activations where the scheme quantises them [VECQ 2.6-2.9].

In training, and wherever gradients are enabled, the forward is the float32 product of values on levels. In evaluation
mode under `torch.no_grad`, linear layers and convolutions with quantised inputs multiply codes (`half_products.py`).
There a NaN of the input counts as code 0, the level above 0; `quintil.set_checked` refuses it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quintil.nn.geometry import even_padding
from quintil.nn.half_products import conv2d, linear
from quintil.nn.levels import ActivationQuantizer, Kept, LevelQuantizer
from quintil.nn.swap import SwappedLayer, swaps, unsupported
from quintil.schemes import VecQ

_DEEPEST_SUM = 33_025  # products of odd 8-bit codes that surely fit int32


def elements_per_row(weight: Tensor) -> int:
    """Elements of weight[0], which need not exist."""
    return math.prod(weight.shape[1:])


def level_sizes(weight: Tensor, scheme: VecQ) -> tuple[int, ...]:
    """Sizes of a weight's lengths."""
    if scheme.group_size:
        return weight.size(0), elements_per_row(weight) // scheme.group_size
    return (weight.size(0),) if scheme.per_channel else ()


def uneven_groups(weight: Tensor, scheme: VecQ) -> str | None:
    """Why a weight cannot be cut into groups, or None."""
    elements = elements_per_row(weight)
    if scheme.group_size and elements % scheme.group_size:
        return f"group_size={scheme.group_size}, which does not divide the {elements} elements of weight[0]"
    return None


class VecQLayer(SwappedLayer):
    """What layers with one weight share: quantisers of weight, bias, input and output."""

    def attach(self, scheme: VecQ) -> None:
        super().attach(scheme)
        device, bits = self.weight.device, scheme.activation_bits or 0
        inputs, outputs = (bits if scheme.activation_place == place else 0 for place in ("input", "output"))
        self.weight_quantizer = LevelQuantizer(scheme.weight_bits, scheme, level_sizes(self.weight, scheme), device)
        self.bias_quantizer = LevelQuantizer(scheme.weight_bits if scheme.quantize_bias else 0, scheme, (), device)
        self.input_quantizer = ActivationQuantizer(inputs, scheme, device)
        self.output_quantizer = ActivationQuantizer(outputs, scheme, device)
        for quantizer in self._quantizers():
            quantizer.train(self.training)
        self.integers = self.has_integers(scheme)
        self._kept = Kept()

    def detach(self) -> None:
        del self.weight_quantizer, self.bias_quantizer, self.input_quantizer, self.output_quantizer
        del self.integers, self._kept
        super().detach()

    @classmethod
    def refusal(cls, module: nn.Module, scheme: VecQ) -> str | None:
        return uneven_groups(module.weight, scheme)

    def _quantizers(self) -> tuple[nn.Module, ...]:
        return self.weight_quantizer, self.bias_quantizer, self.input_quantizer, self.output_quantizer

    @torch.jit.unused
    def has_integers(self, scheme: VecQ) -> bool:
        """Whether evaluation multiplies codes: of bytes, with one length per output, in sums that fit int32."""
        bits = scheme.activation_bits if scheme.activation_place == "input" else None
        if bits is None or max(bits, scheme.weight_bits) > 8 or scheme.group_size or scheme.levels == "ul2q":
            return False
        return self.weight.numel() > 0 and elements_per_row(self.weight) <= _DEEPEST_SUM

    def train(self, mode: bool = True) -> nn.Module:
        self._kept.clear()
        return super().train(mode)

    def uses_integers(self) -> bool:
        """Whether the next forward multiplies codes."""
        learning = self.training or self.input_quantizer.training or torch.is_grad_enabled()
        return self.integers and not learning

    def levels(self) -> tuple[Tensor, Tensor]:
        """The weight as half-integers and their lengths, float32 [VECQ V1]; of uL2Q's levels less the means."""
        codes, alpha = self.weight_quantizer.codes(self.weight)
        return codes.float() + 0.5, alpha

    def quantized_weight(self) -> Tensor:
        return self.weight_quantizer(self.weight)

    def quantized_bias(self) -> Tensor | None:
        bias = self.bias
        if bias is not None:
            bias = self.bias_quantizer(bias)
        return bias

    def weight_codes(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Codes, their lengths, the sums of the levels of every output, and the bias."""
        codes, alpha = self.weight_quantizer.codes(self.weight)
        sums = (codes.flatten(1).sum(1, dtype=torch.int32) + 0.5 * codes[0].numel()) * alpha
        return codes, alpha, sums, self.quantized_bias()

    def kept_weight_codes(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """`weight_codes`, made again only where something changed; TorchScript makes them in every call."""
        if torch.jit.is_scripting():
            return self.weight_codes()
        return self._kept_codes()

    @torch.jit.unused
    def _kept_codes(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        bias = [] if self.bias is None else [self.bias, self.bias_quantizer.alpha]
        return self._kept.get([self.weight, self.weight_quantizer.alpha, *bias], self.weight_codes)

    def pack(self) -> dict[str, Tensor]:
        """Codes and lengths; nothing beyond 8 bits, where the float weight is kept."""
        return self.weight_quantizer.pack(self.weight)

    def unpack(self, tensors: Mapping[str, Tensor]) -> None:
        self.weight_quantizer.unpack(self.weight, tensors)

    def pack_others(self) -> dict[str, dict[str, Tensor]]:
        """The bias, where the scheme quantises it."""
        parts = {} if self.bias is None else self.bias_quantizer.pack(self.bias)
        return {"bias": parts} if parts else {}

    def unpack_others(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        for parts in tensors.values():
            self.bias_quantizer.unpack(self.bias, parts)


@swaps(VecQ, nn.Linear)
class VecQLinear(VecQLayer, nn.Linear):
    """nn.Linear on half-integer levels: float [..., in_features] -> [..., out_features].

    `quintil.quantize_` turns nn.Linear into it; directly: VecQLinear(<arguments of nn.Linear>, scheme=VecQ()).
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.uses_integers():
            codes, length = self.input_quantizer.codes(input)
            weight, alpha, sums, bias = self.kept_weight_codes()
            bits = self.input_quantizer.bits, self.weight_quantizer.bits
            return linear(codes, length, weight, alpha, sums, bias, bits[0], bits[1]).to(input.dtype)
        output = F.linear(self.input_quantizer(input), self.quantized_weight(), self.quantized_bias())
        return self.output_quantizer(output)


class _VecQConv(VecQLayer):
    """What convolutions share."""

    overridable = ("forward", "_conv_forward")

    def attach(self, scheme: VecQ) -> None:
        super().attach(scheme)
        self._geometry = _even_geometry(self)

    def detach(self) -> None:
        del self._geometry
        super().detach()

    @torch.jit.unused
    def has_integers(self, scheme: VecQ) -> bool:
        """As for linear layers; groups, other padding than zeros and padding of unequal sides stay in float32."""
        plain = self.groups == 1 and self.padding_mode == "zeros" and even_padding(self) is not None
        return plain and super().has_integers(scheme)

    def forward(self, input: Tensor) -> Tensor:
        if self.uses_integers():
            return self._integer_forward(input)
        output = self._conv_forward(self.input_quantizer(input), self.quantized_weight(), self.quantized_bias())
        return self.output_quantizer(output)

    def _integer_forward(self, input: Tensor) -> Tensor:
        """With the missing dimensions of a batch and of an image inserted."""
        flat, single = self.weight.dim() == 3, input.dim() < self.weight.dim()
        image = input.unsqueeze(0) if single else input
        image = image.unsqueeze(2) if flat else image
        codes, length = self.input_quantizer.codes(image)
        weight, alpha, sums, bias = self.kept_weight_codes()
        weight = weight.unsqueeze(2) if flat else weight
        bits = self.input_quantizer.bits, self.weight_quantizer.bits
        output = conv2d(codes, length, weight, alpha, sums, bias, self._geometry, bits[0], bits[1])
        output = output.squeeze(2) if flat else output
        output = output.squeeze(0) if single else output
        return output.to(input.dtype)


def _even_geometry(conv: nn.Module) -> list[int]:
    """Stride, padding and dilation of an image, rows before columns."""
    fill = 2 - len(conv.kernel_size)
    padding = even_padding(conv) or (0,) * len(conv.kernel_size)
    return [*(1,) * fill, *conv.stride, *(0,) * fill, *padding, *(1,) * fill, *conv.dilation]


@swaps(VecQ, nn.Conv1d)
class VecQConv1d(_VecQConv, nn.Conv1d):
    """nn.Conv1d on half-integer levels: float [N, C, L] -> [N, O, L'], or both without N."""


@swaps(VecQ, nn.Conv2d)
class VecQConv2d(_VecQConv, nn.Conv2d):
    """nn.Conv2d on half-integer levels: float [N, C, H, W] -> [N, O, H', W'], or both without N.

    Padding adds zeros to the quantised input, where no level is zero.
    """


@swaps(VecQ, nn.ConvTranspose2d)
class VecQConvTranspose2d(VecQLayer, nn.ConvTranspose2d):
    """nn.ConvTranspose2d on half-integer levels, in float32 in evaluation too: [N, C, H, W] -> [N, O, H', W']."""

    @torch.jit.unused
    def has_integers(self, scheme: VecQ) -> bool:
        return False

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        padding = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation
        )  # fmt: skip
        output = F.conv_transpose2d(
            self.input_quantizer(input), self.quantized_weight(), self.quantized_bias(), self.stride, self.padding,
            padding, self.groups, self.dilation,
        )  # fmt: skip
        return self.output_quantizer(output)


unsupported(
    VecQ,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose3d,
    nn.Bilinear,
    nn.RNN,
    nn.RNNCell,
    nn.GRUCell,
)
