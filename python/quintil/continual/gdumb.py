"""GDumb: a greedily balanced memory, and a net trained from scratch on nothing else [CIL 2.9]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from quintil.nn import dequantize_

from .exemplars import ExemplarMemory, NearestMean
from .learner import Learner
from .registry import learner
from .tasks import Task


class GreedyMemory(ExemplarMemory):
    """Exemplar memory that takes samples as they arrive, in the order that `generator` draws.

    A sample is kept if its class has fewer than K / (classes met so far) samples; where the memory is full then, a
    random sample of the largest class makes room. Policy per_class: the first `size` of every class are kept.
    """

    def update(
        self,
        x: Tensor,
        y: Tensor,
        index: Tensor,
        seen: int,
        features: Callable[[Tensor], Tensor] | None,
        generator: torch.Generator,
    ) -> None:
        """Offer the samples of the new classes; `seen` and `features` are not used."""
        kept = list(torch.arange(len(self)).split(self.counts)) if self.counts else []
        places = {label: part.tolist() for label, part in enumerate(kept)}  # positions in [memory, x]
        labels, total, start = y.tolist(), len(self), len(self)
        for i in torch.randperm(len(labels), generator=generator).tolist():
            mine = places.setdefault(labels[i], [])
            limit = self.size if self.policy == "per_class" else self.size / len(places)
            if mine and len(mine) >= limit:
                continue
            if self.policy == "total" and total == self.size:
                largest = max(places, key=lambda label: len(places[label]))
                victim = int(torch.randint(len(places[largest]), (), generator=generator))
                places[largest].pop(victim)
                total -= 1
            mine.append(start + i)
            total += 1
        self.counts = [len(places[label]) for label in sorted(places)]
        chosen = torch.tensor([place for label in sorted(places) for place in places[label]], dtype=torch.int64)
        self.keep(chosen, x, y, index)


@learner("gdumb")
class GDumb(Learner):
    """CE on the memory alone: after every task's data have passed by, a net from the run's first weights is trained.

    The weights after one task have no influence on the next, so each point of the curve is the answer to "what if
    the stream ended here". Accuracy is that of the last epoch, never of the best on the test set.
    """

    variant = "cross-entropy from scratch on a greedily balanced memory, for every task"
    uses_memory = True
    memory_class = GreedyMemory

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self._start = {name: value.clone() for name, value in self.net.backbone.state_dict().items()}

    def begin_task(self, task: Task) -> None:
        self.memory.update(task.x, task.y, task.index, task.last, None, self.streams["exemplars"])
        dequantize_(self.net)
        self.net.backbone.load_state_dict(self._start)
        self.net.head = None
        super().begin_task(task)

    def training_data(self, task: Task) -> tuple[Tensor, Tensor]:
        return self.memory.x, self.memory.y

    def update_memory(self) -> None:
        """The memory was filled before training; the means of its classes are new."""
        self.nearest_mean = NearestMean(self.features(self.memory.x), self.memory.y, self.seen)
