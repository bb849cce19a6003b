"""The two-parameter fit of BiC's second stage [CIL C10]."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from quintil.data.batches import batch_sizes

Batches = Iterable[tuple[Tensor, Tensor]]


def fit_bias(
    epoch: Callable[[], Batches],
    known: int,
    *,
    epochs: int,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    milestones: Sequence[int] = (),
    lr_decay: float = 0.1,
    offset_penalty: float = 0.1,
    double_softmax: bool = False,
) -> tuple[float, float]:
    """Scale alpha and offset beta of the new classes' logits; they start as 1 and 0 and are all that moves.

    epoch: gives the batches of one epoch, logits [N, classes] and labels; columns from `known` on are corrected to
    alpha z + beta. Minimises CE(q, y) + offset_penalty beta^2 / 2 by SGD, the rate multiplied by lr_decay at each
    milestone. double_softmax: CE(softmax(q), y) instead, a mistake of public code whose gradient vanishes where the
    net is sure, so that it learns nothing or blanks whole tasks. FloatingPointError if the fit diverges.
    """
    alpha, beta = torch.ones((), requires_grad=True), torch.zeros((), requires_grad=True)
    optimizer = torch.optim.SGD([alpha, beta], lr=lr, momentum=momentum, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(milestones), gamma=lr_decay)
    for _ in range(epochs):
        for logits, labels in epoch():
            corrected = torch.cat([logits[:, :known], alpha * logits[:, known:] + beta], dim=1)
            loss = F.cross_entropy(corrected.softmax(1) if double_softmax else corrected, labels)
            if offset_penalty:
                loss = loss + 0.5 * offset_penalty * beta.square()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        scheduler.step()
    found = alpha.item(), beta.item()
    if not all(map(math.isfinite, found)):
        raise FloatingPointError(f"fit_bias: expected a finite scale and offset, got {found} (lr {lr})")
    return found


def shuffled(logits: Tensor, labels: Tensor, batch_size: int, generator: torch.Generator) -> Callable[[], Batches]:
    """Epochs for `fit_bias` over logits computed once."""
    sizes = batch_sizes(labels.numel(), batch_size)

    def epoch() -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(labels.numel(), generator=generator)
        return zip(logits[order].split(sizes), labels[order].split(sizes))

    return epoch
