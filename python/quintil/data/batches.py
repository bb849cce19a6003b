"""Batches of a data set in memory for a training loop, shuffled in every epoch, with the numbers of the samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .registry import Dataset

_TEST_BATCH = 256


class TensorBatches:
    """Batches of a `Dataset`, inputs as its transform (in training its augmentation) makes them, float32.

    shape: of one sample where the network wants another than the data set has, as (1, 8, 8) for rows of 64 pixels.
    limit: batches per epoch, and of the test side; 0 = all.
    """

    def __init__(self, dataset: Dataset, batch_size: int, *, shape: Sequence[int] | None = None, limit: int = 0):
        if batch_size < 1:
            raise ValueError(f"TensorBatches: expected batch_size of at least 1, got {batch_size}")
        if limit < 0:
            raise ValueError(f"TensorBatches: expected limit of at least 0, got {limit}")
        self.dataset, self.batch_size, self.limit = dataset, batch_size, limit
        self.shape = None if shape is None else tuple(shape)
        self.samples = len(dataset.y_train)
        self.classes = len(dataset.class_names)
        self.sample_shape = tuple(self._input(dataset.x_train[:1]).shape[1:])

    def train(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """One epoch of (x, label, number of the sample); order and augmentation are drawn from `generator`."""
        order = torch.randperm(self.samples, generator=generator)
        for number, indices in enumerate(order.split(batch_sizes(self.samples, self.batch_size))):
            if self.limit and number == self.limit:
                return
            raw = self.dataset.x_train[indices]
            augment = self.dataset.augment
            x = self._input(raw) if augment is None else self._shaped(augment(raw, generator))
            yield x, self.dataset.y_train[indices], indices

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The test side as (x, label)."""
        pairs = zip(self.dataset.x_test.split(_TEST_BATCH), self.dataset.y_test.split(_TEST_BATCH))
        for number, (raw, y) in enumerate(pairs):
            if self.limit and number == self.limit:
                return
            yield self._input(raw), y

    def sample(self, count: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        """At most `count` training samples drawn from `generator`, without augmentation, as (x, label) batches."""
        chosen = torch.randperm(self.samples, generator=generator)[:count]
        return [
            (self._input(self.dataset.x_train[part]), self.dataset.y_train[part])
            for part in chosen.split(batch_sizes(len(chosen), self.batch_size))
        ]

    def _input(self, raw: Tensor) -> Tensor:
        return self._shaped(self.dataset.transform(raw))

    def _shaped(self, x: Tensor) -> Tensor:
        return channels_last(x if self.shape is None else x.reshape(len(x), *self.shape))


def batch_sizes(samples: int, batch_size: int, least: int = 2) -> list[int]:
    """Sizes of the batches of one epoch; a last one below `least` joins its neighbour, since BatchNorm needs two."""
    sizes = [batch_size] * (samples // batch_size)
    rest = samples % batch_size
    if 0 < rest < least and sizes:
        sizes[-1] += rest
    elif rest:
        sizes.append(rest)
    return sizes


def channels_last(x: Tensor) -> Tensor:
    """Images in channels_last, the faster layout of convolutions on a CPU; everything else unchanged.

    Of one channel as well, whose memory is the same either way: a layer tells the layout of its output by the strides.
    """
    return x.to(memory_format=torch.channels_last) if x.dim() == 4 else x
