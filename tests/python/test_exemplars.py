"""Herding, the exemplar memory and the nearest-mean classifier [CIL R4-R6, C2-C4]."""

from __future__ import annotations

import math
import re

import pytest
import torch
from conftest import assert_same
from quintil.continual import ExemplarMemory, NearestMean, herding, normalise_rows
from torch import Tensor


def naive_herding(rows: Tensor, count: int) -> list[int]:
    """argmin over the rows not taken yet of |mean - (sum of picks + row) / k|, the lowest index on ties."""
    rows = rows.double()
    mean, total, picks = rows.mean(0), torch.zeros(rows.size(1)).double(), []
    for k in range(1, min(count, len(rows)) + 1):
        distances = ((mean - (total + rows) / k) ** 2).sum(1)
        distances[picks] = math.inf
        picks.append(int(distances.argmin()))
        total += rows[picks[-1]]
    return picks


@pytest.mark.parametrize("unit", [True, False])
def test_herding_is_the_naive_loop(unit):
    for samples, width in [(1, 3), (2, 1), (7, 4), (40, 16), (120, 64), (60, 2)]:
        for shift in (0.0, 2.0):
            rows = torch.randn(samples, width) * torch.rand(width) + shift
            rows = normalise_rows(rows) if unit else rows
            picks = herding(rows, samples)
            assert picks.dtype == torch.int64 and sorted(picks.tolist()) == list(range(samples))
            assert picks.tolist() == naive_herding(rows, samples), f"[{samples}, {width}], shift {shift}"


def test_herding_of_unit_vectors_by_hand():
    angles = torch.tensor([0.0, 10.0, 50.0, 90.0, 35.0]) * math.pi / 180
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert herding(rows, 5).tolist() == [4, 2, 1, 3, 0]


def test_herding_prefixes_repeats_and_small_classes():
    rows = normalise_rows(torch.randn(30, 8))
    whole = herding(rows, 30).tolist()
    for count in (0, 1, 9, 29):
        assert herding(rows, count).tolist() == whole[:count]
    assert herding(rows[:4], 9).tolist() == herding(rows[:4], 4).tolist()
    assert herding(torch.ones(5, 3), 5).tolist() == [0, 1, 2, 3, 4]  # ties: the lowest index first


def test_normalised_rows():
    rows = normalise_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_nearest_mean():
    labels = torch.arange(60) % 4
    features = torch.randn(60, 9) * 3 + 5 * torch.randn(4, 9)[labels]
    nearest = NearestMean(features, labels, 4)
    torch.testing.assert_close(nearest.means.norm(dim=1), torch.ones(4))
    unit = features.double() / features.double().norm(dim=1, keepdim=True)
    means = torch.stack([unit[labels == c].mean(0) for c in range(4)])
    means /= means.norm(dim=1, keepdim=True)
    torch.testing.assert_close(nearest.means.double(), means, atol=1e-6, rtol=0)
    queries = torch.randn(50, 9) * 10
    away = queries.double() / queries.double().norm(dim=1, keepdim=True)
    distances = (away.unsqueeze(1) - means).square().sum(2)
    torch.testing.assert_close(nearest.scores(queries).double(), -distances, atol=1e-5, rtol=0)
    assert_same(nearest.scores(queries).argmax(1), distances.argmin(1))
    assert_same(nearest.scores(queries).topk(3, 1).indices, distances.topk(3, 1, largest=False).indices)


def test_means_weigh_classes_alone():
    """One long exemplar must not outvote many short ones: rows are normalised before the mean."""
    features = torch.tensor([[1000.0, 0.0], [0.0, 1.0], [0.0, 2.0], [-1.0, 0.0]])
    nearest = NearestMean(features, torch.tensor([0, 0, 0, 1]), 2)
    torch.testing.assert_close(nearest.means[0], torch.tensor([1.0, 2.0]) / math.sqrt(5))


@pytest.mark.parametrize(
    "size, seen, quota",
    [
        (2000, 10, 200),
        (2000, 60, 33),
        (2000, 100, 20),
        (200, 19, 10),
        (200, 11, 18),
        (200, 2, 100),
        (7, 7, 1),
    ],
)
def test_quota_of_a_total_memory(size, seen, quota):
    assert ExemplarMemory(size, "total").quota(seen) == quota
    assert ExemplarMemory(quota, "per_class").quota(seen) == quota


def fill(memory: ExemplarMemory, sizes: list[int], per_class: int = 30) -> list[list[list[int]]]:
    """Run the memory over tasks; returns per task and class the kept sample numbers."""
    generator, first, kept, start = torch.Generator().manual_seed(3), 0, [], 0
    for size in sizes:
        labels = torch.arange(first, first + size).repeat_interleave(per_class)
        index = torch.arange(start, start + len(labels))
        samples = torch.randn(len(labels), 6, generator=generator) + index.unsqueeze(1) * 0.01
        samples[:, 0] = index.float()
        memory.update(samples, labels, index, first + size, lambda raw: raw[:, 1:], generator)
        first, start = first + size, start + len(labels)
        assert_same(memory.x[:, 0].long(), memory.index)
        assert_same(memory.y, memory.index // per_class)
        assert memory.y.tolist() == sorted(memory.y.tolist())
        assert memory.counts == torch.bincount(memory.y).tolist()
        kept.append([memory.index[memory.y == c].tolist() for c in range(first)])
    return kept


@pytest.mark.parametrize("selection", ["herding", "random"])
def test_total_memory_keeps_prefixes(selection):
    memory = ExemplarMemory(40, "total", selection)
    kept = fill(memory, [2, 2, 3])
    assert [[len(c) for c in task] for task in kept] == [[20] * 2, [10] * 4, [5] * 7]
    for earlier, later in zip(kept, kept[1:]):
        for old, new in zip(earlier, later):
            assert new == old[: len(new)]
    assert len(memory) == 35 and memory.bytes == 35 * 6 * 4
    if selection == "herding":
        generator = torch.Generator().manual_seed(3)
        samples = torch.randn(60, 6, generator=generator) + torch.arange(60).unsqueeze(1) * 0.01
        assert kept[0][0] == herding(normalise_rows(samples[:30, 1:]), 20).tolist()


def test_per_class_memory_grows():
    kept = fill(ExemplarMemory(4, "per_class"), [2, 2, 1])
    assert [[len(c) for c in task] for task in kept] == [[4] * 2, [4] * 4, [4] * 5]
    assert kept[2][:2] == kept[0]


def test_small_classes_keep_all_they_have():
    kept = fill(ExemplarMemory(100, "total"), [2, 2], per_class=7)
    assert [[len(c) for c in task] for task in kept] == [[7] * 2, [7] * 4]
    assert [sorted(c) for c in kept[1]] == [list(range(7 * c, 7 * c + 7)) for c in range(4)]


def test_random_selection_follows_its_generator():
    first, again = (fill(ExemplarMemory(40, "total", "random"), [2, 2]) for _ in range(2))
    assert first == again != fill(ExemplarMemory(40, "total", "herding"), [2, 2])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ExemplarMemory(0), "ExemplarMemory: expected size of at least 1, got 0"),
        (lambda: ExemplarMemory(9, "fixed"),
         "ExemplarMemory: expected policy to be one of total, per_class, got 'fixed'"),
        (lambda: ExemplarMemory(9, "total", "best"),
         "ExemplarMemory: expected selection to be one of herding, random, got 'best'"),
        (lambda: ExemplarMemory(9).quota(10),
         "ExemplarMemory: expected size of at least one sample per class, got 9 (10 classes)"),
    ],
)  # fmt: skip
def test_refused(call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        call()
