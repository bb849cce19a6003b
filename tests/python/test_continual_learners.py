"""Every learner in every arithmetic: a short run on generated data, its phases, memory and teacher."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import assert_same, same_bits
from quintil.continual import NearestMean, Observer, SeedSetup, find_learner, prepare, run
from quintil.metrics import read_run
from quintil.nn import SwappedLayer
from small_runs import LEARNERS, SCHEMES, config

NEAREST_MEAN = {"icarl", "icarl_bce", "replay", "wa", "bic", "der", "memo", "lucir", "eeil", "gdumb"}
LATER_TERMS = {
    **{name: {"kd"} for name in ("icarl", "lwf", "wa", "bic", "eeil")},
    **{name: {"aux"} for name in ("der", "memo")},
    "lucir": {"less_forget", "margin"},
}


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


def test_skipped_layers_stay_float(tmp_path):
    phases = Phases()
    settings = dataclasses.replace(config(tmp_path, "joint", "HDQT"), skip=("head",))
    run(settings, phases)
    net = phases.setup.learner.net
    assert not isinstance(net.head, SwappedLayer)
    assert sum(isinstance(m, SwappedLayer) for m in net.modules()) == 2
