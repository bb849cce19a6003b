"""Weight aligning [CIL 2.7, C11]."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import same_bits
from quintil import HDQT
from quintil.continual import RunConfig, align_new_rows, prepare, run

BASE = RunConfig(
    "synthetic", "wa", increment=5, memory_size=60, epochs=3, lr=0.05, batch_size=32, fc_hid_dim=48, threads=1
)


def mean_norm(rows: torch.Tensor) -> float:
    return rows.double().norm(dim=1).mean().item()


def test_alignment():
    weight = torch.randn(7, 20)
    weight[4:] *= 3.0
    before = weight.clone()
    gamma = align_new_rows(weight, 4)
    assert gamma == pytest.approx(mean_norm(before[:4]) / mean_norm(before[4:])) and gamma < 0.5
    assert mean_norm(weight[4:]) == pytest.approx(mean_norm(weight[:4]), rel=1e-6)
    assert same_bits(weight[:4], before[:4])
    torch.testing.assert_close(weight[4:].double(), gamma * before[4:].double(), rtol=1e-6, atol=0)
    assert align_new_rows(weight, 4) == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(weight[4:].double(), gamma * before[4:].double(), rtol=1e-6, atol=0)
    zero = torch.cat([torch.ones(2, 3), torch.zeros(2, 3)])
    assert align_new_rows(zero, 2) == 1.0 and zero.isfinite().all()


@pytest.mark.parametrize("scheme", [None, HDQT()])
def test_master_weights_are_aligned_after_later_tasks_only(scheme):
    """The float32 parameter itself is scaled, before the exemplars are chosen; a bias stays."""
    setup = prepare(BASE.replace(scheme=scheme, bias=True), 0)
    learner = setup.learner
    with learner.streams.rounding():
        for task in setup.tasks:
            learner.begin_task(task)
            learner.train_epoch()
            head = learner.net.head
            weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
            learner.end_task()
            assert learner.net.head is head and head.weight.dtype == torch.float32
            assert same_bits(head.bias, bias) and same_bits(head.weight[: task.first], weight[: task.first])
            assert same_bits(learner.teacher.head.weight, head.weight)
            if task.first == 0:
                assert same_bits(head.weight, weight) and learner.record() == {}
                continue
            assert mean_norm(head.weight[task.first :]) == pytest.approx(mean_norm(weight[: task.first]), rel=1e-6)
            assert learner.record() == {"wa_gamma": learner.gamma} and learner.gamma != 1.0
            assert learner.extra_state() == {"wa_gamma": learner.gamma}


def test_record_and_options(tmp_path):
    path = run(BASE.replace(results_dir=str(tmp_path))) / "seed0"
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert ["wa_gamma" in row for row in rows] == [False, True, True] and all(row["wa_gamma"] > 0 for row in rows[1:])
    message = r"^wa: expected lamda in 0..1, got 3.0 \(the cross-entropy has the weight 1 - lamda\)$"
    with pytest.raises(ValueError, match=message):
        prepare(BASE.replace(lamda=3.0), 0)


def test_smallest_memory(tmp_path):
    run(BASE.replace(memory_size=12, epochs=1, results_dir=str(tmp_path)))
