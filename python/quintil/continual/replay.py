"""Replay without distillation: exemplars chosen by herding, or a reservoir sampled at every step [CIL 2.3]."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .learner import Learner
from .registry import learner
from .reservoir import ReservoirMemory
from .tasks import Task


@learner("replay")
class Replay(Learner):
    """Cross-entropy over all seen classes on the new data and the exemplars, shuffled together."""

    variant = "cross-entropy on new data and exemplars shuffled together, herding"
    uses_memory = True


@learner("er")
class ExperienceReplay(Learner):
    """Every step adds `minibatch_size` samples of a reservoir to the batch of new data, one cross-entropy for both.

    The reservoir takes in every training sample once, as stored, in the order of the first epoch of its task; later
    epochs only draw from it. It is not balanced and may hold none of a class, so there is no nearest-mean head.
    """

    variant = "cross-entropy on every batch of new data with a draw from a reservoir memory"
    uses_memory = True
    moving_memory = True
    memory: ReservoirMemory
    _taken_in = False  # whether the reservoir has met the samples of the task

    def make_memory(self) -> ReservoirMemory:
        if self.config.memory_policy != "total":
            raise ValueError(f"er: expected memory_policy to be total, got {self.config.memory_policy!r}")
        return ReservoirMemory(self.config.memory_size, self.config.exemplar_bits)

    def update_memory(self) -> None:
        """Nothing: the reservoir was filled during the first epoch."""

    def training_data(self, task: Task) -> tuple[Tensor, Tensor]:
        self._taken_in = False
        return task.x, task.y

    def _epoch_batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        order, sizes = self._epoch_order()
        self._replayed = 0
        count = self.config.minibatch_size or self.config.batch_size
        task = self.task
        for batch in order.split(sizes):
            x, y = task.x.index_select(0, batch), task.y.index_select(0, batch)
            old_x, old_y = self.memory.draw(count, self.streams["replay"])
            self._replayed += old_y.numel()
            inputs = x if old_y.numel() == 0 else torch.cat([x, old_x])
            yield self._training_inputs(inputs), torch.cat([y, old_y]), None
            if not self._taken_in:
                self.memory.add(x, y, task.index.index_select(0, batch), self.streams["exemplars"])
        self._taken_in = True

    def extra_state(self) -> dict:
        return {"taken_in": self._taken_in}

    def load_extra_state(self, state: dict) -> None:
        self._taken_in = state["taken_in"]
