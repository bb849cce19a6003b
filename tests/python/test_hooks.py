"""The places where a learner joins in: after training, corrected logits, its own record and state."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import assert_same
from quintil.continual import ICaRL, RunConfig, find_learner, learner_names, prepare, run

BASE = RunConfig("synthetic", increment=5, memory_size=60, epochs=2, lr=0.05, batch_size=32, fc_hid_dim=48, threads=1)


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_after_train_comes_between_epochs_and_memory(tmp_path, monkeypatch):
    events = []

    def after_train(self):
        events.append((self.task.number, self.net.training, torch.is_grad_enabled(), len(self.memory)))
        self.net.train()

    monkeypatch.setattr(ICaRL, "after_train", after_train)
    path = run(BASE.replace(results_dir=str(tmp_path))) / "seed0"
    assert events == [(1, False, True, 0), (2, False, True, 60), (3, False, True, 60)]
    assert all(row["after_train_s"] >= 0 for row in lines(path / "timing.jsonl"))
    monkeypatch.undo()
    plain = run(BASE.replace(results_dir=str(tmp_path / "plain"))) / "seed0"
    assert not any("after_train_s" in row for row in lines(plain / "timing.jsonl"))
    for name in ("metrics.jsonl", "train_log.csv"):
        assert (path / name).read_bytes() == (plain / name).read_bytes()


def test_correction_reaches_predictions_and_teacher(monkeypatch):
    setup = prepare(BASE, 0)
    learner, tasks = setup.learner, iter(setup.tasks)
    learner.begin_task(task := next(tasks))
    learner.end_task()
    plain = learner.scores(task.x_test)

    def correct(self, logits):
        widths.append(logits.size(1))
        return -logits

    widths: list[int] = []
    monkeypatch.setattr(ICaRL, "correct", correct)
    corrected = learner.scores(task.x_test)
    assert_same(corrected["linear"], -plain["linear"])
    assert_same(corrected["nme"], plain["nme"])
    learner.begin_task(next(tasks))
    assert set(widths) == {5}
    expected = learner._batched(lambda x: -learner.teacher(x), learner._samples)
    assert_same(learner._teacher_logits, expected)
    learner.scores(task.x_test, ("linear",))
    assert widths[-1] == 10


def test_a_learner_adds_to_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(ICaRL, "record", lambda self: {"own": {"value": 0.5, "task": self.task.number}})
    path = run(BASE.replace(results_dir=str(tmp_path))) / "seed0"
    assert [row["own"] for row in lines(path / "metrics.jsonl")] == [{"value": 0.5, "task": t} for t in (1, 2, 3)]
    assert "own" not in json.loads((path / "summary.json").read_text())


@pytest.mark.parametrize("name", learner_names())
def test_no_memory_and_no_state(name):
    """Without exemplars a method that needs them says so; what a fresh learner stores is empty or loads again."""
    single = {"increment": 0} if find_learner(name).single_task else {}
    setting = BASE.replace(method=name, memory_size=0, **single)
    if find_learner(name).uses_memory:
        message = rf"^{name}: expected memory_size of at least 1, got 0 \(the method trains on stored exemplars\)$"
        with pytest.raises(ValueError, match=message):
            prepare(setting, 0)
        setting = setting.replace(memory_size=60)
    learner = prepare(setting, 0).learner
    learner.load_extra_state(learner.extra_state())
