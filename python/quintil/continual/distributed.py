"""Data-parallel training of one run by several processes (`torchrun`): every batch is shared out among them.

All processes draw the same order, augmentations and exemplars and hold the same net; each takes its share of a batch,
and DistributedDataParallel averages the gradients, so that a step is that of the whole batch. Only stochastic rounding
has a stream per process: equal bits on unequal samples would correlate their errors.

What a process sees of a batch decides the scales of quantised layers, the statistics of BatchNorm and means over some
of the samples (LUCIR's margin ranking), so these are the share's. Process 0 writes; several machines need one file
system for the results.
"""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from .learner import Learner

P = ParamSpec("P")
R = TypeVar("R")


def world_size() -> int:
    """Processes that train together; 1 outside a process group."""
    return dist.get_world_size() if _active() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if _active() else 0


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def launched_group() -> Iterator[None]:
    """Inside, the gloo group of the processes that `torchrun` started; nothing where it started none or one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or _active():
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
        dist.barrier()  # none leaves while another still talks to it
    finally:
        gc.collect()  # DistributedDataParallel holds the group in a cycle; threads left at exit abort the process
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        dist.barrier()


def in_first(function: Callable[P, R]) -> Callable[P, R | None]:
    """Decorator for what writes: it runs in process 0, the others return None."""

    @functools.wraps(function)
    def only_first(*args: P.args, **kwargs: P.kwargs) -> R | None:
        return function(*args, **kwargs) if rank() == 0 else None

    return only_first


def share(batch: Tensor | None) -> Tensor | None:
    """The rows of a batch [N, ...] that this process trains on: contiguous, sizes differ by one at most."""
    if batch is None or world_size() == 1:
        return batch
    size, count, place = batch.size(0), world_size(), rank()
    return batch[size * place // count : size * (place + 1) // count]


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, the same on each."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def anywhere(condition: bool) -> bool:
    """Whether the condition holds in any process, the same answer in each."""
    return condition if world_size() == 1 else bool(summed(torch.tensor(int(condition))))


class _Step(nn.Module):
    """Forward and loss of one batch as a module, which DistributedDataParallel can prepare the gradients of."""

    def __init__(self, learner: Learner):
        super().__init__()
        self.net, self._learner = learner.net, learner

    def forward(self, x: Tensor, labels: Tensor, teacher: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        return self._learner.batch_parts(x, labels, teacher)


def data_parallel(learner: Learner) -> nn.Module | None:
    """The training step of the learner's net as it is now, with averaged gradients; None in a single process."""
    if world_size() == 1:
        return None
    return DistributedDataParallel(_Step(learner))
