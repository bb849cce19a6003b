"""Reservoir memory: a uniform sample of everything seen so far, in a fixed number of slots [CIL 2.3]."""

from __future__ import annotations

import torch
from torch import Tensor

from .exemplars import ExemplarMemory, fill_slots


class ReservoirMemory(ExemplarMemory):
    """`size` slots; item i (0-based) of the stream is kept with probability min(1, size / (i + 1)).

    A kept item replaces that of a uniformly drawn slot once all are full, so that after N items each of them is here
    with probability size / N. `arrived` counts the items offered. Samples lie in the order of the slots, not by class.
    """

    def __init__(self, size: int, bits: int | None = None):
        super().__init__(size, "total", "reservoir", bits)

    def quota(self, seen: int) -> int:
        """Samples per class on average; 0 where there are more classes than slots."""
        return self.size // seen

    def planned(self, seen: int) -> tuple[str, int]:
        return f"at most {self.size} samples of all classes in a reservoir", self.size

    def add(self, x: Tensor, y: Tensor, index: Tensor, generator: torch.Generator) -> None:
        """Offer raw samples one after another, with their labels and positions in the data set's training part."""
        old = len(self)
        free = min(self.size - old, y.numel())
        slots = list(range(old))  # positions in [memory, x]
        places = self.arrived + torch.arange(free, y.numel())
        # floor(u (i + 1)) is uniform in 0..i; nothing is drawn for items that find a free slot
        draws = torch.rand(places.numel(), dtype=torch.float64, generator=generator)
        fill_slots(slots, range(old, old + y.numel()), [0] * free + (draws * (places + 1)).long().tolist(), self.size)
        self.keep(torch.tensor(slots, dtype=torch.int64), x, y, index)
        self.arrived += y.numel()
        self.counts = torch.bincount(self.y).tolist()

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Up to `count` different samples, uniformly: raw samples and labels; no samples from an empty memory."""
        if len(self) == 0:
            return torch.empty(0), self.y
        picks = torch.randperm(len(self), generator=generator)[:count]
        return self.samples.restored(picks), self.y.index_select(0, picks)
