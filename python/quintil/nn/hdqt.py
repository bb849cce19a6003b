"""HadamardLinear and HadamardConv2d: nn.Linear and nn.Conv2d with all three products on integers [HDQT 2.2-2.5]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import quintil.functional as F
from quintil.functional import can_have_gradient, draw_seed
from quintil.nn.geometry import even_padding, why_not_plain
from quintil.nn.swap import SwappedLayer, swaps, unsupported
from quintil.schemes import HDQT

_FAINT = 1e-3  # of a step: rounds to 0


def level_weight(weight: Tensor, bits: int, range_fraction: float) -> Tensor:
    """Numbers whose codes of `bits` bits [H1] are twice VecQ's half-integers of bits - 1 bits [VECQ V3, V6, V10].

    weight: float of any shape. Returns float32, with the identity as gradient [VECQ V8]. The outermost level is always
    taken: numbers that stop short of it (a uniform distribution's) get closer levels. [H1] takes part of the largest
    number as the range, so those there are enlarged, for half of VecQ's length to be the step. A weight without a
    negative number has unsigned codes instead, those nearest to the levels.
    """
    if weight.numel() == 0:
        return weight
    numbers = weight.float()
    outermost = 2.0 ** (bits - 2) - 0.5
    step = torch.ops.quintil.vecq_step(numbers.detach(), bits - 1)
    step = torch.minimum(step, numbers.detach().abs().amax() / outermost)
    values, codes, _ = torch.ops.quintil.vecq_quantize(numbers, bits - 1, step=step)
    beyond = values.detach() * (1.0 / range_fraction - 1.0)
    return values + torch.where((codes + 0.5).abs() == outermost, beyond, torch.zeros_like(beyond))


_linear = torch.ops.quintil.hadamard_linear.default
_conv2d = torch.ops.quintil.hadamard_conv2d.default


def _defaults(op: torch._ops.OpOverload) -> dict[str, Any]:
    return {argument.name: argument.default_value for argument in op._schema.arguments if argument.has_default_value()}


class _HadamardLayer(SwappedLayer):
    """What both layers share. The forward has two forms.

    Python and `torch.compile` take `_eager`: the seed is drawn if a gradient can flow, in either mode; in evaluation
    mode the forward operands round to nearest, so that a prediction is deterministic.

    `torch.jit.script` needs every keyword spelled and the draw inside the graph, `_scripted`: a seed per call in
    training mode, and no stochastic operand at all in evaluation mode, so that freezing cannot bake a draw in and an
    evaluation graph's own gradients round to nearest [KERN 3.4].
    """

    def attach(self, scheme: HDQT) -> None:
        super().attach(scheme)
        self._level_bits = scheme.bits if scheme.weight_quantizer == "vecq" else 0
        self._range_fraction = scheme.range_fraction
        self._script_options = tuple(self._scheme_options(training=True).values())
        # By mode, without what the op assumes anyway: binding every keyword would cost 3 us per call.
        modes = (self._scheme_options(training=False), self._scheme_options(training=True))
        self._options = tuple({k: v for k, v in mode.items() if v != self._op_defaults[k]} for mode in modes)

    def detach(self) -> None:
        del self._options, self._script_options, self._level_bits, self._range_fraction
        super().detach()

    def operand_weight(self) -> Tensor:
        """The weight as the op takes it: itself, or numbers whose codes are VecQ's."""
        weight = self.weight
        if self._level_bits > 0:
            weight = level_weight(weight, self._level_bits, self._range_fraction)
        return weight

    def pack(self) -> dict[str, Tensor]:
        """Codes and step of the forward, and the element of the largest size, from which the range follows [H1].

        Nothing for VecQ's codes: of their values other levels would be chosen, so the float weight is kept.
        """
        weight = self.weight.detach().float()
        if weight.numel() == 0 or self._level_bits > 0:
            return {}
        codes, step = F.quantize(weight, self.scheme.bits, range_fraction=self.scheme.range_fraction)
        return {"codes": codes, "scale": step, "peak": weight.abs().max()}

    def unpack(self, tensors: Mapping[str, Tensor]) -> None:
        codes, peak = tensors["codes"], tensors["peak"]
        weight = (codes * tensors["scale"]).flatten()
        ends = codes.flatten().to(torch.int16).abs()
        at = int(ends.argmax())
        weight[at] = peak.copysign(weight[at])
        if codes.dtype == torch.int8 and not bool((weight < 0).any()):  # signed codes need a negative element
            weight[int(ends.argmin())] = -_FAINT * tensors["scale"]
        with torch.no_grad():
            self.weight.copy_(weight.reshape(codes.shape))

    def _seed(self, input: Tensor) -> int | None:
        if self.scheme.stochastic and can_have_gradient(input, self.weight, self.bias):
            return draw_seed()
        return None


@swaps(HDQT, nn.Linear)
class HadamardLinear(_HadamardLayer, nn.Linear):
    """nn.Linear on integers: float [..., in_features] -> [..., out_features].

    `quintil.quantize_` turns nn.Linear into it; directly: HadamardLinear(<arguments of nn.Linear>, scheme=HDQT()).
    """

    __constants__ = [*nn.Linear.__constants__, "_script_options"]
    _op_defaults = _defaults(_linear)

    def _scheme_options(self, *, training: bool) -> dict[str, Any]:
        return self.scheme.linear_options(training=training)

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self._scripted(input)
        return self._eager(input)

    @torch.jit.unused
    def _eager(self, input: Tensor) -> Tensor:
        return _linear(input, self.operand_weight(), self.bias, seed=self._seed(input), **self._options[self.training])

    def _scripted(self, input: Tensor) -> Tensor:
        (bits, accumulator_bits, tile_size, backward_accumulator_bits, weight_gradient_accumulator_bits,
         backward_tile_size, accumulate, overflow, hadamard, hadamard_block, requantize, dc_row, ste, sites,
         range_fraction) = self._script_options  # fmt: skip
        seed: int | None = None
        if self.training and sites != "" and torch.is_grad_enabled():
            seed = int(torch.randint(0, 1 << 62, (1,)).item())
        return torch.ops.quintil.hadamard_linear(
            input, self.operand_weight(), self.bias,
            bits=bits, accumulator_bits=accumulator_bits, tile_size=tile_size,
            backward_accumulator_bits=backward_accumulator_bits,
            weight_gradient_accumulator_bits=weight_gradient_accumulator_bits, backward_tile_size=backward_tile_size,
            accumulate=accumulate, overflow=overflow, hadamard=hadamard, hadamard_block=hadamard_block,
            requantize=requantize, dc_row=dc_row, ste=ste, stochastic=sites if self.training else "",
            range_fraction=range_fraction, seed=seed,
        )  # fmt: skip


@swaps(HDQT, nn.Conv2d)
class HadamardConv2d(_HadamardLayer, nn.Conv2d):
    """nn.Conv2d on integers: float [N, C, H, W] -> [N, O, H', W'], or both without N; keeps the memory format.

    groups = 1 and zero padding only. `quintil.quantize_` turns nn.Conv2d into it; directly:
    HadamardConv2d(<arguments of nn.Conv2d>, scheme=HDQT()).
    """

    __constants__ = [*nn.Conv2d.__constants__, "_script_options", "_pad"]
    overridable = ("forward", "_conv_forward")
    _op_defaults = _defaults(_conv2d)

    @classmethod
    def refusal(cls, module: nn.Conv2d, scheme: HDQT) -> str | None:
        return why_not_plain(module)

    def attach(self, scheme: HDQT) -> None:
        super().attach(scheme)
        self._pad = even_padding(self)

    def detach(self) -> None:
        del self._pad
        super().detach()

    def paper_init(self) -> None:
        """PyTorch's default initialisation, and a bias if there is none [HDQT 2.6]."""
        if self.bias is None:
            self.bias = nn.Parameter(self.weight.new_empty(self.out_channels))
        nn.Conv2d.reset_parameters(self)

    def _scheme_options(self, *, training: bool) -> dict[str, Any]:
        return self.scheme.conv2d_options(training=training)

    def forward(self, input: Tensor) -> Tensor:
        batch = input.unsqueeze(0) if input.dim() == 3 else input
        if torch.jit.is_scripting():
            output = self._scripted(batch)
        else:
            output = self._eager(batch)
        return output.squeeze(0) if input.dim() == 3 else output

    @torch.jit.unused
    def _eager(self, input: Tensor) -> Tensor:
        options = self._options[self.training]
        seed = self._seed(input)
        weight = self.operand_weight()
        return _conv2d(input, weight, self.bias, self.stride, self._pad, self.dilation, seed=seed, **options)

    def _scripted(self, input: Tensor) -> Tensor:
        (bits, accumulator_bits, tile_size, backward_accumulator_bits, weight_gradient_accumulator_bits,
         backward_tile_size, accumulate, overflow, hadamard, hadamard_block, requantize, dc_row, ste, sites,
         range_fraction, conv_backward, tile_order) = self._script_options  # fmt: skip
        seed: int | None = None
        if self.training and sites != "" and torch.is_grad_enabled():
            seed = int(torch.randint(0, 1 << 62, (1,)).item())
        return torch.ops.quintil.hadamard_conv2d(
            input, self.operand_weight(), self.bias, self.stride, self._pad, self.dilation,
            bits=bits, accumulator_bits=accumulator_bits, tile_size=tile_size,
            backward_accumulator_bits=backward_accumulator_bits,
            weight_gradient_accumulator_bits=weight_gradient_accumulator_bits, backward_tile_size=backward_tile_size,
            accumulate=accumulate, overflow=overflow, hadamard=hadamard, hadamard_block=hadamard_block,
            requantize=requantize, dc_row=dc_row, ste=ste, stochastic=sites if self.training else "",
            range_fraction=range_fraction, conv_backward=conv_backward, tile_order=tile_order, seed=seed,
        )  # fmt: skip


unsupported(
    HDQT,
    nn.Conv1d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
