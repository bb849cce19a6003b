"""BiC, bias correction: logits of new classes are rescaled by two numbers fitted on held-out samples [CIL 2.6, C8-C10].

Stage 1 trains the net with distillation on everything but the validation pools. Stage 2 freezes it, computes the
logits of the pools once, and fits a scale alpha and an offset beta for the new classes' logits, in float whatever the
scheme of the net. `fold` writes them into a head for deployment.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from quintil.data.batches import batch_sizes
from quintil.models import IncrementalNet

from .bias_fit import fit_bias, shuffled
from .exemplars import ExemplarMemory
from .pools import PooledMemory
from .registry import learner
from .tasks import Task
from .wa import MixedDistillation

BIC_EPOCHS = 200


@learner("bic")
class BiC(MixedDistillation):
    """Stage 1: (1 - w) CE + w KD_T, w = n / (n + m) or lamda, against the teacher's corrected logits; then stage 2.

    bic_layers "one": only the newest group of classes is corrected, and stage 1 uses raw logits of the net in
    training. "per_task": the correction of every task stays, at inference and for both nets in stage 1; only the
    last is fitted. Attributes alpha, beta, ends: scale, offset and last class + 1 of every task so far.

    bic_compat is the HDQT authors' variant: per_task; CE(softmax(q), y); pools drawn anew every task from exemplars
    and new data, int(split_ratio K / n) per class, from the second task on; stage 2 with the net in training mode,
    augmented inputs, and epochs, milestones and weight decay of stage 1; herding over the whole classes. The teacher
    was trained on such pools and BatchNorm drifts on them: it is there to repeat published numbers.
    """

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.alpha: list[float] = []
        self.beta: list[float] = []
        self.ends: list[int] = []
        self._drawn_pool: tuple[Tensor, Tensor] | None = None  # of this task, with bic_compat
        self.pooled = 0  # samples that the last correction was fitted on
        self.per_task = self.config.bic_compat or self.config.bic_layers == "per_task"

    @property
    def variant(self) -> str:
        config = self.config
        layers = "one correction per task" if self.per_task else "one correction, of the newest classes"
        if config.bic_compat:
            return f"bias correction as in the HDQT authors' code (bic_compat), {layers}"
        return f"bias correction, {layers}" + (", double softmax" if config.bic_compat_double_softmax else "")

    def make_memory(self) -> ExemplarMemory:
        config = self.config
        if config.bic_compat:
            return super().make_memory()
        if config.exemplar_selection == "reservoir":
            raise ValueError("bic: expected exemplar_selection to be herding or random, got 'reservoir'")
        memory = PooledMemory(*self.memory_options(), config.split_ratio)
        memory.quota(self.classes)
        return memory

    # Stage 1 ------------------------------------------------------------------------------------------------------

    def begin_task(self, task: Task) -> None:
        self.alpha.append(1.0)
        self.beta.append(0.0)
        self.ends.append(task.last)
        self.pooled = 0
        if not self.config.bic_compat:
            count = self.memory.pool_quota(task.first or task.last)
            rows = self.memory.set_aside(task.x, task.y, task.index, count, self.streams["pools"])
            task = dataclasses.replace(task, x=task.x[rows], y=task.y[rows], index=task.index[rows])
        super().begin_task(task)
        if self.config.bic_compat and task.first:
            self._replayed = int((self._labels < task.first).sum())

    def training_data(self, task: Task) -> tuple[Tensor, Tensor]:
        x, y = super().training_data(task)
        if not self.config.bic_compat or task.first == 0:
            return x, y
        drawn = self._draw_pool(y, task.first)
        self._drawn_pool = x[drawn], y[drawn]
        return x[~drawn], y[~drawn]

    def _draw_pool(self, labels: Tensor, known: int) -> Tensor:
        """Mask of the samples that `bic_compat` takes out of the training data of this task."""
        budget = self.config.memory_size * (1 if self.config.memory_policy == "total" else known)
        wanted = int(self.config.split_ratio * budget / known)
        smallest = int(torch.bincount(labels).min())
        count = min(max(wanted, 1), smallest)
        if count != wanted:
            self._warn(f"{count} instead of {wanted} validation samples per class")
        mask = torch.zeros(labels.numel(), dtype=torch.bool)
        for label in labels.unique().tolist():
            members = (labels == label).nonzero().flatten()
            mask[members[torch.randperm(members.numel(), generator=self.streams["pools"])[:count]]] = True
        return mask

    def loss_parts(self, logits: Tensor, labels: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        return super().loss_parts(self.correct(logits) if self.per_task else logits, labels, teacher)

    def correct(self, logits: Tensor) -> Tensor:
        """alpha z + beta for the group of classes that ends with the last column; per_task: for every group."""
        scale, offset = self._columns(logits.size(1), logits.dtype)
        return logits if scale is None else logits * scale + offset

    def _columns(self, classes: int, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
        """Scale and offset of every class; (None, None) if nothing is corrected."""
        scale, offset = torch.ones(classes, dtype=dtype), torch.zeros(classes, dtype=dtype)
        changed, first = False, 0
        for alpha, beta, last in zip(self.alpha, self.beta, self.ends):
            corrected = (self.per_task and last <= classes) or last == classes
            if corrected and (alpha, beta) != (1.0, 0.0):
                scale[first:last], offset[first:last] = alpha, beta
                changed = True
            first = last
        return (scale, offset) if changed else (None, None)

    # Stage 2 ------------------------------------------------------------------------------------------------------

    def after_train(self) -> None:
        if self.known == 0:
            return
        epochs, lr, milestones, lr_decay, weight_decay = self.config.schedule(False)
        if self.config.bic_compat:
            options = {"milestones": milestones, "lr_decay": lr_decay, "weight_decay": weight_decay}
            options |= {"epochs": epochs, "offset_penalty": 0.0, "double_softmax": True}
            self.pooled = self._drawn_pool[1].numel()
            self.net.train()
            epoch = self._training_mode_epoch
        else:
            options = {"epochs": BIC_EPOCHS, "double_softmax": self.config.bic_compat_double_softmax}
            x, y = self.memory.balanced_pool()
            if y.numel() == 0 or y[0] >= self.known or y[-1] < self.known:
                self._warn("no bias correction: the memory has room for fewer than two samples per class")
                return
            self.pooled = y.numel()
            logits = self._batched(lambda raw: self._pool_logits(self._inputs(raw)), x)
            epoch = shuffled(logits, y, self.config.batch_size, self.streams["bias"])
        if self.config.bic_epochs is not None:
            options["epochs"] = self.config.bic_epochs
        self.alpha[-1], self.beta[-1] = fit_bias(epoch, self.known, lr=lr, **options)
        self._drawn_pool = None

    @torch.no_grad()
    def _pool_logits(self, inputs: Tensor) -> Tensor:
        """Logits with the corrections of earlier tasks where they stay."""
        return self.correct(self.net(inputs)[:, : self.seen])

    def _training_mode_epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = self._drawn_pool
        order = torch.randperm(y.numel(), generator=self.streams["bias"])
        for batch in order.split(batch_sizes(y.numel(), self.config.batch_size)):
            yield self._pool_logits(self._training_inputs(x[batch])), y[batch]

    def _warn(self, text: str) -> None:
        warnings.warn(f"bic, task {self.task.number}: {text}", stacklevel=3)

    # Results ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def fold(self) -> IncrementalNet:
        """A frozen copy of the net whose own logits are the corrected ones: W <- alpha W, b <- alpha b + beta.

        The head gets a bias if it has none. A quantised head chooses its step anew from the folded weights, so that
        its logits differ from the corrected ones by rounding.
        """
        net = copy.deepcopy(self.net).eval().requires_grad_(False)
        scale, offset = self._columns(self.seen, net.head.weight.dtype)
        if scale is not None:
            net.head.weight.mul_(scale.unsqueeze(1))
            bias = offset if net.head.bias is None else net.head.bias * scale + offset
            net.head.bias = nn.Parameter(bias, requires_grad=False)
            net.bias = True
        return net

    def record(self) -> dict:
        if self.known == 0:
            return {}
        return {"bic": {"alpha": self.alpha[-1], "beta": self.beta[-1], "n_pool": self.pooled}}

    def extra_state(self) -> dict:
        state: dict = {"alpha": list(self.alpha), "beta": list(self.beta), "ends": list(self.ends)}
        state["pooled"] = self.pooled
        if isinstance(self.memory, PooledMemory) and self.memory.pool_x is not None:
            state |= {name: getattr(self.memory, name) for name in _POOL_STATE}
        return state

    def load_extra_state(self, state: dict) -> None:
        for name in ("alpha", "beta", "ends"):
            setattr(self, name, list(state[name]))
        self.pooled = int(state["pooled"])
        if "pool_x" in state:
            for name in _POOL_STATE:
                setattr(self.memory, name, state[name])


_POOL_STATE = ("pool_x", "pool_y", "pool_index", "pool_counts")
