"""Learners with state that only they know, for test_resume.py."""

from __future__ import annotations

import torch
from quintil.continual import ICaRL, Learner


class Remembering(Learner):
    """Its loss depends on numbers that only it knows: a count of batches, and a sum of logits."""

    name = "remembering"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.batches, self.sum = 0, torch.zeros(())

    def loss_parts(self, logits, labels, teacher):
        self.batches += 1
        self.sum = self.sum + logits.detach().mean()
        return {
            "ce": super().loss_parts(logits, labels, teacher)["ce"] * (1 + 0.1 * torch.sin(self.sum + self.batches))
        }

    def extra_state(self):
        return {"batches": self.batches, "sum": self.sum}

    def load_extra_state(self, state):
        self.batches, self.sum = state["batches"], state["sum"]


class Moving(ICaRL):
    """Drops exemplars while it trains, so that epochs cannot be cut and the memory inside a task counts."""

    name = "moving"
    moving_memory = True

    def train_epoch(self):
        log = super().train_epoch()
        if len(self.memory) > self.known > 0:
            keep = torch.randperm(len(self.memory), generator=self.streams["moving"])[:-1].sort().values
            self.memory.samples.select(keep)
            self.memory.y, self.memory.index = self.memory.y[keep], self.memory.index[keep]
            self.memory.counts = torch.bincount(self.memory.y, minlength=self.known).tolist()
        return log
