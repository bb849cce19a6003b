"""Replay with herding, and experience replay from a reservoir [CIL 2.3]."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import assert_same
from quintil.continual import ReservoirMemory, RunConfig, prepare, run
from quintil.continual.epochs import EpochProgress
from quintil.metrics import read_run

BASE = RunConfig(
    "synthetic", "er", increment=5, memory_size=60, epochs=3, lr=0.05, batch_size=32, fc_hid_dim=48, threads=1
)


def filled(size: int, items: int, batch: int, seed: int) -> ReservoirMemory:
    memory, generator = ReservoirMemory(size), torch.Generator().manual_seed(seed)
    for index in torch.arange(items).split(batch):
        memory.add(index.float().unsqueeze(1), index % 3, index, generator)
    return memory


@pytest.mark.parametrize("batch, repeats", [(1, 300), (7, 800), (64, 3000)])
def test_every_item_is_kept_equally_often(batch, repeats):
    """The inclusion frequency of every item is K / N, whatever the batches; within 5 standard deviations."""
    size, items = 10, 64
    found = torch.zeros(items)
    for seed in range(repeats):
        memory = filled(size, items, batch, seed)
        assert len(set(memory.index.tolist())) == size == len(memory)
        found[memory.index] += 1
    share = size / items
    deviation = math.sqrt(share * (1 - share) / repeats)
    assert (found / repeats - share).abs().max() < 5 * deviation


def test_what_a_reservoir_holds():
    memory = filled(20, 13, 5, 0)
    assert memory.index.tolist() == list(range(13)) and memory.arrived == 13  # all of them while there is room
    memory = filled(20, 300, 32, 0)
    assert memory.arrived == 300 and memory.bytes == 20 * 4 and memory.quota(3) == 6 and memory.quota(30) == 0
    assert_same(memory.x[:, 0].long(), memory.index)
    assert_same(memory.y, memory.index % 3)
    assert memory.counts == torch.bincount(memory.y).tolist()
    x, y = memory.draw(8, torch.Generator().manual_seed(1))
    assert len(set(x[:, 0].tolist())) == 8
    assert_same(y, x[:, 0].long() % 3)
    assert memory.draw(99, torch.Generator())[1].numel() == 20
    assert ReservoirMemory(3).draw(2, torch.Generator())[1].numel() == 0


@pytest.mark.parametrize("minibatch", [None, 8])
def test_every_step_adds_memory_samples(minibatch):
    setup = prepare(BASE.replace(minibatch_size=minibatch), 0)
    learner, first = setup.learner, next(iter(setup.tasks))
    learner.begin_task(first)
    drawn = minibatch or 32
    learner.progress = EpochProgress(learner.epoch_order())
    batches = list(learner._epoch_batches())
    sizes = [y.numel() for _, y, _ in batches]
    own = [32] * 13 + [4]
    assert sizes == [n + min(drawn, 60, 32 * step) for step, n in enumerate(own)]
    assert learner.memory.arrived == 420 and learner.memory.counts == torch.bincount(learner.memory.y).tolist()
    assert learner._replayed == sum(sizes) - 420
    before = learner.memory.index.clone()
    for x, y, _ in learner._epoch_batches():  # later epochs draw only
        assert x.shape == (y.numel(), 64)
    assert learner.memory.arrived == 420
    assert_same(learner.memory.index, before)


def test_the_reservoir_keeps_samples_as_stored():
    """Augmented images: the memory holds the bytes of the data set, not the shifted ones."""
    changes = dict(dataset="synthetic:cifar", model="resnet20", increment=10, fc_hid_dim=None, limit_batches=2)
    setup = prepare(BASE.replace(**changes), 0)
    learner = setup.learner
    learner.begin_task(next(iter(setup.tasks)))
    learner.progress = EpochProgress(learner.epoch_order())
    for x, _, _ in learner._epoch_batches():
        assert x.dtype == torch.float32
    assert learner.memory.arrived == 64 and learner.memory.x.dtype == torch.uint8
    assert_same(learner.memory.x, setup.dataset.x_train[learner.memory.index])


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_any_memory_size(size, tmp_path):
    path = run(BASE.replace(memory_size=size, results_dir=str(tmp_path)))
    records = read_run(path).seeds[0].tasks
    kept = [min(size, 84 * classes) for classes in (5, 10, 12)]
    assert [record["exemplars"] for record in records] == kept
    log = (path / "seed0" / "train_log.csv").read_text().splitlines()
    assert all(int(row.split(",")[8]) > 0 for row in log[1:])


def test_policy_of_er():
    with pytest.raises(ValueError, match="^er: expected memory_policy to be total, got 'per_class'$"):
        prepare(BASE.replace(memory_policy="per_class"), 0)


def test_replay_beats_finetuning(tmp_path):
    """Old classes survive where their exemplars are trained on, and vanish where nothing is kept."""
    last = {}
    for method in ("finetune", "replay", "er"):
        path = run(BASE.replace(method=method, epochs=8, all_outputs=True, results_dir=str(tmp_path)))
        last[method] = read_run(path).seeds[0].tasks[-1]["cnn"]["acc_old"]
    assert last["finetune"] < 50 and min(last["replay"], last["er"]) > 80, last
