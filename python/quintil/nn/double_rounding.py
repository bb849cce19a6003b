"""nn.Linear and nn.Conv2d whose weight and input take one of several widths, chosen at run time [DR 2.1-2.4].

In training, and wherever a gradient can flow, the forward is the float32 product of values on the grids of the current
width. `set_bits` moves no data: the next forward rounds the weight to the new width and takes that width's input step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quintil.nn.quantizers import InputQuantizer, WeightQuantizer
from quintil.nn.swap import SwappedLayer, swaps, unsupported
from quintil.schemes import DoubleRounding


class _DoubleRoundingLayer(SwappedLayer):
    """What both share: quantisers of the weight and, by width, of the input, and the current width `bits`."""

    def attach(self, scheme: DoubleRounding) -> None:
        super().attach(scheme)
        self.widths = list(scheme.bits)
        self.bits = scheme.highest
        device = self.weight.device
        channels = self.weight.size(0) if scheme.per_channel else None
        stored = scheme.bits[:1] if scheme.shared_step else scheme.bits
        self.weight_quantizers = nn.ModuleDict(
            {str(b): WeightQuantizer(b, channels, scheme, device) for b in stored}
        ).train(self.training)
        self.input_quantizers = nn.ModuleDict({str(b): InputQuantizer(b, scheme, device) for b in scheme.bits}).train(
            self.training
        )

    def detach(self) -> None:
        del self.weight_quantizers, self.input_quantizers, self.widths, self.bits
        super().detach()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, bits={self.bits}"

    @torch.jit.export
    def set_bits(self, bits: int) -> None:
        """Take another of the scheme's widths; ValueError for any other."""
        if bits not in self.widths:
            raise ValueError(f"set_bits: expected bits to be one of {self.widths}, got {bits}")
        self.bits = bits

    def quantized_weight(self) -> Tensor:
        """The weight on the grid of the current width, float."""
        weight = self.weight
        for quantizer in self.weight_quantizers.values():
            if len(self.weight_quantizers) == 1 or quantizer.bits == self.bits:
                weight = quantizer(self.weight, self.bits)
        return weight

    def quantized_input(self, input: Tensor) -> Tensor:
        """An input on the grid of the current width, float."""
        output = input
        for quantizer in self.input_quantizers.values():
            if quantizer.bits == self.bits:
                output = quantizer(input)
        return output


@swaps(DoubleRounding, nn.Linear)
class DoubleRoundingLinear(_DoubleRoundingLayer, nn.Linear):
    """nn.Linear at several widths: float [..., in_features] -> [..., out_features].

    `quintil.quantize_` turns nn.Linear into it; directly: DoubleRoundingLinear(<arguments of nn.Linear>,
    scheme=DoubleRounding()).
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(self.quantized_input(input), self.quantized_weight(), self.bias)


@swaps(DoubleRounding, nn.Conv2d)
class DoubleRoundingConv2d(_DoubleRoundingLayer, nn.Conv2d):
    """nn.Conv2d at several widths, with any geometry: float [N, C, H, W] -> [N, O, H', W'], or both without N.

    Padding adds values to the quantised input. `quintil.quantize_` turns nn.Conv2d into it; directly:
    DoubleRoundingConv2d(<arguments of nn.Conv2d>, scheme=DoubleRounding()).
    """

    overridable = ("forward", "_conv_forward")

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(self.quantized_input(input), self.quantized_weight(), self.bias)


unsupported(
    DoubleRounding,
    nn.Conv1d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
