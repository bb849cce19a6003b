"""Exemplar memory with permanent validation pools inside the same budget, for BiC [CIL 2.6, C8].

The samples of a pool are set aside when their class arrives, before any training; they are never trained on and never
herded. All pools have the same size v = max(1, floor(ratio K / n)) for n known classes, or none if K / n < 2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .exemplars import ExemplarMemory, first_of_every_class


class PooledMemory(ExemplarMemory):
    """Exemplars and pools together fit the budget: quota + pool_quota = what `ExemplarMemory` would keep per class.

    ratio: share of the budget for the pools (0.1 in the paper). Attributes pool_x (raw samples), pool_y, pool_index,
    pool_counts (per class) beside those of the exemplars.
    """

    def __init__(
        self,
        size: int,
        policy: str = "total",
        selection: str = "herding",
        bits: int | None = None,
        ratio: float = 0.1,
    ):
        super().__init__(size, policy, selection, bits)
        self.ratio = ratio
        self.pool_x: Tensor | None = None
        self.pool_y = torch.empty(0, dtype=torch.int64)
        self.pool_index = torch.empty(0, dtype=torch.int64)
        self.pool_counts: list[int] = []

    @property
    def bytes(self) -> int:
        """Bytes of the exemplars and of the pools."""
        return super().bytes + (0 if self.pool_x is None else self.pool_x.numel() * self.pool_x.element_size())

    def pool_quota(self, known: int) -> int:
        """v for `known` classes; 0 if the budget is less than two samples per class."""
        exact = self.size if self.policy == "per_class" else self.size / known
        return min(max(1, int(self.ratio * exact + 1e-9)), super().quota(known) - 1)

    def quota(self, seen: int) -> int:
        return super().quota(seen) - self.pool_quota(seen)

    def planned(self, seen: int) -> tuple[str, int]:
        quota, pool = self.quota(seen), self.pool_quota(seen)
        return f"{quota} exemplars and {pool} validation samples per class", (quota + pool) * seen

    def set_aside(self, x: Tensor, y: Tensor, index: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Draw a pool of `count` samples, at most half of the class, for every class in y; returns the other rows.

        x, y, index: raw samples, labels and positions in the data set's training part of classes not seen so far.
        """
        chosen, others = [], []
        for label in y.unique(sorted=True).tolist():
            members = (y == label).nonzero().flatten()
            members = members[torch.randperm(members.numel(), generator=generator)]
            taken = min(count, members.numel() // 2)
            chosen.append(members[:taken])
            others.append(members[taken:])
            self.pool_counts.append(taken)
        new = torch.cat(chosen)
        self.pool_x = x[new] if self.pool_x is None else torch.cat([self.pool_x, x[new]])
        self.pool_y = torch.cat([self.pool_y, y[new]])
        self.pool_index = torch.cat([self.pool_index, index[new]])
        return torch.cat(others).sort().values

    def balanced_pool(self) -> tuple[Tensor, Tensor]:
        """Raw samples and labels, equally many of every class that has a pool: the first ones of each."""
        kept = first_of_every_class(self.pool_counts, min((n for n in self.pool_counts if n > 0), default=0))
        return self.pool_x[kept], self.pool_y[kept]

    def update(
        self,
        x: Tensor,
        y: Tensor,
        index: Tensor,
        seen: int,
        features: Callable[[Tensor], Tensor],
        generator: torch.Generator,
    ) -> None:
        """As in `ExemplarMemory`; all pools are cut to the size that the next task needs."""
        super().update(x, y, index, seen, features, generator)
        size = self.pool_quota(seen)
        kept = first_of_every_class(self.pool_counts, size)
        self.pool_x, self.pool_y, self.pool_index = self.pool_x[kept], self.pool_y[kept], self.pool_index[kept]
        self.pool_counts = [min(count, size) for count in self.pool_counts]
