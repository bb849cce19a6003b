"""Herding, the exemplar memory and the nearest-mean classifier [CIL R4-R6, C2-C4]."""

from __future__ import annotations

import math
import re

import pytest
import torch
from conftest import assert_same
from quintil.continual import ExemplarMemory, NearestMean, RunConfig, herding, normalise_rows, run
from quintil.functional import quantize
from quintil.metrics import read_run
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


def test_reservoir_keeps_every_sample_equally_often():
    """Inclusion frequency K / N, whatever task a sample came with; labels and counts stay sorted by class."""
    hits, runs, size = torch.zeros(40), 2000, 12
    for seed in range(runs):
        memory, generator = ExemplarMemory(size, "total", "reservoir"), torch.Generator().manual_seed(seed)
        for first, last in ((0, 8), (8, 20), (20, 40)):  # classes of four samples
            places = torch.arange(first, last)
            memory.update(places.unsqueeze(1).float(), places // 4, places, last // 4, lambda raw: raw, generator)
            assert len(memory) == min(size, last) and memory.y.tolist() == sorted(memory.y.tolist())
            assert_same(memory.x.flatten().long(), memory.index)
            assert memory.counts == torch.bincount(memory.y, minlength=last // 4).tolist()
        hits[memory.index] += 1
    share = size / 40
    assert ((hits / runs - share).abs() < 5 * math.sqrt(share * (1 - share) / runs)).all()


def test_a_class_without_exemplars_is_never_predicted():
    nearest = NearestMean(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 2]), 3)
    scores = nearest.scores(torch.randn(20, 2))
    assert scores[:, 1].isneginf().all() and scores[:, [0, 2]].isfinite().all()


@pytest.mark.parametrize("bits, codes", [(None, 324_000), (8, 81_000), (4, 40_500)])
def test_bytes_of_sensor_exemplars(bits, codes):
    """The sizes of [CIL R8]: 200 exemplars of 405 floats, and 4 bytes of scale each."""
    memory = ExemplarMemory(200, bits=bits)
    labels = torch.arange(19).repeat_interleave(30)
    samples = torch.randn(len(labels), 405)
    assert memory.samples.bytes_of(samples[0]) * 200 == codes + (0 if bits is None else 800)
    memory.update(samples[:300], labels[:300], torch.arange(300), 10, lambda raw: raw, torch.Generator())
    assert len(memory) == 200 and memory.bytes == codes + (0 if bits is None else 800)
    memory.update(samples[300:], labels[300:], torch.arange(300, 570), 19, lambda raw: raw, torch.Generator())
    assert len(memory) == 190 and memory.bytes == 190 * codes // 200 + (0 if bits is None else 760)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", [(7,), (3, 5)])
def test_quantised_exemplars(bits, shape):
    """Codes are made once per sample, with its own scale: later cuts change nothing of what stays."""
    memory, labels = ExemplarMemory(12, bits=bits), torch.arange(4).repeat_interleave(5)
    samples = torch.randn(20, *shape) * torch.logspace(-3, 3, 20).reshape(-1, *[1] * len(shape))
    samples[0] = 0.0
    for first, last in ((0, 2), (2, 4)):
        new = slice(5 * first, 5 * last)
        memory.update(
            samples[new], labels[new], torch.arange(20)[new], last, lambda raw: raw.flatten(1), torch.Generator()
        )
        kept = samples[memory.index]
        assert memory.x.shape == kept.shape and memory.x.dtype == torch.float32
        limit = 2 ** (bits - 1) - 1
        step = kept.flatten(1).abs().amax(1) / limit
        error = (memory.x - kept).flatten(1).abs().amax(1)
        assert (error <= 0.5001 * step).all() and int(memory.samples.codes.numel()) > 0
        alone = [quantize(row, bits, signed=True)[0] * s for row, s in zip(kept, step)]
        torch.testing.assert_close(memory.x, torch.stack(alone))


def test_images_stay_bytes():
    memory = ExemplarMemory(4, bits=4)
    images = torch.randint(0, 256, (10, 3, 2, 2), dtype=torch.uint8)
    memory.update(
        images, torch.arange(10) // 5, torch.arange(10), 2, lambda raw: raw.flatten(1).float(), torch.Generator()
    )
    assert_same(memory.x, images[memory.index])
    assert memory.x.dtype == torch.uint8 and memory.bytes == 4 * 12 == 4 * memory.samples.bytes_of(images[0])


@pytest.mark.parametrize(
    "changes", [dict(exemplar_bits=4), dict(exemplar_bits=8), dict(exemplar_selection="reservoir")]
)
def test_runs_with_other_memories(changes, tmp_path):
    """Sizes are in the summary, and the stored form of the exemplars is good enough to remember by."""
    base = RunConfig(
        "synthetic", increment=4, memory_size=60, epochs=8, lr=0.05, batch_size=32, fc_hid_dim=48, threads=1
    )
    summary = read_run(run(base.replace(results_dir=str(tmp_path), **changes))).seeds[0].summary
    bits = changes.get("exemplar_bits", 32)
    assert summary["exemplars"] == 60 and summary["exemplar_bytes"] == 60 * 64 * bits // 8 + (240 if bits < 32 else 0)
    assert summary["model_bytes"] == 4 * (64 * 48 * 2 + 64 * 12)
    assert summary["last_acc_nme"] > 60


def test_a_memory_below_one_sample_per_class_is_refused_before_training(tmp_path):
    base = RunConfig("synthetic", increment=4, results_dir=str(tmp_path))
    for selection in ("herding", "reservoir"):
        message = "^ExemplarMemory: expected size of at least one sample per class, got 11 \\(12 classes\\)$"
        with pytest.raises(ValueError, match=message):
            run(base.replace(memory_size=11, exemplar_selection=selection))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: ExemplarMemory(0), "ExemplarMemory: expected size of at least 1, got 0"),
        (lambda: ExemplarMemory(9, "fixed"),
         "ExemplarMemory: expected policy to be one of total, per_class, got 'fixed'"),
        (lambda: ExemplarMemory(9, "total", "best"),
         "ExemplarMemory: expected selection to be one of herding, random, reservoir, got 'best'"),
        (lambda: ExemplarMemory(9, "per_class", "reservoir"),
         "ExemplarMemory: expected policy to be total for selection reservoir, got 'per_class'"),
        (lambda: ExemplarMemory(9, bits=2), "SampleStore: expected bits to be 8, 4 or None, got 2"),
        (lambda: RunConfig("digits", exemplar_bits=5), "RunConfig: expected exemplar_bits to be one of 8, 4, got 5"),
        (lambda: ExemplarMemory(9).quota(10),
         "ExemplarMemory: expected size of at least one sample per class, got 9 (10 classes)"),
    ],
)  # fmt: skip
def test_refused(call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        call()
