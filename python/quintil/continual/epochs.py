"""One epoch: how far it is, and what the training log says of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import distributed


@dataclass
class EpochProgress:
    """How far an epoch is: the order of its samples, and size, hits and loss parts of every batch that is done."""

    order: Tensor
    sizes: list[int] = field(default_factory=list)
    hits: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    def add(self, size: int, hits: Tensor, parts: dict[str, Tensor]) -> None:
        """Count one batch: its samples, those that were right, and its loss terms."""
        self.sizes.append(size)
        self.hits.append(hits)
        self.losses.append(torch.stack(list(parts.values())))
        self.parts = list(parts)

    def log(self, lr: float) -> dict[str, float]:
        """lr, loss, its terms, train_acc (percent) of the finished epoch, over all processes."""
        weights = torch.tensor(self.sizes, dtype=torch.float64)
        losses = distributed.summed((torch.stack(self.losses).double() * weights.unsqueeze(1)).sum(0))
        samples, hits = distributed.summed(torch.stack([weights.sum(), torch.stack(self.hits).sum().double()])).tolist()
        log = dict(zip(self.parts, (losses / samples).tolist()))
        return {"lr": lr, "loss": sum(log.values()), **log, "train_acc": 100.0 * hits / samples}
