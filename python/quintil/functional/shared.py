"""What ops share: checked mode, seeds and who needs one, pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from quintil import _library  # noqa: F401  (registers the ops)

_SEED_END = 2**62


def set_checked(on: bool) -> None:
    """Checked mode: with it every op refuses NaN and Inf with a ValueError that names the first bad index.

    Without it (the default, unless QUINTIL_CHECKED=1) they pass through as a NaN scale and NaN results.
    """
    torch.ops.quintil._set_checked(on)


def draw_seed(generator: Generator | None = None) -> int:
    """A seed in 0..2^62-1 from `generator`, by default torch's own, which `torch.manual_seed` sets."""
    return int(torch.randint(0, _SEED_END, (), generator=generator))


def can_have_gradient(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether autograd records an op on these inputs: only then do the stochastic operands exist."""
    return torch.is_grad_enabled() and (
        getattr(x, "requires_grad", False)
        or getattr(weight, "requires_grad", False)
        or getattr(bias, "requires_grad", False)
    )


def pair(value: int | Sequence[int]) -> Sequence[int]:
    return (value, value) if isinstance(value, int) else value
