"""Batches in memory and of photographs: every sample once, the same from equal generators, windows of photographs."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from conftest import same_bits
from PIL import Image
from quintil import data
from quintil.data import PhotoBatches, TensorBatches
from quintil.data.photos import MEAN, STD, centre_window, random_window


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_an_epoch_holds_every_sample_once(digits):
    batches = TensorBatches(digits, 100, shape=(1, 8, 8))
    assert (batches.samples, batches.classes, batches.sample_shape) == (1438, 10, (1, 8, 8))
    found = list(batches.train(drawn(1)))
    assert [len(y) for _, y, _ in found] == [100] * 14 + [38]
    x, y, indices = (torch.cat(parts) for parts in zip(*found))
    assert torch.equal(indices.sort().values, torch.arange(1438)) and not torch.equal(indices, torch.arange(1438))
    assert same_bits(x, digits.x_train[indices].reshape(-1, 1, 8, 8)) and torch.equal(y, digits.y_train[indices])
    again = list(batches.train(drawn(1)))
    assert all(torch.equal(a[2], b[2]) for a, b in zip(found, again))
    assert not torch.equal(next(batches.train(drawn(2)))[2], found[0][2])
    x, y = (torch.cat(parts) for parts in zip(*batches.test()))
    assert torch.equal(y, digits.y_test) and same_bits(x.flatten(1), digits.x_test)


def test_augmentation_is_for_training_alone():
    images = data.load("synthetic:cifar")
    batches = TensorBatches(images, 64, limit=2)
    (x, _, indices), *rest = batches.train(drawn(3))
    assert len(rest) == 1 and x.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(x, images.transform(images.x_train[indices]))
    assert same_bits(next(batches.train(drawn(3)))[0], x)
    assert len(list(batches.test())) == 1
    sample = batches.sample(100, drawn(4))
    assert [len(y) for _, y in sample] == [64, 36]
    assert len(batches.sample(10**6, drawn(4))[0][0]) == 64


@pytest.fixture
def photos(tmp_path):
    generator = np.random.default_rng(0)
    for side, count in (("train", 3), ("val", 2)):
        for number, name in enumerate(("bee", "ant")):
            (tmp_path / side / name).mkdir(parents=True)
            for k in range(count):
                pixels = generator.integers(0, 256, (40 + 7 * k, 50 - 9 * number, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / side / name / f"{k}.JPEG")
    Image.fromarray(np.full((30, 20), 128, np.uint8)).save(tmp_path / "val" / "ant" / "grey.png")
    return tmp_path


def test_photographs(photos):
    batches = PhotoBatches(photos, 4, size=16)
    assert (batches.samples, batches.classes, batches.class_names) == (6, 2, ("ant", "bee"))
    found = list(batches.train(drawn(1)))
    assert [x.shape for x, _, _ in found] == [(4, 3, 16, 16), (2, 3, 16, 16)]
    x, y, indices = (torch.cat(parts) for parts in zip(*found))
    assert sorted(indices.tolist()) == list(range(6)) and torch.equal(y, (indices >= 3).long())
    shared = PhotoBatches(photos, 4, size=16, workers=1)
    assert same_bits(torch.cat([x for x, _, _ in shared.train(drawn(1))]), x)
    assert not torch.equal(torch.cat([x for x, _, _ in batches.train(drawn(2))]), x)
    x, y = next(batches.test())
    assert y.tolist() == [0, 0, 0, 1, 1]
    grey = (128 / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(x[2], grey.view(3, 1, 1).expand(3, 16, 16))
    with Image.open(photos / "val" / "ant" / "0.JPEG") as image:
        top, left, height, width = centre_window(image.height, image.width, 16)
        cut = image.resize(
            (16, 16), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height), reducing_gap=3.0
        )
    want = (torch.from_numpy(np.array(cut)).permute(2, 0, 1) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(
        STD
    ).view(3, 1, 1)
    torch.testing.assert_close(x[0], want)
    assert len(PhotoBatches(photos, 2, size=16, limit=1).sample(3, drawn(1))) == 1


def test_one_channel_has_the_strides_of_channels_last(digits):
    batches = TensorBatches(digits, 4, shape=(1, 8, 8))
    for x in (next(batches.train(drawn(1)))[0], next(batches.test())[0], batches.sample(4, drawn(1))[0][0]):
        assert x.shape[1:] == (1, 8, 8) and x.stride() == (64, 1, 8, 1)


def test_windows():
    assert centre_window(256, 256, 224) == (16, 16, 224, 224)
    assert centre_window(512, 768, 224) == (32, 160, 448, 448)
    generator, areas, flat = drawn(5), [], 0
    for _ in range(300):
        top, left, height, width = random_window(300, 400, generator)
        assert 0 <= top <= 300 - height and 0 <= left <= 400 - width
        areas.append(height * width / (300 * 400))
        flat += width > height
        assert 0.74 < width / height < 1.35
    assert 0.07 < min(areas) < 0.15 and 0.9 < max(areas) < 1.01 and 0.4 < np.mean(areas) < 0.6 and 90 < flat < 210
    assert random_window(10, 1000, generator) == (0, 493, 10, 13)  # nothing fits: the widest one allowed
    assert random_window(1000, 9, generator) == (494, 0, 12, 9)


def test_refused(photos, tmp_path, digits):
    with pytest.raises(FileNotFoundError, match="expected .*nowhere to hold train/ and val/, got no folder"):
        PhotoBatches(tmp_path / "nowhere", 4)
    with pytest.raises(ValueError, match="PhotoBatches: expected batch_size of at least 1, got 0"):
        PhotoBatches(photos, 0)
    with pytest.raises(ValueError, match="TensorBatches: expected batch_size of at least 1, got 0"):
        TensorBatches(digits, 0)
    with pytest.raises(ValueError, match="TensorBatches: expected limit of at least 0, got -1"):
        TensorBatches(digits, 4, limit=-1)
    (photos / "val" / "bee").rename(photos / "val" / "wasp")
    with pytest.raises(ValueError, match=re.escape("expected equal classes in train/ and val/, got 'bee' in one")):
        PhotoBatches(photos, 4)
