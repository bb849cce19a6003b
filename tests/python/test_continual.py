"""Every learner in every arithmetic: a short run on generated data, its phases, memory and random streams."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from conftest import SCALAR, assert_same, same_bits
from quintil import HDQT
from quintil.continual import NearestMean, Observer, RunConfig, SeedSetup, find_learner, prepare, run
from quintil.metrics import read_run
from quintil.nn import SwappedLayer
from quintil.nn.fuse import FusedContainer
from torch import nn

LEARNERS = {
    "finetune": {},
    "finetune, all outputs": {"all_outputs": True},
    "joint": {},
    "offline": {"increment": 0},
    "icarl": {},
    "icarl_bce": {"lr": 1.0},  # the mean over all outputs makes its gradients small
    "replay": {},
    "er": {},
    "lwf": {},
    "lwf_mc": {"lr": 1.0},
    "wa": {},
    "bic": {},
    "bic, compat": {"bic_compat": True},
    "icarl, cosine head": {"head": "cosine", "lr": 0.2},
    "der": {},
    "der, cosine head": {"head": "cosine", "lr": 0.2},
    "memo": {"norm": "batch"},  # four layers: slow without
    "lucir": {},
    "eeil": {"finetune_epochs": 2},
    "gdumb": {"batch_size": 8, "norm": "layer"},  # 60 samples are all it trains on
}
NEAREST_MEAN = {"icarl", "icarl_bce", "replay", "wa", "bic", "der", "memo", "lucir", "eeil", "gdumb"}
LATER_TERMS = {
    **{name: {"kd"} for name in ("icarl", "lwf", "wa", "bic", "eeil")},
    **{name: {"aux"} for name in ("der", "memo")},
    "lucir": {"less_forget", "margin"},
}
SCHEMES = {"float32": None, "HDQT": HDQT(), "paper": HDQT.paper()}


def config(tmp_path, learner: str = "icarl", scheme: str = "float32", **changes) -> RunConfig:
    base = RunConfig(
        "synthetic",
        learner.split(",")[0],
        increment=5,
        memory_size=60,
        epochs=4,
        lr=0.05,
        batch_size=32,
        fc_hid_dim=48,
        scheme=SCHEMES[scheme],
        threads=1,
        results_dir=str(tmp_path),
    )
    return base.replace(**{**LEARNERS[learner], **changes})


class Phases(Observer):
    """Keeps the setup, and looks at the learner after every task."""

    def __init__(self):
        self.epochs: list[tuple[int, int]] = []
        self.setup: SeedSetup | None = None

    def on_seed(self, setup):
        self.setup = setup

    def on_epoch(self, task, epoch, log):
        method = self.setup.config.method
        terms = {"bce"} if method in ("icarl_bce", "lwf_mc") else {"ce"}
        terms |= LATER_TERMS.get(method, set()) if task.number > 1 else set()
        assert set(log) == terms | {"lr", "loss", "train_acc", "replayed"}
        assert log["loss"] == pytest.approx(sum(log[name] for name in terms))
        self.epochs.append((task.number, epoch))

    def on_task(self, task, record, timing):
        learner = self.setup.learner
        assert not learner.net.training
        assert learner.net.classes == (learner.classes if learner.full_head else task.last)
        if learner.uses_teacher:
            check_teacher(learner, task)
        if learner.uses_memory:
            check_memory(learner, task, record, self.setup.dataset.x_train)
        assert learner.heads() == (("linear", "nme") if learner.name in NEAREST_MEAN else ("linear",))
        hits = (learner.predict(task.x_test) == task.y_test).double().mean().item()
        assert record["acc_cnn"] == pytest.approx(100 * hits)
        assert timing["samples_per_s"] * timing["train_s"] == pytest.approx(learner.trained_samples)


def check_teacher(learner, task) -> None:
    """A frozen copy in evaluation mode that rounds to nearest, whatever happens to the net."""
    teacher, net = learner.teacher, learner.net
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    storage = {p.data_ptr() for p in net.parameters()}
    assert not any(p.data_ptr() in storage for p in teacher.parameters())
    x = task.x_test[:32]
    assert same_bits(teacher(x), net(x)) and same_bits(teacher(x), teacher(x))
    swapped = [m for m in teacher.modules() if isinstance(m, SwappedLayer)]
    assert len(swapped) == (0 if learner.config.scheme is None else 3)


def check_memory(learner, task, record, source) -> None:
    """Counts follow the policy; the means of all classes are those of the net as it is now."""
    memory = learner.memory
    assert record["exemplars"] == len(memory) == sum(memory.counts)
    pooled = sum(getattr(memory, "pool_counts", []))
    assert record["exemplar_bytes"] == (len(memory) + pooled) * 64 * 4 and len(memory) + pooled <= 60
    assert_same(memory.x, source[memory.index])
    if learner.name not in NEAREST_MEAN:
        return
    per_class = (learner.config.memory_size - pooled) // task.last
    assert memory.counts == [min(per_class, 84)] * task.last
    assert_same(learner.nearest_mean.means, NearestMean(learner.features(memory.x), memory.y, task.last).means)
    own = learner.predict(memory.x, head="nme")
    scores = learner.nearest_mean.scores(learner.features(memory.x))
    assert_same(own, scores.argmax(1))


@pytest.mark.filterwarnings("ignore:bic, task 3. 1 instead of 0 validation samples per class")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("learner", LEARNERS)
def test_run(learner, scheme, tmp_path):
    settings, phases = config(tmp_path, learner, scheme), Phases()
    state = torch.random.get_rng_state()
    path = run(settings, phases)
    assert_same(torch.random.get_rng_state(), state)  # a run leaves the caller's generator alone
    result = read_run(path).seeds[0]
    sizes = [12] if learner == "offline" else [5, 5, 2]
    assert result.config["task_sizes"] == sizes
    assert phases.epochs == [(t, e) for t in range(1, len(sizes) + 1) for e in range(1, 5)]
    heads = {"cnn", "nme"} if settings.method in NEAREST_MEAN else {"cnn"}
    for t, record in enumerate(result.tasks, start=1):
        assert record["classes"] == sum(sizes[:t]) and {"cnn", "nme"} & set(record) == heads
        assert all(0 <= record[head][name] <= 100 for head in heads for name in ("acc", "top5", "macro_f1"))
    assert set(read_run(path).heads()) == heads
    last, first = result.summary["last_acc_cnn"], result.tasks[0]["cnn"]["acc"]
    assert first > 1.5 * 100 / sizes[0]
    if learner in ("joint", "offline"):
        assert last > 40
    if heads == {"cnn", "nme"}:
        assert result.summary["last_acc_nme"] > 60


@pytest.mark.parametrize("scheme", ["float32", "HDQT"])
@pytest.mark.parametrize("learner", [name for name in LEARNERS if find_learner(name.split(",")[0]).uses_memory])
def test_small_memories(learner, scheme, tmp_path):
    """One exemplar per class, BatchNorm, batches that leave one sample over."""
    settings = config(tmp_path, learner, scheme, memory_size=12, epochs=1, norm="batch", batch_size=53)
    result = read_run(run(settings)).seeds[0]
    counts = {"gdumb": [12, 12, 12], "er": [12, 12, 12], "bic": [5, 10, 12]}  # bic: pools take their share
    assert [record["exemplars"] for record in result.tasks] == counts.get(learner, [10, 10, 12])
    assert result.summary["task"] == 3
    with pytest.raises(ValueError) as caught:
        run(config(tmp_path, learner, scheme, memory_size=0))
    name = learner.split(",")[0]
    assert str(caught.value) == (
        f"{name}: expected memory_size of at least 1, got 0 (the method trains on stored exemplars)"
    )


@pytest.mark.filterwarnings("ignore:bic, task 2. 1 instead of 0 validation samples per class")
@pytest.mark.parametrize("scheme", ["float32", "HDQT"])
@pytest.mark.parametrize("learner", [name for name in LEARNERS if find_learner(name.split(",")[0]).uses_memory])
def test_a_class_of_one_sample(learner, scheme, tmp_path):
    """Class 3 has a single training sample: herding, pools, balanced phases and BatchNorm all meet it."""
    y = torch.arange(120) % 4
    x = torch.randn(120, 6, generator=torch.Generator().manual_seed(0)) + y.unsqueeze(1)
    kept = (y[:80] != 3) | (torch.arange(80) == 3)
    np.savez(tmp_path / "one.npz", x_train=x[:80][kept], y_train=y[:80][kept], x_test=x[80:], y_test=y[80:])
    options = dict(dataset=f"custom:{tmp_path / 'one.npz'}", init_cls=2, increment=2, memory_size=12)
    settings = config(
        tmp_path, learner, scheme, epochs=2, norm="batch", batch_size=20, class_order="identity", **options
    )
    result = read_run(run(settings)).seeds[0]
    assert [record["n_train"] for record in result.tasks] == [40, 21]
    assert all(math.isfinite(value) for value in result.curve("cnn", "acc"))


def test_no_memory_where_none_is_needed(tmp_path):
    run(config(tmp_path, "finetune", memory_size=0, epochs=1))


def test_cosine_scheduler(tmp_path):
    path = run(config(tmp_path, "finetune", scheduler="cosine", lr=0.1))
    rows = (path / "seed0" / "train_log.csv").read_text().splitlines()[1:]
    expected = [0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)] * 3
    assert [float(row.split(",")[2]) for row in rows] == pytest.approx(expected)


def test_finetune_keeps_old_rows_and_forgets(tmp_path):
    """With the loss over new outputs old head rows only decay; with all outputs they are trained."""
    kept = {}
    for all_outputs in (False, True):
        settings = config(tmp_path, "finetune", all_outputs=all_outputs, weight_decay=0.0, momentum=0.0)
        setup = prepare(settings, 0)
        for task in setup.tasks:
            old = None if task.first == 0 else setup.learner.net.head.weight.detach().clone()
            setup.learner.begin_task(task)
            setup.learner.train_epoch()
            setup.learner.end_task()
            if old is not None:
                kept[all_outputs] = same_bits(setup.learner.net.head.weight[: task.first], old)
    assert kept == {False: True, True: False}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_teacher_is_frozen_while_the_net_trains(scheme, tmp_path):
    setup = prepare(config(tmp_path, "icarl", scheme, norm="batch"), 0)
    learner, tasks = setup.learner, iter(setup.tasks)
    with learner.streams.rounding():
        for task in (next(tasks), next(tasks)):
            learner.begin_task(task)
            teacher = learner.teacher
            before = None if teacher is None else [t.clone() for t in teacher.state_dict().values()]
            net = [t.clone() for t in learner.net.state_dict().values()]
            learner.train_epoch()
            assert not all(same_bits(a, b) for a, b in zip(net, learner.net.state_dict().values()))
            if teacher is not None:
                assert all(same_bits(a, b) for a, b in zip(before, teacher.state_dict().values()))
                assert not any(module.training for module in teacher.modules())
                assert learner.teacher is teacher and learner._teacher_logits.shape == (420 + 60, 5)
            learner.end_task()
    assert learner.teacher is not teacher


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


def test_skipped_layers_stay_float(tmp_path):
    phases = Phases()
    settings = dataclasses.replace(config(tmp_path, "joint", "HDQT"), skip=("head",))
    run(settings, phases)
    net = phases.setup.learner.net
    assert not isinstance(net.head, SwappedLayer)
    assert sum(isinstance(m, SwappedLayer) for m in net.modules()) == 2
