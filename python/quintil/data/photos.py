"""Photographs of any size in ImageNet's folders, train/<class>/ and val/<class>/, read while training [DR 4].

Training: a random window of 8 to 100 % of the area, 3:4 to 4:3, scaled to the input size, mirrored with probability
1/2. Test: the shorter side scaled to 256/224 of the input size, its centre. Then the channel-wise normalisation of
ImageNet.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .batches import batch_sizes, channels_last
from .image_folder import decode, list_side

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_TEST_SCALE = 256 / 224
_AREA, _RATIO, _TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10
_TEST_BATCH = 64

# top, left, height, width of a window
_Window = tuple[int, int, int, int]


class PhotoBatches:
    """Batches of the photographs below `folder`, as `TensorBatches` gives them.

    size: height and width of the network's input. workers: processes that read files; 0 = this one. What is drawn for
    a photograph depends on the generator and its place in the epoch alone, and not on `workers`.
    FileNotFoundError or ValueError for folders that do not hold photographs in classes, equal on both sides.
    """

    def __init__(self, folder: str | Path, batch_size: int, *, size: int = 224, workers: int = 0, limit: int = 0):
        folder = Path(folder)
        if batch_size < 1:
            raise ValueError(f"PhotoBatches: expected batch_size of at least 1, got {batch_size}")
        if not folder.is_dir():
            raise FileNotFoundError(f"PhotoBatches: expected {folder} to hold train/ and val/, got no folder")
        test = next((name for name in ("val", "test") if (folder / name).is_dir()), "val")
        self.paths, self.test_paths = (list_side("PhotoBatches", folder / side) for side in ("train", test))
        self.class_names = tuple(sorted({path.parent.name for path in self.paths}))
        other = {path.parent.name for path in self.test_paths} ^ set(self.class_names)
        if other:
            raise ValueError(f"PhotoBatches: expected equal classes in train/ and {test}/, got {min(other)!r} in one")
        self.batch_size, self.size, self.workers, self.limit = batch_size, size, workers, limit
        self.samples, self.classes = len(self.paths), len(self.class_names)
        self.sample_shape = (3, size, size)

    def train(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """One epoch of (x, label, number of the sample)."""
        order = torch.randperm(self.samples, generator=generator)
        seeds = torch.randint(0, 2**62, (self.samples,), generator=generator)
        yield from self._load(self.paths, order, self.batch_size, seeds)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The test side as (x, label)."""
        for x, y, _ in self._load(self.test_paths, torch.arange(len(self.test_paths)), _TEST_BATCH, None):
            yield x, y

    def sample(self, count: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        """At most `count` training photographs, as in the test, as (x, label) batches."""
        chosen = torch.randperm(self.samples, generator=generator)[:count]
        return [(x, y) for x, y, _ in self._load(self.paths, chosen, _TEST_BATCH, None)]

    def _load(
        self, paths: Sequence[Path], order: Tensor, batch_size: int, seeds: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        labels = {name: number for number, name in enumerate(self.class_names)}
        photos = _Photos(paths, [labels[path.parent.name] for path in paths], self.size)
        draws = [-1] * len(order) if seeds is None else seeds.tolist()
        items = list(zip(order.tolist(), draws))
        ends = np.cumsum([0, *batch_sizes(len(items), batch_size)]).tolist()
        groups = [items[start:end] for start, end in zip(ends, ends[1:])]
        if self.limit:
            groups = groups[: self.limit]
        for x, y, indices in DataLoader(photos, batch_sampler=groups, num_workers=self.workers):
            yield channels_last(x), y, indices


class _Photos(Dataset):
    """Item (number, seed): one photograph, its label and its number; seed -1 = as in the test."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int], size: int):
        self.paths, self.labels, self.size = paths, labels, size

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, int, int]:
        from PIL import Image

        number, seed = item
        path = self.paths[number]
        pixels = decode(f"PhotoBatches: {path}", path.read_bytes())
        image = Image.fromarray(pixels).convert("RGB")
        generator = None if seed < 0 else torch.Generator().manual_seed(seed)
        if generator is None:
            top, left, height, width = centre_window(image.height, image.width, self.size)
        else:
            top, left, height, width = random_window(image.height, image.width, generator)
        box = (left, top, left + width, top + height)
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
        if generator is not None and torch.rand((), generator=generator) < 0.5:
            x = x.flip(2)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        return (x / 255.0 - mean) / std, self.labels[number], number


def centre_window(height: int, width: int, size: int) -> _Window:
    """The centre of size x size once the shorter side has 256/224 of `size`, in pixels of the photograph."""
    side = max(1, round(min(height, width) * size / round(size * _TEST_SCALE)))
    return (height - side) // 2, (width - side) // 2, side, side


def random_window(height: int, width: int, generator: torch.Generator) -> _Window:
    """A window of random area and ratio; after ten that do not fit, the largest one in the middle that is allowed."""
    for _ in range(_TRIES):
        share, position = torch.rand(2, generator=generator).tolist()
        area = height * width * (_AREA[0] + share * (_AREA[1] - _AREA[0]))
        low, high = map(math.log, _RATIO)
        ratio = math.exp(low + position * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = (int(torch.randint(0, n + 1, (), generator=generator)) for n in (height - h, width - w))
            return top, left, h, w
    w, h = min(width, round(height * _RATIO[1])), min(height, round(width / _RATIO[0]))
    return (height - h) // 2, (width - w) // 2, h, w
