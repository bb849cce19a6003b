"""Quantisers on half-integer levels, as modules: of a parameter and of an activation [VECQ 2.2-2.7]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from quintil.nn.ul2q import normal_step, quantize_around_mean
from quintil.schemes import VecQ


class LevelQuantizer(nn.Module):
    """A parameter on the levels alpha * half-integer, chosen anew in every forward [VECQ V3, V5, V6], or uL2Q's [V14].

    A parameter that was loaded from a file lies on its levels already. Its lengths are kept in the buffer `alpha` until
    the first training forward, since choosing again would move levels that are not of a normal distribution.
    bits: 0 passes the parameter on as it is.
    """

    def __init__(self, bits: int, scheme: VecQ, sizes: tuple[int, ...], device: torch.device):
        super().__init__()
        self.bits = bits
        self.drive = scheme.drive
        self.sigma = scheme.sigma
        self.lambda_mode = scheme.lambda_mode
        self.per_channel = len(sizes) == 1
        self.group_size = scheme.group_size if len(sizes) == 2 else 0
        self.normal_step = normal_step(bits) if bits > 0 and scheme.levels == "ul2q" else 0.0
        self.tie = scheme.tie
        self.grad_mode = scheme.grad_mode
        self.grad_ratio = scheme.grad_ratio
        self.fixed = False
        self.register_buffer("alpha", torch.zeros(sizes, device=device), persistent=bits > 0)

    def step(self, weight: Tensor) -> Tensor:
        return torch.ops.quintil.vecq_step(
            weight.detach(), self.bits, per_channel=self.per_channel, group_size=self.group_size, sigma=self.sigma,
            lambda_mode=self.lambda_mode,
        )  # fmt: skip

    def forward(self, weight: Tensor) -> Tensor:
        if self.bits == 0:
            return weight
        if self.training and self.fixed:
            self.release()
        if self.fixed:
            return torch.ops.quintil.vecq_quantize(
                weight, self.bits, step=self.alpha, alpha=self.alpha, grad_mode=self.grad_mode
            )[0]
        if self.normal_step > 0:
            return self.around_mean(weight)[0]
        return torch.ops.quintil.vecq_quantize(
            weight, self.bits, step=self.step(weight), drive=self.drive, grad_mode=self.grad_mode,
            grad_ratio=self.grad_ratio if self.training else 0.0,
        )[0]  # fmt: skip

    def around_mean(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Values, codes, lengths and means of uL2Q."""
        ratio = self.grad_ratio if self.training else 0.0
        return quantize_around_mean(
            weight,
            self.bits,
            self.normal_step,
            self.alpha.size(),
            self.sigma == "unbiased",
            self.tie,
            self.grad_mode,
            ratio,
        )

    def codes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """int8 or int16 codes and float32 lengths; (codes + 1/2) * lengths is `forward` in evaluation.

        Of uL2Q's levels it is `forward` without the means.
        """
        weight = weight.detach()
        if self.normal_step > 0:
            return self.around_mean(weight)[1:3]
        if self.fixed:
            return torch.ops.quintil.vecq_codes(weight, self.bits, self.alpha), self.alpha
        _, codes, alpha = torch.ops.quintil.vecq_quantize(weight, self.bits, step=self.step(weight), drive=self.drive)
        return codes, alpha

    @torch.jit.unused
    def pack(self, weight: Tensor) -> dict[str, Tensor]:
        """Codes and lengths for a quantised file; nothing beyond 8 bits and for uL2Q's levels."""
        if not 0 < self.bits <= 8 or self.normal_step > 0:
            return {}
        codes, alpha = self.codes(weight)
        return {"codes": codes.contiguous(), "scale": alpha}

    @torch.jit.unused
    def unpack(self, weight: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Set the parameter to the numbers that `pack` gave, and keep their lengths."""
        codes, alpha = tensors["codes"], tensors["scale"]
        runs = (codes + 0.5).reshape(*alpha.shape, -1) if alpha.dim() else codes + 0.5
        with torch.no_grad():
            weight.copy_((runs * alpha[..., None] if alpha.dim() else runs * alpha).reshape(codes.shape))
        self.fix(alpha)

    def release(self) -> None:
        self.alpha.zero_()
        self.fixed = False

    @torch.jit.unused
    def fix(self, alpha: Tensor) -> None:
        """Keep these lengths for a parameter that consists of alpha times half-integers."""
        self.alpha.copy_(alpha)
        self.fixed = bool(alpha.any())

    @torch.jit.unused
    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        given = state_dict.get(prefix + "alpha")
        if given is None:
            self.release()
        else:
            self.fixed = bool(given.any())


class ActivationQuantizer(nn.Module):
    """Activations on half-integer levels: those of the batch in training, of running averages later [VECQ V11, V12].

    The buffer `averages` holds step, length, and what is left of their start at 1; a batch with a NaN or Inf does not
    move it, nor does an empty one. bits: 0 passes activations on.
    """

    def __init__(self, bits: int, scheme: VecQ, device: torch.device):
        super().__init__()
        self.bits = bits
        self.drive = "norm" if scheme.drive == "norm" else "projection"
        self.sigma = scheme.sigma
        self.momentum = scheme.momentum
        self.debias = scheme.ema_debias
        self.register_buffer("averages", torch.ones(3, device=device), persistent=bits > 0)

    def forward(self, x: Tensor) -> Tensor:
        if self.bits == 0:
            return x
        if not self.training:
            step, length = self.step_and_length()
            return torch.ops.quintil.vecq_quantize(x, self.bits, step=step, alpha=length)[0]
        y, averages = torch.ops.quintil.vecq_activation(
            x, self.bits, self.averages, training=True, momentum=self.momentum, drive=self.drive, sigma=self.sigma
        )
        self.averages.copy_(torch.where(averages.isfinite().all(), averages, self.averages))
        return y

    def step_and_length(self) -> tuple[Tensor, Tensor]:
        """Of evaluation. RuntimeError before the first training forward or `calibrate`."""
        averages = self.averages
        if not torch.jit.is_scripting():
            self.check_started()
        elif bool(averages[2] == 1.0):
            raise RuntimeError(self.not_started())
        if self.debias:
            averages = (averages - averages[2]) / (1.0 - averages[2])
        return averages[0], averages[1]

    @torch.jit.unused
    def check_started(self) -> None:
        if not torch.compiler.is_compiling() and bool(self.averages[2] == 1.0):
            raise RuntimeError(self.not_started())

    def not_started(self) -> str:
        return "VecQ: expected a training forward or calibrate() before evaluation, got averages that have not started"

    def codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and the length; (codes + 1/2) * length is `forward` in evaluation, but for NaN, which has code 0."""
        step, length = self.step_and_length()
        return torch.ops.quintil.vecq_codes(x, self.bits, step), length


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """Start the running averages of VecQ's activations from data, without training; returns `model` in evaluation mode.

    batches: what a DataLoader gives; of a tuple or list the first element is the model's input.
    Raises TypeError if `model` is no nn.Module, ValueError for one without quantised activations, and where the batches
    start no averages: there is none, or none with numbers, all of them finite.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"calibrate: expected model to be an nn.Module, got {type(model).__name__}")
    quantizers = [m for m in model.modules() if isinstance(m, ActivationQuantizer) and m.bits > 0]
    if not quantizers:
        raise ValueError(
            "calibrate: expected model to have quantised activations, got none (VecQ(activation_bits=...))"
        )
    model.eval()
    count = 0
    try:
        for quantizer in quantizers:
            quantizer.train()
        for batch in batches:
            model(batch[0] if isinstance(batch, (tuple, list)) else batch)
            count += 1
    finally:
        model.eval()
    if count == 0:
        raise ValueError("calibrate: expected batches to hold a batch, got none")
    if all(bool(quantizer.averages[2] == 1.0) for quantizer in quantizers):
        raise ValueError("calibrate: expected batches to hold finite numbers, got none that start the averages")
    return model
