"""Convolutions with VecQ weights: nn.Conv1d, nn.Conv2d and nn.ConvTranspose2d [VECQ 2.9]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quintil.nn import half_products, run_products
from quintil.nn.geometry import even_padding
from quintil.nn.swap import swaps
from quintil.nn.vecq import VecQLayer, elements_per_row
from quintil.schemes import VecQ


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
    def has_one_sum(self, scheme: VecQ) -> bool:
        """As for linear layers, without groups and with the padding that the op itself adds."""
        plain = self.groups == 1 and self.padding_mode == "zeros" and even_padding(self) is not None
        return plain and super().has_one_sum(scheme)

    def forward(self, input: Tensor) -> Tensor:
        if self.uses_integers():
            return self._integer_forward(input)
        output = self._conv_forward(self.input_quantizer(input), self.quantized_weight(), self.quantized_bias())
        return self.output_quantizer(output)

    def _integer_forward(self, input: Tensor) -> Tensor:
        """With the missing dimensions of a batch and of an image inserted."""
        flat, single = self.weight.dim() == 3, input.dim() < self.weight.dim()
        image = input.unsqueeze(0) if single else input
        if self.padding_mode != "zeros":  # copies of numbers have the codes of the numbers
            image = F.pad(image, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        image = image.unsqueeze(2) if flat else image
        codes, length = self.input_quantizer.codes(image)
        output = self._convolved(codes, length, flat)
        output = output.squeeze(2) if flat else output
        output = output.squeeze(0) if single else output
        return output.to(input.dtype)

    def _convolved(self, codes: Tensor, length: Tensor, flat: bool) -> Tensor:
        bits = self.input_quantizer.bits, self.weight_quantizer.bits
        if self.joins:
            weight, alpha, sums, bias = self.kept_weight_codes()
            weight = weight.unsqueeze(2) if flat else weight
            return half_products.conv2d(codes, length, weight, alpha, sums, bias, self._geometry, bits[0], bits[1])
        weight, lengths, bias = self.kept_run_codes()
        weight = weight.unsqueeze(2) if flat else weight
        return run_products.conv2d(
            codes, length, weight, lengths, self.starts, bias, self._geometry, self.groups, bits[0], bits[1],
            [1, 1], self._uneven_padding(),
        )  # fmt: skip

    def _uneven_padding(self) -> list[int]:
        """Of padding='same' where sides differ, as `F.pad` takes it; other padding is part of the geometry."""
        if self.padding_mode == "zeros" and self._geometry[2:4] == [0, 0]:
            return self._reversed_padding_repeated_twice
        return [0, 0]


def _even_geometry(conv: nn.Module) -> list[int]:
    """Stride, padding and dilation of an image, rows before columns; no padding where it is added before."""
    fill = 2 - len(conv.kernel_size)
    inside = even_padding(conv) if conv.padding_mode == "zeros" else None
    padding = inside or (0,) * len(conv.kernel_size)
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
    """nn.ConvTranspose2d on half-integer levels: float [N, C, H, W] -> [N, O, H', W'], or both without N.

    A length per channel belongs to x[i] of the weight, so here to an input channel.
    """

    def attach(self, scheme: VecQ) -> None:
        super().attach(scheme)
        self._run_lengths = self._first_lengths(scheme)

    def detach(self) -> None:
        del self._run_lengths
        super().detach()

    @torch.jit.unused
    def has_one_sum(self, scheme: VecQ) -> bool:
        return False

    @torch.jit.unused
    def _places(self, scheme: VecQ) -> Tensor:
        """Which of the lengths every weight has, int64 [O, summed weights], as the convolution sums them."""
        elements = elements_per_row(self.weight)
        run = scheme.group_size or (elements if scheme.per_channel else self.weight.numel())
        places = (torch.arange(self.weight.numel()) // max(1, run)).reshape(self.weight.shape)
        return run_products.as_forward(places, self.groups).flatten(1)

    @torch.jit.unused
    def weight_starts(self, scheme: VecQ) -> list[int]:
        """Where the length changes for any output."""
        places = self._places(scheme)
        changes = (places[:, 1:] != places[:, :-1]).any(0).nonzero().flatten() + 1
        return [0, *changes.tolist(), places.size(1)]

    @torch.jit.unused
    def _first_lengths(self, scheme: VecQ) -> Tensor:
        """Which length every output has in every run, [O, runs]."""
        return self._places(scheme)[:, self.starts[:-1]]

    def run_codes(self) -> tuple[Tensor, Tensor, Tensor | None]:
        codes, alpha = self.weight_quantizer.codes(self.weight)
        bits = self.weight_quantizer.bits
        weight = run_products.as_forward(run_products.centred(codes, bits), self.groups)
        lengths = alpha.reshape(-1)[self._run_lengths] * run_products.unit(bits)
        return weight, lengths, self.quantized_bias()

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        padding = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation
        )  # fmt: skip
        if self.uses_integers():
            return self._integer_forward(input, padding)
        output = F.conv_transpose2d(
            self.input_quantizer(input), self.quantized_weight(), self.quantized_bias(), self.stride, self.padding,
            padding, self.groups, self.dilation,
        )  # fmt: skip
        return self.output_quantizer(output)

    def _integer_forward(self, input: Tensor, output_padding: list[int]) -> Tensor:
        single = input.dim() == 3
        codes, length = self.input_quantizer.codes(input.unsqueeze(0) if single else input)
        weight, lengths, bias = self.kept_run_codes()
        around = run_products.transposed_padding(self.kernel_size, self.padding, self.dilation, output_padding)
        output = run_products.conv_transpose2d(
            codes, length, weight, lengths, self.starts, bias, self.stride, self.dilation, around, self.groups,
            self.input_quantizer.bits, self.weight_quantizer.bits,
        )  # fmt: skip
        output = output.squeeze(0) if single else output
        return output.to(input.dtype)
