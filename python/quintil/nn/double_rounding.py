"""nn.Linear and nn.Conv2d whose weight and input take one of several widths, chosen at run time [DR 2.1-2.4].

In training, and wherever gradients are enabled, the forward is the float32 product of values on the grids of the
current width. In evaluation mode under `torch.no_grad` it multiplies integers: codes of the input, and the stored
integers of the weight rounded to the width, kept until weight, step, width or mode change. Both multiply the same
integers. `set_bits` moves no data: the next forward rounds to the new width and takes that width's input step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quintil import _library  # noqa: F401  (registers the ops)
from quintil.nn.geometry import even_padding
from quintil.nn.kept import state_of
from quintil.nn.quantizers import InputQuantizer, WeightQuantizer
from quintil.nn.swap import SwappedLayer, swaps, unsupported
from quintil.schemes import DoubleRounding

_double_round_out = torch.ops.quintil.double_round.out

_DEEPEST_SUM = 65_793  # products of 8-bit codes that surely fit int32


class _DoubleRoundingLayer(SwappedLayer):
    """What both share: quantisers of the weight and, by width, of the input, and the current width `bits`."""

    def attach(self, scheme: DoubleRounding) -> None:
        super().attach(scheme)
        self.widths = list(scheme.bits)
        self.bits = scheme.stored_bits
        self.integers = self.has_integers(scheme)
        self._kept = KeptCodes()
        self.register_buffer("output_gain", None)
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
        if self.output_gain is not None:
            self.weight.data.mul_(self.output_gain.reshape(-1, *[1] * (self.weight.dim() - 1)))
        del (
            self.output_gain,
            self.weight_quantizers,
            self.input_quantizers,
            self.widths,
            self.bits,
            self.integers,
            self._kept,
        )
        super().detach()

    @torch.jit.unused
    def fold(self, gain: Tensor, shift: Tensor) -> None:
        """Multiply the outputs by `gain` and add `shift`, one value per output; the codes stay what they are.

        What is folded in belongs to the current width, so the layer has no other from then on.
        """
        with torch.no_grad():
            bias = shift if self.bias is None else self.bias * gain + shift
            self.bias = nn.Parameter(bias.to(self.weight.dtype), requires_grad=False)
            self.output_gain = gain if self.output_gain is None else self.output_gain * gain
        self.widths = [self.bits]

    @torch.jit.unused
    def fold_at(self, bits: int) -> None:
        """Take the form that `fold` gives at one of the scheme's widths, with a gain and a bias to be filled in."""
        self.widths = [bits]
        self.set_bits(bits)
        outputs = self.weight.size(0)
        self.fold(self.weight.new_ones(outputs, dtype=torch.float32), self.weight.new_zeros(outputs))

    @torch.jit.unused
    def has_integers(self, scheme: DoubleRounding) -> bool:
        """Whether evaluation multiplies integers: sums fit int32, and the weight is rounded as codes are."""
        same_rounding = scheme.weight_source == "stored" or scheme.rounding == "half_even"
        return same_rounding and self.weight[0].numel() <= _DEEPEST_SUM

    def train(self, mode: bool = True) -> nn.Module:
        self._kept.clear()
        return super().train(mode)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, bits={self.bits}"

    @torch.jit.export
    def set_bits(self, bits: int) -> None:
        """Take another of the scheme's widths; ValueError for any other."""
        if bits not in self.widths:
            raise ValueError(f"set_bits: expected bits to be one of {self.widths}, got {bits}")
        self.bits = bits

    def pack(self) -> dict[str, Tensor]:
        """The stored integers of the highest width; nothing where lower widths need the float weight.

        RuntimeError before the first training forward.
        """
        stored = self.stored_codes()
        return {} if stored is None else {"codes": stored}

    def unpack(self, tensors: Mapping[str, Tensor]) -> None:
        step = self.weight_quantizers[str(self.scheme.stored_bits)].step
        with torch.no_grad():
            self.weight.copy_(tensors["codes"] * step.reshape(-1, *[1] * (self.weight.dim() - 1)))

    def uses_integers(self) -> bool:
        """Whether the next forward multiplies integers. One bit has no codes of its own for inputs."""
        return self.integers and self.bits > 1 and not self.training and not torch.is_grad_enabled()

    @torch.jit.unused
    def stored_codes(self) -> Tensor | None:
        """int8 codes of the weight at the stored width; None where lower widths are not made from them."""
        if self.scheme.weight_source == "float" or not self.scheme.shared_step:
            return None
        quantizer = self.weight_quantizers[str(self.scheme.stored_bits)]
        if not bool(quantizer.ready):
            raise RuntimeError(quantizer.not_ready())
        with torch.no_grad():
            return quantizer.stored_codes(self.weight)

    def weight_codes(self) -> tuple[Tensor, Tensor]:
        """int8 codes of the weight at the current width and their float32 step (0-dim or [O]) with the gain."""
        codes, step = self.weight, self.weight
        for quantizer in self.weight_quantizers.values():
            if len(self.weight_quantizers) == 1 or quantizer.bits == self.bits:
                codes, step = quantizer.codes(self.weight, self.bits)
        gain = self.output_gain
        if gain is not None:
            step = step * gain
        return codes, step

    def kept_weight_codes(self) -> tuple[Tensor, Tensor]:
        """`weight_codes`, computed again only where something changed; TorchScript computes them in every call."""
        if torch.jit.is_scripting():
            return self.weight_codes()
        return self._kept.get(self)

    def input_codes(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Codes of an input at the current width, their step, and their offset if the scheme has one."""
        codes, step = input, input
        offset: Tensor | None = None
        for quantizer in self.input_quantizers.values():
            if quantizer.bits == self.bits:
                codes, step, offset = quantizer.codes(input), quantizer.step, quantizer.offset
        return codes, step, offset

    def quantized_weight(self) -> Tensor:
        """The weight on the grid of the current width, times the gain that was folded in, float."""
        weight = self.weight
        for quantizer in self.weight_quantizers.values():
            if len(self.weight_quantizers) == 1 or quantizer.bits == self.bits:
                weight = quantizer(self.weight, self.bits)
        gain = self.output_gain
        if gain is not None:
            weight = weight * gain.reshape([-1] + [1] * (weight.dim() - 1))
        return weight

    def quantized_input(self, input: Tensor) -> Tensor:
        """An input on the grid of the current width, float."""
        output = input
        for quantizer in self.input_quantizers.values():
            if quantizer.bits == self.bits:
                output = quantizer(input)
        return output


class KeptCodes:
    """Codes of one layer's weight, at the stored and at the current width, and what they were made from.

    A switch rounds integers to integers, in the same memory. Copies and pickles are empty.
    """

    def __init__(self) -> None:
        self.clear()

    def __reduce__(self) -> tuple:
        return KeptCodes, ()

    def clear(self) -> None:
        self._state: tuple[int, ...] = ()
        self._bits = 0
        self._stored: Tensor | None = None
        self._codes: tuple[Tensor, Tensor] | None = None
        self._steps: dict[int, Tensor] = {}

    def get(self, layer: _DoubleRoundingLayer) -> tuple[Tensor, Tensor]:
        """The layer's codes."""
        gain = layer.output_gain
        sources = [layer.weight, *(quantizer.step for quantizer in layer.weight_quantizers.values())]
        if gain is not None:
            sources.append(gain)
        state, bits = state_of(sources), layer.bits
        if state is None:
            return layer.weight_codes()
        if state != self._state:
            self.clear()
            self._state, self._stored = state, layer.stored_codes()
            if self._stored is not None and self._stored.dim() == 4:  # the order in which int_conv2d reads them
                self._stored = self._stored.contiguous(memory_format=torch.channels_last)
        if self._codes is None or bits != self._bits:
            self._bits, self._codes = bits, self._switched(layer, bits)
        return self._codes

    def _switched(self, layer: _DoubleRoundingLayer, bits: int) -> tuple[Tensor, Tensor]:
        if self._stored is None:
            return layer.weight_codes()
        scheme = layer.scheme
        if bits not in self._steps:
            step = layer.weight_quantizers[str(scheme.stored_bits)].step_of(bits)
            self._steps[bits] = step if layer.output_gain is None else step * layer.output_gain
        codes = torch.empty_like(self._stored) if self._codes is None else self._codes[0]
        _double_round_out(self._stored, scheme.stored_bits, bits, rounding=scheme.rounding, out=codes)
        return codes, self._steps[bits]


@swaps(DoubleRounding, nn.Linear)
class DoubleRoundingLinear(_DoubleRoundingLayer, nn.Linear):
    """nn.Linear at several widths: float [..., in_features] -> [..., out_features].

    `quintil.quantize_` turns nn.Linear into it; directly: DoubleRoundingLinear(<arguments of nn.Linear>,
    scheme=DoubleRounding()).
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.uses_integers():
            return self._integer_forward(input)
        return F.linear(self.quantized_input(input), self.quantized_weight(), self.bias)

    def _integer_forward(self, input: Tensor) -> Tensor:
        weight, weight_step = self.kept_weight_codes()
        codes, step, offset = self.input_codes(input)
        output = torch.ops.quintil.int_linear(codes, step, weight, weight_step, self.bias)
        if offset is not None:
            output = output + offset * (weight.sum(1, dtype=torch.int32) * weight_step)
        return output.to(input.dtype)


@swaps(DoubleRounding, nn.Conv2d)
class DoubleRoundingConv2d(_DoubleRoundingLayer, nn.Conv2d):
    """nn.Conv2d at several widths, with any geometry: float [N, C, H, W] -> [N, O, H', W'], or both without N.

    Padding adds values to the quantised input. `quintil.quantize_` turns nn.Conv2d into it; directly:
    DoubleRoundingConv2d(<arguments of nn.Conv2d>, scheme=DoubleRounding()).
    """

    overridable = ("forward", "_conv_forward")

    def attach(self, scheme: DoubleRounding) -> None:
        super().attach(scheme)
        self.even_padding = even_padding(self) or (0, 0)

    def detach(self) -> None:
        del self.even_padding
        super().detach()

    @torch.jit.unused
    def has_integers(self, scheme: DoubleRounding) -> bool:
        """As for linear layers; groups, other padding than zeros and padding of unequal sides stay in float32."""
        plain = self.groups == 1 and self.padding_mode == "zeros" and even_padding(self) is not None
        return plain and super().has_integers(scheme)

    def forward(self, input: Tensor) -> Tensor:
        if self.uses_integers():
            batch = input.unsqueeze(0) if input.dim() == 3 else input
            output = self._integer_forward(batch)
            return output.squeeze(0) if input.dim() == 3 else output
        return self._conv_forward(self.quantized_input(input), self.quantized_weight(), self.bias)

    def _integer_forward(self, input: Tensor) -> Tensor:
        weight, weight_step = self.kept_weight_codes()
        codes, step, offset = self.input_codes(input)
        output = torch.ops.quintil.int_conv2d(
            codes, step, weight, weight_step, self.bias, self.stride, self.even_padding, self.dilation
        )
        if offset is not None:  # padding has none, so it depends on the place
            values = weight * weight_step.reshape(-1, 1, 1, 1)
            image = offset.expand(1, input.size(1), input.size(2), input.size(3))
            output = output + F.conv2d(image, values, None, self.stride, self.even_padding, self.dilation)
        return output.to(input.dtype)


unsupported(
    DoubleRounding,
    nn.Conv1d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
