"""GDumb: the greedy memory against its rule, and training that starts anew for every task [CIL 2.9]."""

from __future__ import annotations

import pytest
import torch
from conftest import assert_same, same_bits
from quintil.continual import GreedyMemory
from test_der import SCHEMES, learner_and_tasks


def offer(memory: GreedyMemory, sizes: list[int], per_class: int = 40, seed: int = 3) -> list[list[int]]:
    """Tasks of so many classes, one after another; returns the counts per class after each."""
    generator, first, counts = torch.Generator().manual_seed(seed), 0, []
    for size in sizes:
        labels = torch.arange(first, first + size).repeat_interleave(per_class)
        index = first * per_class + torch.arange(labels.numel())
        samples = torch.stack([index.float(), labels.float()], dim=1)
        memory.update(samples, labels, index, first + size, None, generator)
        first += size
        assert_same(memory.x[:, 0].long(), memory.index)
        assert_same(memory.x[:, 1].long(), memory.y)
        assert memory.y.tolist() == sorted(memory.y.tolist()) and memory.index.unique().numel() == len(memory)
        assert memory.counts == torch.bincount(memory.y, minlength=first).tolist()
        counts.append(list(memory.counts))
    return counts


@pytest.mark.parametrize(
    "size, counts",
    [
        (60, [[12] * 5, [6] * 10, [5] * 12]),
        (12, [None, None, [1] * 12]),
        (10_000, [[40] * 5, [40] * 10, [40] * 12]),
    ],
)
def test_counts(size, counts):
    found = offer(GreedyMemory(size), [5, 5, 2])
    for got, want in zip(found, counts):
        assert sum(got) <= size and min(got) >= 1
        assert want is None or got == want


@pytest.mark.parametrize("size", [13, 50, 77, 100])
def test_memory_is_balanced_and_full(size):
    for got in offer(GreedyMemory(size), [3, 4, 5]):
        assert sum(got) == min(size, 40 * len(got))
        assert max(got) - min(got) <= 1


def test_the_rule_is_followed_sample_by_sample():
    """Kept if the class has fewer than K / met; a full memory first loses a sample of a largest class."""
    memory, kept = GreedyMemory(7), {}
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 2, 1, 2, 2, 2])
    for i, label in enumerate(labels.tolist()):
        met = len({*kept, label})
        mine = kept.get(label, 0)
        if mine == 0 or mine < 7 / met:
            if sum(kept.values()) == 7:
                largest = max(kept.values())
                assert largest > mine
                kept[min(c for c, n in kept.items() if n == largest)] -= 1
            kept[label] = mine + 1
        one = slice(i, i + 1)
        memory.update(labels[one, None].float(), labels[one], torch.tensor([i]), met, None, torch.Generator())
        assert memory.counts == [kept[c] for c in sorted(kept)]


def test_per_class_memory():
    assert offer(GreedyMemory(4, "per_class"), [2, 3]) == [[4] * 2, [4] * 5]


def test_the_stream_decides_which_samples_stay():
    memories = [GreedyMemory(20) for _ in range(3)]
    for memory, seed in zip(memories, (3, 3, 4)):
        offer(memory, [2, 3], seed=seed)
    first, again, other = (memory.index.tolist() for memory in memories)
    assert first == again != other


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_task_starts_from_scratch_on_the_memory_alone(scheme):
    learner, tasks = learner_and_tasks("gdumb", scheme, norm="batch")
    start = {name: value.clone() for name, value in learner.net.backbone.state_dict().items()}
    with learner.streams.rounding():
        for task in tasks:
            learner.begin_task(task)
            now = learner.net.backbone.state_dict()
            assert now.keys() == start.keys() and all(same_bits(now[name], start[name]) for name in start)
            assert learner.net.classes == task.last and learner._labels.numel() == len(learner.memory) == 60
            assert_same(learner._labels, learner.memory.y)
            kept = learner.memory.index.clone()
            learner.train_epoch()
            assert not same_bits(learner.net.backbone.layers[0].weight, start["layers.0.weight"])
            learner.end_task()
            assert_same(learner.memory.index, kept)
