"""The named phases every learner goes through, and the table of learners.

    begin_task(task) -> train_epoch() ... -> end_task() -> predict(x, head="linear" | "nme")

A learner is a small class that says which data it trains on and what its loss is; growing the head, the teacher, the
memory, batches and optimiser are here. The training loop makes no DataLoader and waits for no number: one epoch is
one shuffled copy of the samples, cut into views.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quintil.data.batches import batch_sizes, channels_last
from quintil.models import IncrementalNet
from quintil.nn import fuse_, quantize_, round_master_
from quintil.schemes import FP134

from . import distributed
from .config import RunConfig
from .epochs import EpochProgress
from .exemplars import ExemplarMemory, NearestMean
from .interrupt import Interrupted
from .nets import make_backbone
from .streams import Streams
from .tasks import Task


class Learner:
    """Base of all learners.

    net: the growing net, moved to the scheme's layers here. config: the run's options. dataset: gives `transform`
    and `augment` (`quintil.data.Dataset`). streams: the run's random streams. classes: all classes of the run.
    """

    name: str
    variant = "cross-entropy over all seen classes"  # one sentence for plan and report
    uses_memory = False
    uses_teacher: bool = False
    single_task = False
    memory_class = ExemplarMemory
    full_head = False  # the head has all outputs from the first task on
    moving_memory = False  # the memory changes while an epoch lasts: a run can only stop between two epochs
    class_names: tuple[str, ...] = ()  # original labels by position in the class order

    def __init__(self, net: IncrementalNet, config: RunConfig, dataset: Any, streams: Streams, classes: int):
        self.net, self.config, self.streams, self.classes = net, config, streams, classes
        self.transform, self.augment = dataset.transform, dataset.augment
        if self.uses_memory and config.memory_size < 1:
            raise ValueError(
                f"{self.name}: expected memory_size of at least 1, got {config.memory_size} "
                "(the method trains on stored exemplars)"
            )
        self.memory = self.make_memory() if self.uses_memory else None
        self.nearest_mean: NearestMean | None = None
        self.teacher: nn.Module | None = None
        self.known = self.seen = 0
        self.seconds: dict[str, float] = {}  # of the stages of the current task, by name
        self.trained_samples = 0  # in the current task, all epochs together
        self.progress: EpochProgress | None = None  # of an epoch that was interrupted
        self._data_parallel: nn.Module | None = None  # the training step, if several processes share it
        self.interrupted: Callable[[], bool] = lambda: False  # asked after every batch

    # What a learner may replace -----------------------------------------------------------------------------------

    @classmethod
    def make_net(cls, config: RunConfig, model: str, inputs: int, generator: torch.Generator) -> IncrementalNet:
        """The float32 net before the first task, without a head; see `make_backbone` for the arguments."""
        backbone = make_backbone(config, model, inputs, generator)
        return IncrementalNet(backbone, bias=config.bias, cosine=config.head == "cosine")

    def training_data(self, task: Task) -> tuple[Tensor, Tensor]:
        """Raw samples and labels to train on: the task's own, and the memory if there is one."""
        if self.memory is None or len(self.memory) == 0:
            return task.x, task.y
        return torch.cat([task.x, self.memory.x]), torch.cat([task.y, self.memory.y])

    def loss_parts(self, logits: Tensor, labels: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        """Loss terms by name ("ce", "kd", "bce"), each already weighted; their sum is minimised.

        logits [N, outputs]; teacher: `teacher_outputs` of the batch, None without a teacher.
        """
        return {"ce": F.cross_entropy(logits, labels)}

    def correct(self, logits: Tensor) -> Tensor:
        """What the linear head predicts from: raw logits [N, k] of the first k classes, corrected.

        Applied to the net's logits (k = seen) when it predicts and to the teacher's (k = known) when it teaches.
        """
        return logits

    def after_train(self) -> None:
        """Once per task when the epochs are done, before the memory is updated; the net is in evaluation mode."""

    def make_memory(self) -> ExemplarMemory:
        """The empty memory of a learner that uses one; ValueError if the budget leaves nothing for a class."""
        memory = self.memory_class(*self.memory_options())
        memory.quota(self.classes)
        return memory

    def memory_options(self) -> tuple[int, str, str, int | None]:
        """Size, policy, selection and bits of a memory, as the options say."""
        config = self.config
        return config.memory_size, config.memory_policy, config.exemplar_selection, config.exemplar_bits

    def update_memory(self) -> None:
        """Choose exemplars with the net just trained and recompute the means of all classes."""
        start, task = time.perf_counter(), self.task
        self.memory.update(task.x, task.y, task.index, self.seen, self.features, self.streams["exemplars"])
        self.nearest_mean = NearestMean(self.features(self.memory.x), self.memory.y, self.seen)
        self.seconds["herd"] = time.perf_counter() - start

    def record(self) -> dict:
        """What metrics.jsonl says about this learner alone after a task: names with numbers or dicts of numbers."""
        return {}

    def teacher_outputs(self, x: Tensor) -> Tensor:
        """What the loss needs of the frozen previous net for inputs x: its corrected logits [N, known]."""
        return self.correct(self.teacher(x)[:, : self.known])

    def batch_parts(self, x: Tensor, labels: Tensor, teacher: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits and loss terms of one training batch; replaced where a loss needs more of the net than its logits."""
        logits = self.net(x)
        return logits, self.loss_parts(logits, labels, teacher)

    def epoch_order(self) -> Tensor:
        """Positions in the training data that one epoch visits, in this order: all of them, shuffled."""
        return torch.randperm(self._labels.numel(), generator=self.streams["shuffle"])

    def grow(self, seen: int) -> None:
        """Give the net outputs for `seen` classes, in the scheme's layers.

        Called when a task begins and, task after task, when a checkpoint is loaded: the net then has the structure
        whose tensors the checkpoint holds.
        """
        self.net.grow(self.classes if self.full_head else seen, generator=self.streams["init"])
        if self.config.scheme is not None:
            quantize_(self.net, self.config.scheme, skip=self.config.skip)
        if self.config.fuse:
            fuse_(self.net)

    def extra_state(self) -> dict:
        """What a checkpoint has to hold beside net, teacher, memory, class means and streams: tensors, JSON values."""
        return {}

    def load_extra_state(self, state: dict) -> None:
        """Take back what `extra_state` gave. Called after `grow` and before the tensors of the net are loaded."""

    # The phases ---------------------------------------------------------------------------------------------------

    def begin_task(self, task: Task) -> None:
        """Grow the head, collect the training data, cache the teacher's logits, make the optimiser."""
        self.seconds = {}
        self.trained_samples = 0
        self.task, self.known, self.seen = task, task.first, task.last
        self.progress = None
        self.grow(task.last)
        self._replayed = 0 if self.memory is None else len(self.memory)
        self._train_on(*self.training_data(task))
        self.epochs, lr, milestones, decay, weight_decay = self.config.schedule(task.number == 1)
        self.optimizer = self._make_optimizer(lr, weight_decay)
        if self.config.scheduler == "cosine":
            self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, self.epochs)
        else:
            self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, list(milestones), gamma=decay)

    def train_epoch(self) -> dict[str, float]:
        """One pass over the training data; returns lr, loss, its parts, train_acc (percent) and replayed samples.

        Raises Interrupted between two batches if `interrupted()`; the next call goes on with the batch after it.
        """
        self.net.train()
        self.streams.start_epoch(self.task.number, self.scheduler.last_epoch)
        lr = self.optimizer.param_groups[0]["lr"]
        if self.progress is None:
            self.progress = EpochProgress(self.epoch_order())
        progress = self.progress
        planned = self._epoch_order()[1]
        for x, y, old in self._epoch_batches():
            self._train_batch(x, y, old)
            if len(progress.sizes) < len(planned) and self._may_stop and self.interrupted():
                raise Interrupted
        self.progress = None
        self.scheduler.step()
        self.trained_samples += int(distributed.summed(torch.tensor(sum(progress.sizes))))
        log = progress.log(lr)
        if not math.isfinite(log["loss"]):
            raise FloatingPointError(
                f"train_epoch: expected a finite loss, got {log['loss']} (task {self.task.number}, lr {lr})"
            )
        return {**log, "replayed": self._replayed}

    @property
    def _may_stop(self) -> bool:
        """Whether a run can stop inside an epoch; several processes can only agree on it between two."""
        return not self.moving_memory and distributed.world_size() == 1

    def _train_batch(self, x: Tensor, y: Tensor, old: Tensor | None) -> None:
        """One step on this process's share of a batch; a share counts as much as it has samples."""
        size = y.numel()
        x, y, old = (distributed.share(part) for part in (x, y, old))
        if old is None and self.teacher is not None:
            with torch.no_grad():
                old = self.teacher_outputs(x)
        step = self.batch_parts if self._data_parallel is None else self._data_parallel
        logits, parts = step(x, y, old)
        values = list(parts.values())
        loss = values[0] if len(values) == 1 else sum(values[1:], values[0])
        if self._data_parallel is not None:
            loss = loss * (y.numel() * distributed.world_size() / size)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        hits = (logits.detach()[:, : self.seen].argmax(1) == y).sum()
        self.progress.add(y.numel(), hits, {name: value.detach() for name, value in parts.items()})

    def end_task(self) -> None:
        """What follows the epochs: `after_train`, `update_memory`, and a frozen copy of the net as teacher."""
        self.net.eval()
        self.optimizer.zero_grad(set_to_none=True)
        if type(self).after_train is not Learner.after_train:
            start = time.perf_counter()
            self.after_train()
            self.seconds["after_train"] = time.perf_counter() - start
            self.net.eval()
        if self.memory is not None:
            with torch.no_grad():
                self.update_memory()
        if self.uses_teacher:
            self.teacher = copy.deepcopy(self.net).eval().requires_grad_(False)
        self._samples = self._labels = self._teacher_logits = self._data_parallel = None

    def heads(self) -> tuple[str, ...]:
        """The heads that can predict now: "linear", and "nme" once there are exemplars."""
        return ("linear",) if self.nearest_mean is None else ("linear", "nme")

    @torch.no_grad()
    def scores(self, x: Tensor, heads: tuple[str, ...] | None = None) -> dict[str, Tensor]:
        """Scores [N, seen classes] of raw samples by head, larger is better; one pass through the net for all heads.

        Evaluation mode; batches of the training batch size in the given order, since a quantised layer's scale
        depends on its batch.
        """
        heads = self.heads() if heads is None else heads
        for head in heads:
            if head not in self.heads():
                raise ValueError(
                    f"predict: expected head to be one of {', '.join(self.heads())}, got {head!r} "
                    "(nme takes a learner with exemplars)"
                )
        self.net.eval()

        def both(inputs: Tensor) -> Tensor:
            features = self.net.features(inputs)
            columns = {"linear": lambda: self.correct(self.net.head(features)[:, : self.seen])}
            columns["nme"] = lambda: self.nearest_mean.scores(features)
            return torch.cat([columns[head]() for head in heads], dim=1)

        table = self._batched(lambda raw: both(self._inputs(raw)), x)
        return dict(zip(heads, table.split(self.seen, dim=1)))

    def predict(self, x: Tensor, head: str = "linear") -> Tensor:
        """Predicted labels int64 [N] (positions in the class order) of raw samples."""
        return self.scores(x, (head,))[head].argmax(1)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Features [N, d] of raw samples in evaluation mode."""
        self.net.eval()
        return self._batched(lambda raw: self.net.features(self._inputs(raw)), x)

    # Helpers ------------------------------------------------------------------------------------------------------

    def _inputs(self, raw: Tensor) -> Tensor:
        return channels_last(self.transform(raw))

    def _training_inputs(self, raw: Tensor) -> Tensor:
        """Augmented if the data set is."""
        return self._inputs(raw) if self.augment is None else channels_last(self.augment(raw, self.streams["augment"]))

    def _train_on(self, samples: Tensor, labels: Tensor) -> None:
        """Set the raw samples of the coming epochs; without augmentation the teacher sees them once, here."""
        self._labels = labels
        self._samples = samples if self.augment is not None else self._inputs(samples)
        self._teacher_logits = None
        if self.teacher is not None and self.augment is None:
            self._teacher_logits = self._batched(self.teacher_outputs, self._samples)

    def _make_optimizer(self, lr: float, weight_decay: float) -> torch.optim.SGD:
        """Of the parameters that train from now on, which are also those whose gradients processes share."""
        self._data_parallel = distributed.data_parallel(self)
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        momentum = self.config.momentum
        optimizer = torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)
        if isinstance(self.config.scheme, FP134) and self.config.scheme.float_master:
            round_master_(optimizer)
        return optimizer

    def _batched(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([function(batch) for batch in x.split(self.config.batch_size)])

    def _epoch_order(self) -> tuple[Tensor, list[int]]:
        """Positions of the training samples of the epoch under way, and the sizes of its batches."""
        order = self.progress.order
        sizes = batch_sizes(order.numel(), self.config.batch_size, least=2 * distributed.world_size())
        if self.config.limit_batches:
            sizes = sizes[: self.config.limit_batches]
        return order[: sum(sizes)], sizes

    def _epoch_batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Inputs, labels and cached teacher logits (or None) of the batches of the epoch that are left."""
        order, sizes = self._epoch_order()
        done = len(self.progress.sizes)
        order, sizes = order[sum(sizes[:done]) :], sizes[done:]
        samples = self._samples.index_select(0, order).split(sizes)
        labels = self._labels.index_select(0, order).split(sizes)
        cached: Any = [None] * len(sizes)
        if self._teacher_logits is not None:
            cached = self._teacher_logits.index_select(0, order).split(sizes)
        for x, y, old in zip(samples, labels, cached):
            if self.augment is not None:
                x = channels_last(self.augment(x, self.streams["augment"]))
            yield x, y, old
