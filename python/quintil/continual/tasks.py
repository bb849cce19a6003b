"""Task sizes, class orders and the stream of tasks of a class-incremental run [CIL 1, 4]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

ICARL_ORDER_SEED = 1993


def task_sizes(classes: int, init_cls: int, increment: int) -> list[int]:
    """Classes per task: `init_cls` first, then `increment` each, the remainder last. 19, 2, 2 -> nine 2s and a 1.

    increment = 0 means a single task, which then must hold all classes. ValueError for sizes that do not fit.
    """
    if not 1 <= init_cls <= classes:
        raise ValueError(f"task_sizes: expected init_cls in 1..{classes}, got {init_cls} (number of classes {classes})")
    if increment < 0 or (increment == 0 and init_cls != classes):
        raise ValueError(
            f"task_sizes: expected increment of at least 1, or 0 with init_cls = {classes}, got {increment} "
            f"(init_cls {init_cls})"
        )
    rest = classes - init_cls
    later = [increment] * (rest // increment) if increment else []
    return [init_cls, *later] + ([rest % increment] if increment and rest % increment else [])


def class_order(classes: int, order: str | Sequence[int] | None, order_seed: int) -> list[int]:
    """Position -> class index, a permutation of 0..classes-1.

    `order`: None = numpy's RandomState(order_seed).permutation, "icarl" = the same with seed 1993, "identity", or
    the list itself (ValueError if it is no permutation).
    """
    if order is None or order == "icarl":
        seed = ICARL_ORDER_SEED if order == "icarl" else order_seed
        return np.random.RandomState(seed).permutation(classes).tolist()
    if order == "identity":
        return list(range(classes))
    if isinstance(order, str):
        raise ValueError(f"class_order: expected order to be icarl, identity or a list, got {order!r}")
    order = [int(label) for label in order]
    if sorted(order) != list(range(classes)):
        raise ValueError(
            f"class_order: expected a permutation of 0..{classes - 1}, got {len(order)} entries starting {order[:8]}"
        )
    return order


@dataclass(frozen=True)
class Task:
    """One task; labels are positions in the class order, samples are sorted by position.

    number: 1-based; classes first..last-1 are new, 0..first-1 known, `last` is the number of seen classes.
    x, y, index: raw training samples of the new classes, labels int64, positions in the data set's training part.
    x_seen, y_seen: raw training samples of all seen classes (joint training only).
    x_test, y_test: raw test samples of all seen classes.
    """

    number: int
    first: int
    last: int
    x: Tensor
    y: Tensor
    index: Tensor
    x_seen: Tensor
    y_seen: Tensor
    x_test: Tensor
    y_test: Tensor


class TaskStream:
    """The tasks of a data set with fields x_train, y_train, x_test, y_test (labels 0..C-1), one after another."""

    def __init__(self, dataset: Any, order: Sequence[int], sizes: Sequence[int]):
        self.order, self.sizes = list(order), list(sizes)
        if sum(self.sizes) != len(self.order):
            raise ValueError(
                f"TaskStream: expected task sizes with the sum {len(self.order)}, got {self.sizes} (sum {sum(sizes)})"
            )
        position = torch.empty(len(self.order), dtype=torch.int64)
        position[torch.tensor(self.order)] = torch.arange(len(self.order))
        self._train = self._sorted("y_train", dataset.x_train, dataset.y_train, position)
        self._test = self._sorted("y_test", dataset.x_test, dataset.y_test, position)
        self._train_ends = torch.bincount(self._train[1], minlength=len(self.order)).cumsum(0).tolist()
        self._test_ends = torch.bincount(self._test[1], minlength=len(self.order)).cumsum(0).tolist()

    def _sorted(self, name: str, x: Tensor, y: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        classes = len(self.order)
        if y.numel() == 0 or int(y.min()) < 0 or int(y.max()) >= classes:
            found = "no samples" if y.numel() == 0 else f"{int(y.min())}..{int(y.max())}"
            raise ValueError(f"TaskStream: expected {name} in 0..{classes - 1}, got {found}")
        missing = (torch.bincount(y, minlength=classes) == 0).nonzero().flatten().tolist()
        if missing:
            raise ValueError(f"TaskStream: expected samples of every class in {name}, got none of {missing}")
        places = position[y]
        index = torch.argsort(places, stable=True)
        return x.index_select(0, index), places[index], index

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Task]:
        last = 0
        for number, size in enumerate(self.sizes, start=1):
            first, last = last, last + size
            start = self._train_ends[first - 1] if first else 0
            end, test_end = self._train_ends[last - 1], self._test_ends[last - 1]
            (x, y, index), (x_test, y_test, _) = self._train, self._test
            yield Task(
                number, first, last,
                x[start:end], y[start:end], index[start:end],
                x[:end], y[:end],
                x_test[:test_end], y_test[:test_end],
            )  # fmt: skip

    def counts(self, number: int) -> tuple[int, int]:
        """Training and test samples of the classes of task `number` (1-based)."""
        last = sum(self.sizes[:number])
        first = last - self.sizes[number - 1]

        def between(ends: list[int]) -> int:
            return ends[last - 1] - (ends[first - 1] if first else 0)

        return between(self._train_ends), between(self._test_ends)
