"""EEIL: distillation head by head in double precision, the balanced phase, noise on gradients [CIL 2.9]."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import assert_same, same_bits
from quintil.continual import head_distillation_loss
from test_der import SCHEMES, learner_and_tasks
from torch import Tensor


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(v / temperature) for v in row]
    return [p / math.fsum(powers) for p in powers]


def by_hand(logits: Tensor, teacher: Tensor, bounds: list[tuple[int, int]], temperature: float) -> float:
    total = 0.0
    for first, end in bounds:
        head = 0.0
        for student, target in zip(logits[:, first:end].tolist(), teacher[:, first:end].tolist()):
            for p, q in zip(softmax(student, temperature), softmax(target, temperature)):
                head -= q * math.log(p) + (1 - q) * math.log(1 - p)
        total += head / (len(logits) * (end - first))
    return total


@pytest.mark.parametrize("temperature", [2.0, 1.0])
def test_distillation_is_the_formula(temperature):
    logits = torch.randn(6, 9, dtype=torch.float64, requires_grad=True)
    teacher = 2 * torch.randn(6, 9, dtype=torch.float64)
    sizes = [3, 2, 4]
    for columns, bounds in [(3, [(0, 3)]), (5, [(0, 3), (3, 5)]), (9, [(0, 3), (3, 5), (5, 9)])]:
        loss = head_distillation_loss(logits, teacher[:, :columns], sizes, temperature)
        assert loss.item() == pytest.approx(by_hand(logits.detach(), teacher, bounds, temperature))
        assert torch.autograd.gradcheck(
            lambda z, k=columns: head_distillation_loss(z, teacher[:, :k], sizes, temperature), logits
        )
    message = r"^head_distillation_loss: expected teacher.size\(1\) to be one of \[3, 5, 9\], got 4 "
    with pytest.raises(ValueError, match=message):
        head_distillation_loss(logits, teacher[:, :4], sizes)


def test_heads_of_one_class_teach_nothing():
    logits = torch.randn(4, 3, requires_grad=True)
    loss = head_distillation_loss(logits, torch.randn(4, 1), [1, 2])
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6) and bool(torch.isfinite(logits.grad).all())


def second_task(scheme: str = "float32", **changes):
    """A learner whose second task has had its epochs."""
    learner, tasks = learner_and_tasks("eeil", scheme, finetune_epochs=2, **changes)
    learner.begin_task(tasks[0])
    learner.train_epoch()
    learner.end_task()
    assert learner.head_sizes == [5]
    learner.begin_task(tasks[1])
    learner.train_epoch()
    return learner, tasks


def test_loss_of_a_later_task():
    learner, _ = second_task(lamda=0.4, T=3.0)
    assert learner.head_sizes == [5, 5]
    logits, labels = torch.randn(8, 10, dtype=torch.float64), torch.randint(0, 10, (8,))
    old = torch.randn(8, 5, dtype=torch.float64)
    parts = learner.loss_parts(logits, labels, old)
    assert parts["kd"].item() == pytest.approx(0.4 * by_hand(logits, old, [(0, 5)], 3.0))
    ce = sum(-math.log(softmax(row, 1.0)[y]) for row, y in zip(logits.tolist(), labels.tolist())) / 8
    assert parts["ce"].item() == pytest.approx(ce)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_balanced_phase(scheme):
    """Equal counts, lr x 0.01, old heads from the previous net and the newest from the net before the phase."""
    learner, tasks = second_task(scheme, norm="batch")
    memory, net = learner.memory, learner.net
    before = {name: value.clone() for name, value in net.state_dict().items()}
    samples, epochs = learner.trained_samples, []
    original = learner.train_epoch

    def watched():
        labels = learner._labels
        assert torch.bincount(labels).tolist() == [12] * 10 and len(memory) == 60
        copied = learner._before.state_dict()
        assert all(same_bits(value, copied[name]) for name, value in before.items())
        x = learner._samples[:16]
        targets = learner.teacher_outputs(x)
        assert targets.shape == (16, 10)
        assert_same(targets[:, :5], learner.teacher(x))
        assert_same(targets[:, 5:], learner._before(x)[:, 5:])
        log = original()
        epochs.append(log["lr"])
        return log

    learner.train_epoch = watched
    with learner.streams.rounding():
        learner.end_task()
    assert epochs == pytest.approx([0.0005] * 2)
    assert learner.trained_samples == samples and learner._before is None
    assert not same_bits(net.head.weight, before["head.weight"])
    assert learner.seconds["after_train"] > 0 and memory.counts == [6] * 10


def test_balanced_phase_only_where_asked():
    learner, _ = second_task()
    learner.config = learner.config.replace(finetune_epochs=0)
    before = learner.net.head.weight.detach().clone()
    learner.end_task()
    assert same_bits(learner.net.head.weight, before)


def test_noise_on_gradients():
    """Added before the step, deviation sqrt(.3 / (1 + step)^.55), from a stream of its own."""
    learner, tasks = learner_and_tasks("eeil", noise_grad=True)
    other, _ = learner_and_tasks("eeil")
    for one in (learner, other):
        one.begin_task(tasks[0])
        for parameter in one.net.parameters():
            parameter.grad = torch.zeros_like(parameter)
    found = []
    for _ in range(3):
        for parameter in learner.net.parameters():
            parameter.grad.zero_()
        learner.optimizer.step()
        found.append(torch.cat([p.grad.flatten() for p in learner.net.parameters()]).std().item())
    expected = [math.sqrt(0.3 / (1 + step) ** 0.55) for step in range(3)]
    assert found == pytest.approx(expected, rel=0.04)
    other.optimizer.step()
    assert all(torch.count_nonzero(p.grad) == 0 for p in other.net.parameters())
    orders = [one.epoch_order().tolist() for one in (learner, other)]
    assert orders[0] == orders[1]


def test_state():
    learner, _ = second_task()
    fresh, _ = learner_and_tasks("eeil")
    fresh.load_extra_state(learner.extra_state())
    assert fresh.head_sizes == [5, 5] and learner.extra_state()["head_sizes"] == [5, 5]
