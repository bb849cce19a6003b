"""Layers with one VecQ weight, and activations where the scheme quantises them [VECQ 2.6-2.9]; nn.Linear.

In training, and wherever gradients are enabled, the forward is the float32 product of values on levels. In evaluation
mode under `torch.no_grad`, layers with quantised inputs multiply codes (`half_products.py`, and where an output has
several lengths, `run_products.py`). There a NaN of the input counts as code 0, the level above 0; `quintil.set_checked`
refuses it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quintil.nn import half_products, run_products
from quintil.nn.kept import Kept
from quintil.nn.levels import ActivationQuantizer, LevelQuantizer
from quintil.nn.swap import SwappedLayer, swaps, unsupported
from quintil.schemes import VecQ

DEEPEST_SUM = 33_025  # products of odd 8-bit codes that surely fit int32


def elements_per_row(weight: Tensor) -> int:
    """Elements of weight[0], which need not exist."""
    return math.prod(weight.shape[1:])


def level_sizes(weight: Tensor, scheme: VecQ) -> tuple[int, ...]:
    """Sizes of a weight's lengths."""
    if scheme.group_size:
        return weight.size(0), elements_per_row(weight) // scheme.group_size
    return (weight.size(0),) if scheme.per_channel else ()


def run_starts(elements: int, scheme: VecQ) -> list[int]:
    """Where runs of one length start among the elements of weight[0], and the end."""
    return [*range(0, elements, scheme.group_size or max(1, elements)), elements]


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
        self.starts = self.weight_starts(scheme)
        self.joins = self.has_one_sum(scheme)
        self.integers = self.has_integers(scheme)
        self._kept = Kept()

    def detach(self) -> None:
        del self.weight_quantizer, self.bias_quantizer, self.input_quantizer, self.output_quantizer
        del self.starts, self.joins, self.integers, self._kept
        super().detach()

    @classmethod
    def refusal(cls, module: nn.Module, scheme: VecQ) -> str | None:
        return uneven_groups(module.weight, scheme)

    def _quantizers(self) -> tuple[nn.Module, ...]:
        return self.weight_quantizer, self.bias_quantizer, self.input_quantizer, self.output_quantizer

    @torch.jit.unused
    def weight_starts(self, scheme: VecQ) -> list[int]:
        """Where an output's weights change their length, in the order in which they are summed, and their number."""
        return run_starts(elements_per_row(self.weight), scheme)

    @torch.jit.unused
    def has_one_sum(self, scheme: VecQ) -> bool:
        """Whether an output is one length times one sum over the whole input, which `half_products` has."""
        return scheme.group_size == 0

    @torch.jit.unused
    def has_integers(self, scheme: VecQ) -> bool:
        """Whether evaluation multiplies codes: of bytes, in sums that fit int32."""
        bits = scheme.activation_bits if scheme.activation_place == "input" else None
        if bits is None or max(bits, scheme.weight_bits) > 8 or scheme.levels == "ul2q":
            return False
        longest = max((end - start for start, end in zip(self.starts, self.starts[1:])), default=0)
        return self.weight.numel() > 0 and longest <= DEEPEST_SUM

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

    def run_codes(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """The weight as `run_products` takes it, its lengths for every output and run, and the bias."""
        codes, alpha = self.weight_quantizer.codes(self.weight)
        bits = self.weight_quantizer.bits
        lengths = run_products.run_lengths(alpha, codes.size(0), bits)
        return run_products.centred(codes, bits), lengths, self.quantized_bias()

    def kept_weight_codes(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """`weight_codes`, made again only where something changed; TorchScript makes them in every call."""
        if torch.jit.is_scripting():
            return self.weight_codes()
        return self._kept_codes()

    def kept_run_codes(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """`run_codes` in the same way."""
        if torch.jit.is_scripting():
            return self.run_codes()
        return self._kept_runs()

    @torch.jit.unused
    def _kept_codes(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        return self._kept.get(self._sources(), self.weight_codes)

    @torch.jit.unused
    def _kept_runs(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return self._kept.get(self._sources(), self.run_codes)

    @torch.jit.unused
    def _sources(self) -> list[Tensor]:
        bias = [] if self.bias is None else [self.bias, self.bias_quantizer.alpha]
        return [self.weight, self.weight_quantizer.alpha, *bias]

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
            return self._integer_forward(input)
        output = F.linear(self.input_quantizer(input), self.quantized_weight(), self.quantized_bias())
        return self.output_quantizer(output)

    def _integer_forward(self, input: Tensor) -> Tensor:
        codes, length = self.input_quantizer.codes(input)
        bits = self.input_quantizer.bits, self.weight_quantizer.bits
        if self.joins:
            weight, alpha, sums, bias = self.kept_weight_codes()
            output = half_products.linear(codes, length, weight, alpha, sums, bias, bits[0], bits[1])
        else:
            weight, lengths, bias = self.kept_run_codes()
            output = run_products.linear(codes, length, weight, lengths, self.starts, bias, bits[0], bits[1])
        return output.to(input.dtype)


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
