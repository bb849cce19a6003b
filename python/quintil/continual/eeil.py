"""EEIL: end-to-end incremental learning, distillation head by head and a balanced second phase [CIL 2.9]."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .exemplars import ExemplarMemory
from .learner import Learner
from .losses import head_distillation_loss
from .registry import learner
from .tasks import Task


@learner("eeil")
class EEIL(Learner):
    """CE over all seen classes + lamda (default 1) distillation of every old head; a head = the outputs of one task.

    When the epochs are done, the net is fine-tuned on as many samples of each new class as there are exemplars of an
    old one; then the newest head is distilled too, from a copy of itself taken before.
    """

    variant = "cross-entropy + distillation per head, then balanced fine-tuning"
    uses_memory = True
    uses_teacher = True

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self.head_sizes: list[int] = []
        self._before: nn.Module | None = None  # the net before fine-tuning, while it lasts
        self._steps = 0  # in the current task

    def begin_task(self, task: Task) -> None:
        super().begin_task(task)
        self.head_sizes = [*self.head_sizes, task.last - task.first]
        self._steps = 0
        self._add_noise_to(self.optimizer)

    def teacher_outputs(self, x: Tensor) -> Tensor:
        """Old logits [N, known] of the previous net; while fine-tuning, the newest ones of the copy behind them."""
        old = super().teacher_outputs(x)
        return old if self._before is None else torch.cat([old, self._before(x)[:, self.known :]], dim=1)

    def loss_parts(self, logits: Tensor, labels: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        parts = {"ce": F.cross_entropy(logits, labels)}
        if teacher is not None:
            weight = 1.0 if self.config.lamda is None else self.config.lamda
            parts["kd"] = weight * head_distillation_loss(logits, teacher, self.head_sizes, self.config.T)
        return parts

    def after_train(self) -> None:
        """The balanced phase, from the second task on."""
        if self.known == 0 or self.config.finetune_epochs == 0:
            return
        self._before = copy.deepcopy(self.net).eval().requires_grad_(False)
        self._train_on(*self.balanced_data())
        weight_decay = self.optimizer.param_groups[0]["weight_decay"]
        rate = self.config.finetune_lr_factor * self.config.schedule(first_task=False)[1]
        self.optimizer = self._make_optimizer(rate, weight_decay)
        self.scheduler = torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)
        self._add_noise_to(self.optimizer)
        samples, interrupted = self.trained_samples, self.interrupted
        self.interrupted = lambda: False  # this phase is over before a run stops
        for _ in range(self.config.finetune_epochs):
            self.train_epoch()
        self.interrupted = interrupted
        self.trained_samples = samples  # those of the epochs proper
        self._before = None

    def balanced_data(self) -> tuple[Tensor, Tensor]:
        """All exemplars, and of every new class as many samples, chosen in the same way by the net as it is."""
        memory, task = self.memory, self.task
        selection = "random" if memory.selection == "reservoir" else memory.selection
        subset = ExemplarMemory(max(memory.counts), "per_class", selection)
        subset.update(task.x, task.y, task.index, self.seen, self.features, self.streams["exemplars"])
        return torch.cat([subset.x, memory.x]), torch.cat([subset.y, memory.y])

    def extra_state(self) -> dict:
        return {"head_sizes": list(self.head_sizes), "steps": self._steps}

    def load_extra_state(self, state: dict) -> None:
        self.head_sizes, self._steps = list(state["head_sizes"]), state["steps"]

    def _add_noise_to(self, optimizer: torch.optim.Optimizer) -> None:
        """With noise_grad, gradients get N(0, eta / (1 + step)^gamma) before every step, eta .3 and gamma .55."""
        if not self.config.noise_grad:
            return

        @torch.no_grad()
        def add(*_: object) -> None:
            generator = self.streams["noise"]
            deviation = math.sqrt(0.3 / (1.0 + self._steps) ** 0.55)
            self._steps += 1
            for parameter in self.net.parameters():
                if parameter.grad is not None:
                    noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                    parameter.grad.add_(noise, alpha=deviation)

        optimizer.register_step_pre_hook(add)
