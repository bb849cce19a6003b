"""Losses of the learners against loops in double precision and values worked out by hand [CIL C1, C5, C7]."""

from __future__ import annotations

import math
import re

import pytest
import torch
from quintil.continual import RunConfig, icarl_bce_loss, kd_loss, mixed_distillation, new_class_loss, prepare
from torch import Tensor


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    total = math.fsum(math.exp(v - top) for v in row)
    return [math.exp(v - top) / total for v in row]


def cross_entropy(rows: Tensor, labels: Tensor) -> float:
    return sum(-math.log(softmax(r)[y]) for r, y in zip(rows.tolist(), labels.tolist())) / len(labels)


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> float:
    total = 0.0
    for a, b in zip((student / temperature).tolist(), (teacher / temperature).tolist()):
        total -= math.fsum(q * math.log(p) for p, q in zip(softmax(a), softmax(b)))
    return total / len(student)


def test_kd_value_and_gradient():
    student = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[3.0, 2.0, 1.0]], dtype=torch.float64)
    loss = kd_loss(student, teacher, 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(1.340348, abs=5e-7)
    assert student.grad[0].tolist() == pytest.approx([-0.160078, 0, 0.160078], abs=5e-7)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_kd_is_the_formula(temperature):
    student = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    teacher = 3 * torch.randn(7, 5, dtype=torch.float64)
    loss = kd_loss(student, teacher, temperature)
    assert loss.item() == pytest.approx(distillation(student.detach(), teacher, temperature))
    assert kd_loss(student, teacher, temperature, tau_squared=True).item() == pytest.approx(
        temperature**2 * loss.item()
    )
    loss.backward()
    difference = torch.softmax(student / temperature, 1) - torch.softmax(teacher / temperature, 1)
    torch.testing.assert_close(student.grad, difference.detach() / (temperature * 7))
    assert torch.autograd.gradcheck(lambda z: kd_loss(z, teacher, temperature), student)


def test_kd_sums_over_classes_and_averages_over_the_batch():
    student, teacher = torch.randn(4, 6).double(), torch.randn(4, 6).double()
    once = kd_loss(student, teacher)
    assert kd_loss(student.repeat(3, 1), teacher.repeat(3, 1)).item() == pytest.approx(once.item())
    rows = [kd_loss(student[i : i + 1], teacher[i : i + 1]).item() for i in range(4)]
    assert once.item() == pytest.approx(sum(rows) / 4)
    uniform = torch.zeros(2, 8).double()
    assert kd_loss(uniform, uniform).item() == pytest.approx(math.log(8))  # a mean over classes would give an eighth
    with pytest.raises(ValueError, match=re.escape("expected teacher of the shape of student, got [4, 5] and [4, 6]")):
        kd_loss(student, teacher[:, :5])


def test_new_class_loss_leaves_old_rows_alone():
    head, features = torch.nn.Linear(6, 5).double(), torch.randn(9, 6).double()
    labels = torch.randint(3, 5, (9,))
    logits = head(features)
    loss = new_class_loss(logits, labels, 3)
    loss.backward()
    assert loss.item() == pytest.approx(cross_entropy(logits.detach()[:, 3:], labels - 3))
    assert torch.count_nonzero(head.weight.grad[:3]) == 0 and torch.count_nonzero(head.bias.grad[:3]) == 0
    assert torch.count_nonzero(head.weight.grad[3:]) == 12


def test_icarl_bce_is_the_formula():
    logits, labels = torch.randn(6, 7, dtype=torch.float64), torch.tensor([3, 4, 0, 4, 1, 3])
    teacher = torch.randn(6, 3, dtype=torch.float64)

    def by_hand(old: Tensor | None) -> float:
        total = 0.0
        for i in range(6):
            for c in range(7):
                target = float(labels[i] == c)
                if old is not None and c < 3:
                    target = 1 / (1 + math.exp(-float(old[i, c])))
                p = 1 / (1 + math.exp(-float(logits[i, c])))
                total -= target * math.log(p) + (1 - target) * math.log(1 - p)
        return total / (6 * 7)

    assert icarl_bce_loss(logits, labels, None).item() == pytest.approx(by_hand(None))
    assert icarl_bce_loss(logits, labels, teacher).item() == pytest.approx(by_hand(teacher))


def parts(method: str, *, known: int, teacher: Tensor | None, **options) -> tuple[dict[str, float], Tensor, Tensor]:
    """Loss terms of a learner on fixed float64 logits of 6 seen classes."""
    learner = prepare(RunConfig("synthetic", method, increment=3, **options), 0).learner
    learner.known, learner.seen = known, 6
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(8, 6, dtype=torch.float64, generator=generator)
    labels = torch.randint(known, 6, (8,), generator=generator)
    found = learner.loss_parts(logits, labels, teacher)
    return {name: value.item() for name, value in found.items()}, logits, labels


@pytest.mark.parametrize(
    "method", ["finetune", "joint", "replay", "icarl", "lwf", "wa", "bic", "der", "memo", "lucir", "eeil", "gdumb"]
)
def test_first_task_is_plain_cross_entropy(method):
    found, logits, labels = parts(method, known=0, teacher=None)
    assert found == pytest.approx({"ce": cross_entropy(logits, labels)})


@pytest.mark.parametrize("method", ["icarl_bce", "lwf_mc"])
def test_first_task_of_the_paper_is_binary(method):
    found, logits, labels = parts(method, known=0, teacher=None)
    assert found == {"bce": icarl_bce_loss(logits, labels, None).item()}


def test_later_tasks():
    old = torch.randn(8, 3, dtype=torch.float64)
    found, logits, labels = parts("finetune", known=3, teacher=None)
    assert found == pytest.approx({"ce": cross_entropy(logits[:, 3:], labels - 3)})
    found, logits, labels = parts("finetune", known=3, teacher=None, all_outputs=True)
    assert found == pytest.approx({"ce": cross_entropy(logits, labels)})
    found, logits, labels = parts("icarl", known=3, teacher=old)
    kd = distillation(logits[:, :3], old, 2.0)
    assert found == pytest.approx({"ce": cross_entropy(logits, labels), "kd": kd})
    found, _, _ = parts("icarl", known=3, teacher=old, lamda=0.5, T=4.0, kd_tau2=True)
    assert found["kd"] == pytest.approx(0.5 * 16 * distillation(logits[:, :3], old, 4.0))
    found, logits, labels = parts("icarl_bce", known=3, teacher=old)
    assert found == {"bce": icarl_bce_loss(logits, labels, old).item()}
    found, logits, labels = parts("lwf_mc", known=3, teacher=old)
    assert found == {"bce": icarl_bce_loss(logits, labels, old).item()}
    found, logits, labels = parts("lwf", known=3, teacher=old)
    kd = distillation(logits[:, :3], old, 2.0)
    assert found == pytest.approx({"ce": cross_entropy(logits[:, 3:], labels - 3), "kd": 3 * kd})
    assert parts("lwf", known=3, teacher=old, lamda=0.25)[0]["kd"] == pytest.approx(kd / 4)
    found, logits, labels = parts("replay", known=3, teacher=None)
    assert found == pytest.approx({"ce": cross_entropy(logits, labels)})


@pytest.mark.parametrize("known", [1, 2, 4, 5])
def test_distillation_weighs_more_with_every_task(known):
    """[CIL C9, C11] the weight is the share of old classes, n / (n + m)."""
    old = torch.randn(8, known, dtype=torch.float64)
    found, logits, labels = parts("wa", known=known, teacher=old)
    ce, kd = cross_entropy(logits, labels), distillation(logits[:, :known], old, 2.0)
    assert found == pytest.approx({"ce": (1 - known / 6) * ce, "kd": known / 6 * kd})
    found = mixed_distillation(logits, labels, old, 3.0, weight=0.3, tau_squared=True)
    kd = distillation(logits[:, :known], old, 3.0)
    assert {k: v.item() for k, v in found.items()} == pytest.approx({"ce": 0.7 * ce, "kd": 0.3 * 9 * kd})
