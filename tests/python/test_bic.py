"""BiC in a run: pools, both stages, both kinds of layers, folding, small memories [CIL 2.6, C8-C10]."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from conftest import assert_same, same_bits
from quintil import HDQT
from quintil.continual import BiC, PooledMemory, RunConfig, kd_loss, prepare, run
from torch.nn import functional as F

BASE = RunConfig(
    "synthetic", "bic", increment=2, memory_size=120, epochs=2, lr=0.05, batch_size=32, fc_hid_dim=48, bic_epochs=20,
    threads=1,
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def records(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "seed0" / "metrics.jsonl").read_text().splitlines()]


def trained(learner, task) -> None:
    learner.begin_task(task)
    for _ in range(learner.epochs):
        learner.train_epoch()
    learner.end_task()


def after_tasks(count: int, **changes):
    """The learner and its setup after `count` tasks."""
    setup = prepare(BASE.replace(**changes), 0)
    with setup.learner.streams.rounding():
        for task, _ in zip(setup.tasks, range(count)):
            trained(setup.learner, task)
    return setup.learner, task


# Pools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, known, sizes",
    [
        (2000, (20, 40, 60, 80), (10, 5, 3, 2)),
        (2000, (10, 90), (20, 2)),
        (200, range(2, 19, 2), (10, 5, 3, 2, 2, 1, 1, 1, 1)),
        (39, (10, 19, 20, 39), (1, 1, 0, 0)),
    ],
)
def test_sizes_of_a_pool(size, known, sizes):
    memory = PooledMemory(size)
    assert tuple(memory.pool_quota(n) for n in known) == sizes
    for n, pool in zip(known, sizes):
        assert memory.quota(n) + pool == size // n and memory.quota(n) >= 1


def test_sizes_per_class_and_of_other_ratios():
    assert [PooledMemory(q, "per_class").pool_quota(7) for q in (1, 2, 9, 20, 45)] == [0, 1, 1, 2, 4]
    assert [PooledMemory(q, "per_class").quota(7) for q in (1, 2, 9, 20, 45)] == [1, 1, 8, 18, 41]
    assert PooledMemory(30, ratio=0.99).pool_quota(3) == 9 and PooledMemory(30, ratio=0.99).quota(3) == 1
    assert PooledMemory(30, ratio=0.3).pool_quota(3) == 3


@pytest.mark.parametrize("policy, size", [("total", 120), ("per_class", 21)])
def test_pools_are_never_trained_on(policy, size):
    """Over all tasks: no sample of a pool is ever a training sample or an exemplar; balanced; inside the budget."""
    setup = prepare(BASE.replace(memory_policy=policy, memory_size=size), 0)
    learner, memory = setup.learner, setup.learner.memory
    pooled, used = set(), set()
    for task in setup.tasks:
        learner.begin_task(task)
        known = task.first or task.last
        expected = max(1, size // (10 * known)) if policy == "total" else 2
        assert memory.pool_counts == [expected] * task.last and memory.balanced_pool()[1].tolist() == [
            c for c in range(task.last) for _ in range(expected)
        ]
        assert_same(memory.pool_x, setup.dataset.x_train[memory.pool_index])
        samples = learner._samples
        assert len(samples) == len(task.x) - expected * (task.last - task.first) + learner._replayed
        pooled |= set(memory.pool_index.tolist())
        used |= set(learner.task.index.tolist())
        learner.train_epoch()
        learner.end_task()
        used |= set(memory.index.tolist())
        assert not pooled & used
        assert len(memory) + len(memory.pool_y) <= (size if policy == "total" else size * task.last)
        assert memory.bytes == (len(memory) + len(memory.pool_y)) * 64 * 4
    assert len(used) == len(setup.dataset.y_train) - len(pooled)  # everything else was trained on


# Both stages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", ["one", "per_task"])
def test_first_stage(layers):
    """The teacher is corrected by its own numbers; the net in training only by those of earlier tasks, if they stay."""
    learner, _ = after_tasks(2, bic_layers=layers)
    task = list(prepare(BASE, 0).tasks)[2]
    learner.begin_task(task)
    raw = learner._batched(learner.teacher, learner._samples)
    scale = torch.tensor([1.0, 1.0, learner.alpha[1], learner.alpha[1]])
    offset = torch.tensor([0.0, 0.0, learner.beta[1], learner.beta[1]])
    assert learner.alpha[1] != 1.0 and learner.beta[1] != 0.0 and learner.alpha[2] == 1.0
    torch.testing.assert_close(learner._teacher_logits, raw * scale + offset)
    logits, labels = torch.randn(9, 6), torch.arange(9) % 6
    teacher = learner._teacher_logits[:9]
    found = learner.loss_parts(logits, labels, teacher)
    if layers == "per_task":
        logits = logits * torch.cat([scale, torch.ones(2)]) + torch.cat([offset, torch.zeros(2)])
    share = 4 / 6
    torch.testing.assert_close(found["ce"], (1 - share) * F.cross_entropy(logits, labels))
    torch.testing.assert_close(found["kd"], share * kd_loss(logits[:, :4], teacher))
    torch.testing.assert_close(torch.softmax(teacher / 2, dim=1).sum(1), torch.ones(9))
    assert_same(learner.correct(torch.ones(1, 6))[0, 4:], torch.ones(2))


@pytest.mark.parametrize("scheme", [None, HDQT()])
def test_second_stage_leaves_the_net_alone(scheme, monkeypatch):
    """Nothing but alpha and beta moves: neither weights nor BatchNorm's statistics; bic_compat moves the latter."""
    seen = []

    def watched(self):
        before = {name: t.clone() for name, t in self.net.state_dict().items()}
        after_train(self)
        changed = {name for name, t in self.net.state_dict().items() if not same_bits(t, before[name])}
        seen.append((self.known, self.alpha[-1] != 1.0 and self.beta[-1] != 0.0, changed))

    after_train = BiC.after_train
    monkeypatch.setattr(BiC, "after_train", watched)
    after_tasks(3, scheme=scheme, norm="batch")
    assert seen == [(0, False, set()), (2, True, set()), (4, True, set())]
    seen.clear()
    after_tasks(2, scheme=scheme, norm="batch", bic_compat=True)
    assert seen[0] == (0, False, set()) and seen[1][1]
    assert seen[1][2] and all("running" in name or "num_batches" in name for name in seen[1][2])


@pytest.mark.parametrize("layers", ["one", "per_task"])
def test_corrected_columns(layers):
    """After the third task: its two classes always, those of the second only per task, those of the first never."""
    learner, _ = after_tasks(3, bic_layers=layers)
    (_, second, third), (_, lower, lowest) = learner.alpha, learner.beta
    z = torch.randn(5, 6)
    middle = second * z[:, 2:4] + lower if layers == "per_task" else z[:, 2:4]
    torch.testing.assert_close(learner.correct(z), torch.cat([z[:, :2], middle, third * z[:, 4:] + lowest], 1))
    torch.testing.assert_close(learner.correct(z[:, :4])[:, 2:], second * z[:, 2:4] + lower)  # the teacher's


def test_layers_differ_from_the_third_task_on(tmp_path):
    rows = {}
    for layers in ("one", "per_task"):
        rows[layers] = records(run(BASE.replace(bic_layers=layers, results_dir=str(tmp_path), exp_name=layers)))
    same = [a == b for a, b in zip(rows["one"], rows["per_task"])]
    assert same == [True, True, False, False, False, False]


def test_record(tmp_path):
    rows = records(run(BASE.replace(results_dir=str(tmp_path))))
    assert "bic" not in rows[0]
    assert [row["bic"]["n_pool"] for row in rows[1:]] == [4 * 6, 6 * 3, 8 * 2, 10, 12]
    assert all(row["bic"]["alpha"] != 1.0 and row["bic"]["beta"] != 0.0 for row in rows[1:])


def test_options_of_the_second_stage(monkeypatch):
    """Rate of stage 1 always; its epochs, milestones and weight decay only where the authors' code is repeated."""
    calls = []
    monkeypatch.setattr("quintil.continual.bic.fit_bias", lambda *a, **options: calls.append(options) or (0.5, -1.0))
    schedule = dict(epochs=3, milestones=(2,), lr_decay=0.2, weight_decay=3e-4, init_lr=0.5, init_milestones=(1,))
    for changes in ({}, {"bic_compat_double_softmax": True}, {"bic_compat": True}):
        after_tasks(2, **schedule, bic_epochs=None, **changes)
    own = {"lr": 0.05, "epochs": 200}
    assert calls[:2] == [{**own, "double_softmax": False}, {**own, "double_softmax": True}]
    theirs = {"epochs": 3, "milestones": (2,), "lr_decay": 0.2, "weight_decay": 3e-4, "offset_penalty": 0.0}
    assert calls[2] == {"lr": 0.05, "double_softmax": True, **theirs}


def test_pools_of_compat():
    """Drawn anew from exemplars and new data: equally many of every class, out of this task's training data only."""
    setup = prepare(BASE.replace(bic_compat=True, memory_size=200), 0)
    learner = setup.learner
    for task, per_class in zip(setup.tasks, (0, 10, 5, 3)):
        stored = len(learner.memory)
        learner.begin_task(task)
        pool = learner._drawn_pool
        if task.first:
            assert torch.bincount(pool[1]).tolist() == [per_class] * task.last
            rows = {tuple(row) for row in learner._samples.tolist()}
            assert not rows & {tuple(row) for row in learner._inputs(pool[0]).tolist()}
        assert len(learner._samples) == len(task.x) + stored - per_class * task.last
        assert learner._replayed == stored - per_class * task.first
        learner.train_epoch()
        learner.end_task()
        assert learner.memory.counts == [200 // task.last if 200 // task.last < 84 else 84] * task.last
        assert learner.pooled == per_class * task.last


@pytest.mark.parametrize("scheme", [None, HDQT()], ids=["float32", "HDQT"])
def test_the_correction_finds_old_classes_again(scheme):
    """An offset put on the new classes' outputs hides the old ones; the fit takes it off."""
    setup = prepare(BASE.replace(scheme=scheme, bias=True, epochs=4, bic_epochs=None), 0)
    learner, tasks = setup.learner, iter(setup.tasks)
    with learner.streams.rounding():
        trained(learner, next(tasks))
        learner.begin_task(task := next(tasks))
        for _ in range(4):
            learner.train_epoch()
        with torch.no_grad():
            learner.net.head.bias[2:] += 12.0
        learner.end_task()

    def old_accuracy() -> float:
        old = task.y_test < task.first
        return (learner.predict(task.x_test)[old] == task.y_test[old]).double().mean().item()

    corrected, fitted = old_accuracy(), (learner.alpha[-1], learner.beta[-1])
    learner.alpha[-1], learner.beta[-1] = 1.0, 0.0
    assert corrected > 0.8 and old_accuracy() < 0.2 and fitted[1] < 0, fitted


# Deployment, state, small memories ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [None, HDQT(), HDQT.paper()], ids=["float32", "HDQT", "paper"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layers", ["one", "per_task"])
def test_folding(layers, bias, scheme):
    learner, task = after_tasks(3, bias=bias, bic_layers=layers, scheme=scheme, skip=("head",) if scheme else ())
    before = [t.clone() for t in learner.net.state_dict().values()]
    net = learner.fold()
    x = task.x_test[:32]
    torch.testing.assert_close(net(x), learner.scores(x)["linear"], rtol=1e-5, atol=1e-5)
    assert (net(x) - learner.net(x)).abs().max() > 1e-3
    assert all(same_bits(a, b) for a, b in zip(before, learner.net.state_dict().values()))
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    assert same_bits(net.head.weight[:2], learner.net.head.weight[:2])


def test_folding_a_quantised_head():
    learner, task = after_tasks(3, scheme=HDQT())
    net = learner.fold()
    assert type(net.head) is type(learner.net.head) and net.head.bias is not None
    want = learner.scores(task.x_test[:32])["linear"]
    assert (net(task.x_test[:32]) - want).abs().mean() < 0.25 * want.abs().mean()


@pytest.mark.parametrize("compat", [False, True])
def test_state_continues_a_run(compat):
    learner, _ = after_tasks(3, bic_compat=compat)
    state = learner.extra_state()
    fresh = prepare(BASE.replace(bic_compat=compat), 0).learner
    fresh.load_extra_state(state)
    assert (fresh.alpha, fresh.beta, fresh.ends) == (learner.alpha, learner.beta, learner.ends)
    assert_same(fresh.correct(torch.ones(2, 6)), learner.correct(torch.ones(2, 6)))
    assert state.keys() == fresh.extra_state().keys() and ("pool_x" in state) == (not compat)
    if not compat:
        assert_same(fresh.memory.balanced_pool()[0], learner.memory.balanced_pool()[0])


@pytest.mark.parametrize("size, skipped", [(12, [5, 6]), (15, [5, 6]), (19, [6]), (20, [])])
def test_small_memories(size, skipped, tmp_path):
    """K / n below 2 leaves the correction out, with a warning; nothing is set aside then."""
    settings = BASE.replace(memory_size=size, bic_epochs=1, increment=2, results_dir=str(tmp_path))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = records(run(settings))
    text = "no bias correction: the memory has room for fewer than two samples per class"
    told = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    assert told == [f"bic, task {t}: {text}" for t in skipped]
    assert [row["task"] for row in rows[1:] if row["bic"] == {"alpha": 1, "beta": 0, "n_pool": 0}] == skipped


@pytest.mark.parametrize("size", [12, 30])
@pytest.mark.filterwarnings("ignore:bic, task [2-5]")
def test_compat_with_small_memories(size, tmp_path):
    """int(0.1 K / n) = 0 crashed the public code; here it becomes one sample, and says so."""
    with pytest.warns(UserWarning, match="^bic, task 6: 1 instead of 0 validation samples per class$"):
        rows = records(run(BASE.replace(memory_size=size, bic_compat=True, results_dir=str(tmp_path))))
    assert rows[-1]["bic"]["n_pool"] == 12 and rows[-1]["exemplars"] == size // 12 * 12


def test_classes_of_one_sample():
    memory = PooledMemory(40)
    y = torch.tensor([0, 1, 1, 1, 2, 2])
    rows = memory.set_aside(torch.arange(6.0).unsqueeze(1), y, torch.arange(6), 5, torch.Generator())
    assert memory.pool_counts == [0, 1, 1] and len(rows) == 4 and y[rows].unique().tolist() == [0, 1, 2]
    assert memory.balanced_pool()[1].tolist() == [1, 2]
