"""Quantisers with a learned step, as modules: of a layer's weight and of its input at one width [DR 2.1-2.4].

Both start their step from the first data they see in training mode, once; the buffer `ready` says so and travels in
the state dict. In Python they also keep their step positive [DR D8, pitfall 5]; a compiled or scripted loop calls
`keep_steps_positive` after its optimiser's steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from quintil.functional import vecq_quantize, vecq_step
from quintil.schemes import DoubleRounding

SMALLEST_STEP = 1e-8
_KEPT = 0.999  # share of the values below the percentile of [DR D12]


class StepQuantizer(nn.Module):
    """What both share: the Parameter `step`, float32, and the buffer `ready`."""

    def __init__(self, bits: int, step_size: tuple[int, ...], device: torch.device):
        super().__init__()
        self.bits = bits
        self.step = nn.Parameter(torch.ones(step_size, device=device))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool, device=device))

    def check_ready(self, x: Tensor) -> None:
        """`prepare` in Python; in TorchScript only the check, since a step does not start there."""
        if not torch.jit.is_scripting():
            self.prepare(x)
        elif not bool(self.ready):
            raise RuntimeError(self.not_ready())

    @torch.jit.unused
    def prepare(self, x: Tensor) -> None:
        """Start the step from x in the first training forward, and keep it positive later.

        RuntimeError in evaluation mode before the first training forward at this width.
        """
        if torch.compiler.is_compiling():
            return
        with torch.no_grad():
            if not bool(self.ready):
                if not self.training:
                    raise RuntimeError(self.not_ready())
                self.start(x.detach().float())
                self.step.clamp_(min=SMALLEST_STEP)
                self.ready.fill_(True)
            elif self.training and bool((self.step < SMALLEST_STEP).any()):
                self.step.clamp_(min=SMALLEST_STEP)

    def not_ready(self) -> str:
        return (
            f"{self.bits} bits: expected a training forward at this width before others, got none (steps not started)"
        )

    @torch.jit.unused
    def start(self, x: Tensor) -> None:
        """Set the step from float32 data."""
        raise NotImplementedError


class WeightQuantizer(StepQuantizer):
    """Weights rounded to `bits` stored bits, then to the width asked for [DR D1-D3].

    bits: of the stored integers. channels: of the weight, one step for each; None = one step.
    """

    def __init__(self, bits: int, channels: int | None, scheme: DoubleRounding, device: torch.device):
        super().__init__(bits, () if channels is None else (channels,), device)
        self.init = scheme.weight_init
        self.rounding = scheme.rounding
        self.chain_pow2 = scheme.chain_pow2
        self.weight_source = scheme.weight_source
        self.mask_on = scheme.mask_on
        self.scale_residual = scheme.scale_residual
        self.scale_grad_sum = scheme.scale_grad_sum

    @torch.jit.unused
    def start(self, x: Tensor) -> None:
        """[DR D9] Three standard deviations around the mean of each channel, or twice the mean size over sqrt(Qp).

        From VecQ the length, which is also right for equal numbers, where the step of its levels is next to nothing.
        """
        if self.init == "vecq":
            levels = vecq_step(x, self.bits, per_channel=self.step.dim() == 1, lambda_mode="search")
            self.step.copy_(vecq_quantize(x, self.bits, step=levels)[2])
            return
        if self.step.dim() == 0:
            top = max(1, 2 ** (self.bits - 1) - 1)
            self.step.copy_(2.0 * x.abs().mean() / math.sqrt(top))
            return
        rows = x.flatten(1)
        spread = 3.0 * rows.std(1, correction=min(1, rows.size(1) - 1))
        mean = rows.mean(1)
        self.step.copy_(torch.maximum((mean - spread).abs(), (mean + spread).abs()) / 2 ** (self.bits - 1))

    def forward(self, weight: Tensor, bits: int) -> Tensor:
        self.check_ready(weight)
        return torch.ops.quintil.double_round_quantize(
            weight, self.step, self.bits, bits, rounding=self.rounding, chain_pow2=self.chain_pow2,
            weight_source=self.weight_source, mask_on=self.mask_on, scale_residual=self.scale_residual,
            scale_grad_sum=self.scale_grad_sum,
        )  # fmt: skip

    def step_of(self, bits: int) -> Tensor:
        """The step of codes at `bits` bits, float32."""
        return self.step * float(1 << (self.bits - bits))

    def stored_codes(self, weight: Tensor) -> Tensor:
        """int8 codes at the stored bits."""
        self.check_ready(weight)
        return torch.ops.quintil.quantize(weight, self.bits, signed=True, narrow=False, scale=self.step)[0]

    def codes(self, weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """int8 codes at `bits` bits and their float32 step; their product is `forward`."""
        self.check_ready(weight)
        step = self.step_of(bits)
        if self.weight_source == "float":
            return torch.ops.quintil.quantize(weight, bits, signed=True, narrow=False, scale=step)[0], step
        stored = self.stored_codes(weight)
        return torch.ops.quintil.double_round(stored, self.bits, bits, rounding=self.rounding), step


class InputQuantizer(StepQuantizer):
    """Activations at `bits` bits, with one step and, where the scheme has it, one offset per tensor [DR D10-D13]."""

    def __init__(self, bits: int, scheme: DoubleRounding, device: torch.device):
        super().__init__(bits, (), device)
        self.signed = scheme.activation_signed
        self.mask_on = scheme.mask_on
        self.init = scheme.activation_init
        self.offset = nn.Parameter(torch.zeros((), device=device)) if scheme.activation_offset else None

    @torch.jit.unused
    def start(self, x: Tensor) -> None:
        """[DR D12, D13]"""
        low, high = (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1) if self.signed else (0, 2**self.bits - 1)
        values = x.flatten()
        if values.numel() == 0:
            return
        if self.offset is not None:
            smallest, largest = values.aminmax()
            self.step.copy_((largest - smallest) / (high - low))
            self.offset.copy_(smallest - self.step * low)
        elif self.init == "lsq":
            self.step.copy_(2.0 * values.abs().mean() / math.sqrt(max(1, high)))
        else:
            rank = max(1, round(_KEPT * values.numel()))
            largest, smallest = values.kthvalue(rank).values, values.kthvalue(values.numel() + 1 - rank).values
            self.step.copy_((largest - smallest) / (high - low))

    def forward(self, x: Tensor) -> Tensor:
        self.check_ready(x)
        return torch.ops.quintil.lsq_quantize(
            x, self.step, self.bits, signed=self.signed, offset=self.offset, mask_on=self.mask_on
        )

    def codes(self, x: Tensor) -> Tensor:
        """int8 or uint8 codes q; step * q + offset is `forward`. At least two bits."""
        self.check_ready(x)
        values = x
        offset = self.offset
        if offset is not None:
            values = x.float() - offset
        return torch.ops.quintil.quantize(values, self.bits, signed=self.signed, narrow=False, scale=self.step)[0]


@torch.no_grad()
def keep_steps_positive(model: nn.Module) -> None:
    """Raise every step of a model to at least SMALLEST_STEP, in place."""
    for module in model.modules():
        if isinstance(module, StepQuantizer):
            module.step.clamp_(min=SMALLEST_STEP)
