"""FP134Linear and FP134Conv2d: float32 layers whose outputs, errors and weight gradients are small floats [HDQT 2.8].

Every such tensor has a `ScaledFloat`, whose integer scale follows the largest number from one training step to the
next and stays in evaluation. As in the code behind the published numbers, a layer rounds its output and the error that
arrives there; with `full` also its input and its weight.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from quintil.functional import draw_seed
from quintil.nn.swap import SwappedLayer, swaps, unsupported
from quintil.schemes import FP134
from quintil.schemes.fp134 import FORMATS

# The float of 1 sign, 6 exponent and 9 mantissa bits, subnormal numbers included, at the scale 32 [H22].
MASTER_FORMAT = (10,) * 63 + tuple(range(9, -1, -1))
MASTER_SCALE = 32


def binade(x: Tensor) -> Tensor:
    """floor(log2 max|x|), int32, 0-dim; that of 1/2 for a zero tensor, which rounds to 0 at any scale."""
    return torch.frexp(x.abs().amax().float())[1] - 1


def bounded(scale: Tensor) -> Tensor:
    """A scale at which all steps of the formats are normal float32 numbers."""
    return scale.clamp(-100, 100)


class ScaledFloat(nn.Module):
    """A format with an integer scale S that follows the tensors it rounds, in training mode [H20, H21].

    A number of binade d = S - floor(log2|y|) counts from the top. Of the rounded numbers of a call, one with d < room
    raises S by 1, none with d <= room lowers it by 1. A zero, empty or not finite tensor does not move it.
    start_at_data: S starts at floor(log2 max|x|) of the first such tensor, else at 0.
    """

    def __init__(self, bits: tuple[int, ...], room: int, device: torch.device, *, start_at_data: bool = False):
        super().__init__()
        self.bits = list(bits)
        self.room = room
        self.register_buffer("exponent", torch.zeros((), dtype=torch.int32, device=device))
        self.register_buffer("started", torch.tensor(not start_at_data, device=device))

    def forward(self, x: Tensor, seed: int | None = None) -> Tensor:
        """x rounded to nearest, with a seed stochastically, at the scale of before the call."""
        moves = self.training and x.numel() > 0
        if moves:
            self.start(x.detach())
        y = torch.ops.quintil.minifloat_quantize(x, self.bits, self.exponent, seed=seed)
        if moves:
            self.move(x.detach(), y.detach())
        return y

    def start(self, x: Tensor) -> None:
        largest = x.abs().amax()
        starts = self.started.logical_not() & (largest > 0) & torch.isfinite(largest)
        first = bounded(binade(x))
        self.exponent.copy_(torch.where(starts, first, self.exponent))
        self.started.logical_or_(starts)

    def move(self, x: Tensor, y: Tensor) -> None:
        """Numbers that were clamped count as what they are: the largest of the format has d = 0, and room is >= 1."""
        source, largest = x.abs().amax(), y.abs().amax()
        d = self.exponent - binade(y)
        up = (largest > 0) & (d < self.room)
        down = (largest == 0) | (d > self.room)
        change = up.to(torch.int32) - down.to(torch.int32)
        moves = (source > 0) & torch.isfinite(source)
        moved = torch.where(moves, self.exponent + change, self.exponent)
        self.exponent.copy_(bounded(moved))


class _RoundedGradient(torch.autograd.Function):
    """x; its gradient goes through a ScaledFloat."""

    @staticmethod
    def forward(ctx, x, quantizer, seed):
        ctx.quantizer, ctx.seed = quantizer, seed
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return ctx.quantizer(grad, ctx.seed), None, None


class _FP134Layer(SwappedLayer):
    """What both layers share: scales of output, error and weight gradient, with `full` also of input and weight."""

    def attach(self, scheme: FP134) -> None:
        super().attach(scheme)
        device, bits = self.weight.device, FORMATS[scheme.activations]
        self.input_scale = ScaledFloat(bits, 1, device) if scheme.full else nn.Identity()
        self.output_scale = ScaledFloat(bits, 1, device)
        self.error_scale = ScaledFloat(bits, 1, device)
        self.weight_gradient_scale = ScaledFloat(bits, 2, device, start_at_data=True)
        for quantizer in (self.input_scale, self.output_scale, self.error_scale, self.weight_gradient_scale):
            quantizer.train(self.training)
        self._weight_bits = list(FORMATS[scheme.weights])
        self._full, self._hysteresis = scheme.full, scheme.hysteresis
        held = torch.full_like(self.weight.detach(), torch.nan, dtype=torch.float32) if scheme.hysteresis else None
        self.register_buffer("held_weight", held)

    def detach(self) -> None:
        del self.input_scale, self.output_scale, self.error_scale, self.weight_gradient_scale
        del self._weight_bits, self._full, self._hysteresis, self.held_weight
        super().detach()

    def rounded_weight(self) -> Tensor:
        """The weight in its format, each output channel at the scale floor(log2 max|w|) [H21].

        With hysteresis, on the side of the previous rounded weight, which a training forward remembers [H22].
        """
        weight = self.weight
        if weight.numel() == 0:
            return weight
        peaks = weight.detach().float().abs().flatten(1).amax(1)
        scales = bounded(torch.frexp(peaks)[1] - 1)
        held = self.held_weight
        if held is None:
            return torch.ops.quintil.minifloat_quantize(weight, self._weight_bits, scales)
        previous = torch.where(held.isnan(), weight.detach().float(), held)
        rounded = torch.ops.quintil.minifloat_quantize(weight, self._weight_bits, scales, previous=previous)
        first = torch.ops.quintil.minifloat_quantize(weight, self._weight_bits, scales)
        rounded = torch.where(held.isnan(), first, rounded)
        if self.training:
            held.copy_(rounded.detach())
        return rounded

    def operands(self, input: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.weight
        if self._full:
            input, weight = self.input_scale(input), self.rounded_weight()
        if torch.jit.is_scripting():
            if self.training:
                raise RuntimeError("FP134: expected evaluation mode in TorchScript, got training mode (no gradients)")
        else:
            weight = self._with_rounded_gradient(weight)
        return input, weight

    def result(self, output: Tensor) -> Tensor:
        output = self.output_scale(output)
        if not torch.jit.is_scripting():
            output = self._with_rounded_error(output)
        return output

    @torch.jit.unused
    def _with_rounded_gradient(self, weight: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and weight.requires_grad):
            return weight
        return _RoundedGradient.apply(weight, self.weight_gradient_scale, draw_seed())

    @torch.jit.unused
    def _with_rounded_error(self, output: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and output.requires_grad):
            return output
        seed = draw_seed() if self.scheme.errors_stochastic else None
        return _RoundedGradient.apply(output, self.error_scale, seed)


@swaps(FP134, nn.Linear)
class FP134Linear(_FP134Layer, nn.Linear):
    """nn.Linear with FP134 around it: float [..., in_features] -> [..., out_features].

    `quintil.quantize_` turns nn.Linear into it; directly: FP134Linear(<arguments of nn.Linear>, scheme=FP134()).
    """

    def forward(self, input: Tensor) -> Tensor:
        input, weight = self.operands(input)
        return self.result(F.linear(input, weight, self.bias))


@swaps(FP134, nn.Conv2d)
class FP134Conv2d(_FP134Layer, nn.Conv2d):
    """nn.Conv2d with FP134 around it: float [N, C, H, W] -> [N, O, H', W'], or both without N."""

    overridable = ("forward", "_conv_forward")

    def forward(self, input: Tensor) -> Tensor:
        input, weight = self.operands(input)
        return self.result(self._conv_forward(input, weight, self.bias))


@torch.no_grad()
def round_master_(optimizer: torch.optim.Optimizer) -> RemovableHandle:
    """Keep what `optimizer` updates in floats of 1 sign, 6 exponent and 9 mantissa bits, rounded stochastically [H22].

    From now on, and after every step: the parameters, and those of their state tensors that have their sizes
    (momentum, averages). Learning rate and decay stay as they are. The seeds come from torch's own generator. Returns
    the handle of the hook; its `remove()` ends it. TypeError if `optimizer` is no torch.optim.Optimizer.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"round_master_: expected optimizer to be a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            _round_master(parameter)
    return optimizer.register_step_post_hook(_after_step)


@torch.no_grad()
def _after_step(optimizer: torch.optim.Optimizer, arguments: tuple, keywords: dict) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                state = optimizer.state.get(parameter, {}).values()
                for tensor in (parameter, *(t for t in state if isinstance(t, Tensor) and t.shape == parameter.shape)):
                    _round_master(tensor)


def _round_master(tensor: Tensor) -> None:
    scale = torch.tensor(MASTER_SCALE)
    tensor.copy_(torch.ops.quintil.minifloat_quantize(tensor, MASTER_FORMAT, scale, seed=draw_seed()))


unsupported(
    FP134,
    nn.Conv1d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
