"""What the settings of a run do: schedules, memory policies, seeds, images, fused layers, and what is refused."""

from __future__ import annotations

import json
import math

import pytest
import torch
from conftest import SCALAR, same_bits
from quintil.continual import Observer, find_learner, prepare, run
from quintil.metrics import read_run
from quintil.nn.fuse import FusedContainer
from small_runs import config
from torch import nn


def test_cosine_scheduler(tmp_path):
    path = run(config(tmp_path, "finetune", scheduler="cosine", lr=0.1))
    rows = (path / "seed0" / "train_log.csv").read_text().splitlines()[1:]
    expected = [0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)] * 3
    assert [float(row.split(",")[2]) for row in rows] == pytest.approx(expected)


def test_first_and_later_schedules(tmp_path):
    changes = dict(epochs=5, lr=0.02, milestones=(1, 3), lr_decay=0.5)
    first = dict(init_epoch=3, init_lr=0.1, init_milestones=(2,), init_lr_decay=0.1)
    path = run(config(tmp_path, "finetune", **changes, **first))
    rows = (path / "seed0" / "train_log.csv").read_text().splitlines()
    columns = rows[0].split(",")
    table = [dict(zip(columns, row.split(","))) for row in rows[1:]]
    rates = {
        t: [float(row["lr"]) for row in table if row["task"] == str(t)]
        for t in (1, 2, 3)
    }  # fmt: skip
    later = [0.02, 0.01, 0.01, 0.005, 0.005]
    assert {t: pytest.approx(r) for t, r in rates.items()} == {1: [0.1, 0.1, 0.01], 2: later, 3: later}
    assert all(0 <= float(row["train_acc"]) <= 100 and row["replayed"] == "0" for row in table)


@pytest.mark.parametrize(
    "policy, size, counts",
    [("total", 50, [10, 5, 4]), ("per_class", 7, [7, 7, 7]), ("total", 10_000, [84, 84, 84])],
)
@pytest.mark.parametrize("selection", ["herding", "random"])
def test_memory_policies(policy, size, counts, selection, tmp_path):
    changes = dict(memory_size=size, memory_policy=policy, exemplar_selection=selection, epochs=1)
    path = run(config(tmp_path, **changes))
    result = read_run(path).seeds[0]
    assert [record["exemplars_per_class"] for record in result.tasks] == counts
    assert [record["exemplars"] for record in result.tasks] == [c * s for c, s in zip(counts, (5, 10, 12))]
    replayed = [int(row.split(",")[8]) for row in (path / "seed0" / "train_log.csv").read_text().splitlines()[1:]]
    assert replayed == [0, counts[0] * 5, counts[1] * 10]


def test_order_seed_and_training_seed_are_separate(tmp_path):
    setups = {
        (seed, order): prepare(config(tmp_path, order_seed=order), seed) for seed in (1, 2) for order in (None, 7)
    }
    orders = {key: setup.tasks.order for key, setup in setups.items()}
    assert orders[1, 7] == orders[2, 7] != orders[1, None] != orders[2, None]
    first = {key: next(setup.learner.net.parameters()) for key, setup in setups.items()}
    assert same_bits(first[1, 7], first[1, None]) and not torch.equal(first[1, 7], first[2, 7])
    assert setups[1, 7].describe()["order_seed"] == 7 and setups[1, None].describe()["order_seed"] == 1
    shuffles = [torch.randperm(50, generator=setups[1, o].learner.streams["shuffle"]) for o in (None, 7)]
    assert torch.equal(*shuffles)


def test_images(tmp_path):
    """Augmented data: the teacher sees every batch, and images stay bytes in the memory."""
    changes = dict(
        dataset="synthetic:cifar", model="resnet20", increment=10, memory_size=40, epochs=2, limit_batches=1,
        exemplar_selection="random" if SCALAR else "herding",
    )  # fmt: skip
    path = run(config(tmp_path, "icarl", "HDQT", **changes, fc_hid_dim=None), Images())
    assert path.name == "synthetic-cifar_icarl_B10_Inc10_hdqt_w4a4acc8"
    record = json.loads((path / "seed0" / "metrics.jsonl").read_text().splitlines()[-1])
    assert record["exemplar_bytes"] == 40 * 3 * 32 * 32 and record["classes"] == 20
    assert record["trainable_params"] == 269_072 + 64 * 20


def test_fused_layers(tmp_path):
    """--fuse reaches every block, and the numbers stay close to those of separate layers."""
    changes = dict(
        dataset="synthetic:cifar", model="resnet20", increment=10, memory_size=40, epochs=1, limit_batches=1,
        exemplar_selection="random", fc_hid_dim=None, lr=1e-3,
    )  # fmt: skip
    losses, fused = [], []

    class Containers(Observer):
        def on_task(self, task, record, timing):
            fused.append(sum(isinstance(m, FusedContainer) for m in self.setup.learner.net.modules()))

        def on_seed(self, setup):
            self.setup = setup

    for fuse in (False, True):
        path = run(config(tmp_path / str(fuse), "icarl", "HDQT", **changes, fuse=fuse), Containers())
        losses.append([json.loads(line)["loss_last"] for line in (path / "seed0" / "metrics.jsonl").open()])
    assert fused[:2] == [0, 0] and fused[2] == fused[3] >= 10
    assert losses[0] == pytest.approx(losses[1], rel=0.1) and losses[0] != losses[1]
    with pytest.raises(ValueError, match="expected fuse only with scheme HDQT, got float32"):
        config(tmp_path, "icarl", fuse=True)


class Images(Observer):
    def on_seed(self, setup):
        self.setup = setup

    def on_epoch(self, task, epoch, log):
        assert ("kd" in log) == (task.number == 2)

    def on_task(self, task, record, timing):
        assert self.setup.learner.trained_samples == 2 * 32
        convolution = next(m for m in self.setup.learner.net.modules() if isinstance(m, nn.Conv2d))
        assert convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_learners_by_name():
    assert find_learner("nocl") is find_learner("offline")
    with pytest.raises(
        ValueError, match="^find_learner: expected method to be one of .*finetune, .*icarl, .*, got 'bcd'$"
    ):
        find_learner("bcd")


def test_single_task_learners_refuse_more(tmp_path):
    message = "run: expected a single task for method offline, got 3 \\(give init_cls 12 and increment 0\\)"
    with pytest.raises(ValueError, match=f"^{message}$"):
        run(config(tmp_path, "offline", increment=5))
    assert list(tmp_path.iterdir()) == []


def test_diverging_training_stops(tmp_path):
    with pytest.raises(FloatingPointError, match="^train_epoch: expected a finite loss, got (nan|inf) \\(task 1, lr"):
        run(config(tmp_path, "joint", lr=1e6, epochs=50))
