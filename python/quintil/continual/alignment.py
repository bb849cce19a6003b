"""Weight alignment: new classifier rows brought to the mean length of the old ones [CIL C11]."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def align_new_rows(weight: Tensor, known: int) -> float:
    """Scale the rows from `known` on, in place, by gamma = mean norm of old rows / mean norm of new rows; returns it.

    weight: head rows [classes, d] in float, old rows first; they stay as they are, and so does a bias. New rows that
    are all zero stay so (gamma 1). ValueError without old or without new rows.
    """
    if not 0 < known < weight.size(0):
        raise ValueError(f"align_new_rows: expected known in 1..{weight.size(0) - 1}, got {known}")
    norms = weight.double().norm(dim=1)
    old, new = norms[:known].mean().item(), norms[known:].mean().item()
    gamma = old / new if new > 0 else 1.0
    weight[known:] *= gamma
    return gamma
