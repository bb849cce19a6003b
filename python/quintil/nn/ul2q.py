"""uL2Q, VecQ's predecessor: levels around the mean, with a length from a table and not fitted [VECQ V14]."""

from __future__ import annotations

import torch
from torch import Tensor

#: Lengths for numbers of a normal distribution of deviation 1, 1..8 bits; beyond, six deviations are divided.
STEPS = (1.5950161625, 0.9952900854, 0.5872211504, 0.3358904980, 0.1894424409, 0.1057087704, 0.0570827360,
         0.0304821810)  # fmt: skip


def normal_step(bits: int) -> float:
    """The table's length for one standard deviation."""
    return STEPS[bits - 1] if bits <= len(STEPS) else 6.0 / (2**bits - 1)


def quantize_around_mean(
    weight: Tensor,
    bits: int,
    normal_step: float,
    sizes: list[int],
    unbiased: bool,
    tie: str,
    grad_mode: str,
    grad_ratio: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """mean + length * half-integer, the length a table's times the standard deviation [VECQ V14].

    weight: float of any shape; bits: 1..16; sizes: of mean and length, as those of `vecq_step`. tie: a number halfway
    between two levels goes to the code that is 'even', or 'away' from the mean, as the authors' code rounds (the mean
    itself goes up in both). grad_mode, grad_ratio: of `vecq_quantize`; the mean and the length are constants.
    Returns the numbers in weight's shape and dtype, their codes, and float32 length and mean. Equal numbers stay.
    """
    runs = weight.float().reshape(list(sizes) + [-1 if weight.numel() > 0 else 0])
    numbers = runs.detach().double()
    mean = numbers.mean(-1)
    spread = (numbers - mean.unsqueeze(-1)).square().sum(-1)
    length = (normal_step * (spread / max(1, numbers.size(-1) - int(unbiased))).sqrt()).float()
    mean = mean.float()
    step = length + 1e-7  # spelled out, since TorchScript takes no numbers of a module
    centred = runs - mean.unsqueeze(-1)
    if tie == "away":
        distance = centred.detach() / step.unsqueeze(-1)
        outwards = torch.where(distance < 0, -0.5, 0.5) * step.unsqueeze(-1)
        centred = centred + torch.where(distance == distance.round(), outwards, torch.zeros_like(outwards))
    values, codes, _ = torch.ops.quintil.vecq_quantize(
        centred, bits, step=step, alpha=length, grad_mode=grad_mode, grad_ratio=grad_ratio
    )
    values = (values + mean.unsqueeze(-1)).reshape(weight.shape).to(weight.dtype)
    return values, codes.reshape(weight.shape), length, mean
