"""LUCIR: its losses in double precision, imprinted rows, and old rows that never move [CIL 2.9]."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import same_bits
from quintil.continual import RunConfig, less_forget_loss, margin_ranking_loss, prepare
from quintil.models import CosineHead, FCNet, resnet20
from test_der import SCHEMES, learner_and_tasks
from torch import Tensor


def cosine(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b)) / (math.hypot(*a) * math.hypot(*b))


def margins(cosines: Tensor, labels: list[int], known: int, margin: float, nearest: int) -> float:
    """The formula, sample by sample; nan without exemplars."""
    total, count = 0.0, 0
    for row, label in zip(cosines.tolist(), labels):
        if label < known:
            closest = sorted(row[known:], reverse=True)[:nearest]
            total += math.fsum(max(0.0, margin - row[label] + c) for c in closest)
            count += 1
    return total / count if count else math.nan


def test_less_forget_is_the_formula():
    features = torch.randn(6, 9, dtype=torch.float64, requires_grad=True)
    teacher = 4 * torch.randn(6, 9, dtype=torch.float64)
    rows = zip(features.tolist(), teacher.tolist())
    assert less_forget_loss(features, teacher).item() == pytest.approx(sum(1 - cosine(a, b) for a, b in rows) / 6)
    assert torch.autograd.gradcheck(lambda f: less_forget_loss(f, teacher), features)
    assert less_forget_loss(3 * teacher, teacher).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("nearest, margin", [(2, 0.5), (1, 0.5), (3, 0.1), (9, 1.5)])
def test_margin_ranking_is_the_formula(nearest, margin):
    cosines = (2 * torch.rand(12, 7, dtype=torch.float64) - 1).requires_grad_(True)
    labels = torch.tensor([0, 6, 3, 1, 5, 2, 2, 4, 0, 3, 6, 1])
    loss = margin_ranking_loss(cosines, labels, 4, margin=margin, nearest=nearest)
    assert loss.item() == pytest.approx(margins(cosines, labels.tolist(), 4, margin, nearest))
    loss.backward()
    assert torch.count_nonzero(cosines.grad[labels >= 4]) == 0  # exemplars of old classes only


def test_margin_ranking_by_hand_and_without_exemplars():
    cosines = torch.tensor([[0.9, 0.1, 0.6, 0.3]], requires_grad=True)
    loss = margin_ranking_loss(cosines, torch.tensor([0]), 2)
    assert loss.item() == pytest.approx(0.5 - 0.9 + 0.6)  # the second nearest is far enough away
    none = margin_ranking_loss(cosines, torch.tensor([3]), 2)
    none.backward()
    assert none.item() == 0.0 and torch.count_nonzero(cosines.grad) == 0


def second_task(**changes):
    """A learner in its second task, before any step of it."""
    learner, tasks = learner_and_tasks("lucir", **changes)
    learner.begin_task(tasks[0])
    learner.train_epoch()
    learner.end_task()
    learner.begin_task(tasks[1])
    return learner, tasks


@pytest.mark.parametrize("lamda, weight", [(None, 5.0), (2.0, 2.0)])
def test_terms_of_a_later_task(lamda, weight):
    learner, _ = second_task(lamda=lamda, lw_mr=0.3, mr_margin=0.6, mr_nearest=3)
    learner.net.double().eval()
    learner.teacher.double()
    learner.known, learner.seen = 5, 10
    rows = torch.arange(0, learner._labels.numel(), 7)
    x, y = learner._samples[rows].double(), learner._labels[rows]
    old = learner.teacher_outputs(x)
    logits, parts = learner.batch_parts(x, y, old)
    features = learner.net.features(x)
    assert torch.equal(old, learner.teacher.features(x)) and (features < 0).any()  # no ReLU at the end
    cosines = torch.tensor(
        [[cosine(f, w) for w in learner.net.head.weight.tolist()] for f in features.tolist()], dtype=torch.float64
    )
    torch.testing.assert_close(logits, cosines * learner.net.head.sigma)
    rows = zip(features.tolist(), old.tolist())
    forget = sum(1 - cosine(a, b) for a, b in rows) / len(y)
    assert parts["less_forget"].item() == pytest.approx(weight * math.sqrt(5 / 5) * forget, abs=1e-7)
    assert parts["margin"].item() == pytest.approx(0.3 * margins(cosines, y.tolist(), 5, 0.6, 3))
    learner.known, learner.seen = 8, 10
    grown = learner.batch_parts(x, y, old)[1]["less_forget"].item()
    assert grown == pytest.approx(weight * math.sqrt(8 / 2) * forget, abs=1e-7)


def test_parts_can_be_left_out():
    learner, _ = second_task(less_forget=False, mr_loss=False, imprint_weights=False)
    assert learner.teacher is None and learner.variant == "cross-entropy over cosines"
    assert set(learner.train_epoch()) == {"lr", "loss", "ce", "train_acc", "replayed"}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_new_rows_are_imprinted(scheme):
    learner, tasks = learner_and_tasks("lucir", scheme)
    learner.begin_task(tasks[0])
    learner.train_epoch()
    learner.end_task()
    old = learner.net.head.weight.detach().clone()
    learner.begin_task(tasks[1])
    weight = learner.net.head.weight.detach()
    assert same_bits(weight[:5], old) and isinstance(learner.net.head, CosineHead)
    torch.testing.assert_close(weight[5:].norm(dim=1), old.norm(dim=1).mean().expand(5))
    features = learner.features(tasks[1].x).double()
    for c in range(5, 10):
        rows = features[tasks[1].y == c]
        mean = (rows / rows.norm(dim=1, keepdim=True)).mean(0)
        assert cosine(mean.tolist(), weight[c].tolist()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_old_rows_never_move(scheme):
    """Neither by momentum nor by weight decay; new rows and sigma do."""
    learner, tasks = learner_and_tasks("lucir", scheme, weight_decay=0.1)
    with learner.streams.rounding():
        for task in tasks:
            learner.begin_task(task)
            before, sigma = learner.net.head.weight.detach().clone(), learner.net.head.sigma.detach().clone()
            for _ in range(2):
                learner.train_epoch()
            learner.end_task()
            after = learner.net.head.weight.detach()
            assert same_bits(after[: task.first], before[: task.first])
            assert not (after[task.first :] == before[task.first :]).all(1).any()
            assert not torch.equal(sigma, learner.net.head.sigma)


@pytest.mark.parametrize("ratio, exemplars", [(0.0, 60), (0.1, 60), (0.5, 420), (0.2, 105)])
def test_share_of_exemplars(ratio, exemplars):
    learner, _ = second_task(rs_ratio=ratio)
    order = learner.epoch_order()
    assert order.numel() == 420 + exemplars
    new = order[order < 420]
    assert sorted(new.tolist()) == list(range(420)) and int(order.max()) < 480
    assert bool((learner._labels[order[order >= 420]] < 5).all())
    assert order.tolist() != sorted(order.tolist())
    learner.train_epoch()
    assert learner.trained_samples == order.numel()


def test_signed_features():
    x = torch.randn(4, 3, 16, 16)
    for last_relu in (True, False):
        net = resnet20(last_relu=last_relu).eval()
        torch.nn.init.constant_(net.layer3[-1].bn2.bias, -50.0)
        assert bool((net(x) < 0).any()) is not last_relu
    assert (FCNet(12, last_relu=False)(x[:, 0, :3, :4]) < 0).any()
    assert [type(m).__name__ for m in FCNet(3, last_relu=False).layers] == ["Linear", "ReLU", "Linear"]


def test_refused():
    base = RunConfig("synthetic", "lucir", increment=5)
    with pytest.raises(ValueError, match="^run: expected head to be cosine for method lucir, got linear$"):
        prepare(base.replace(head="linear"), 0)
    with pytest.raises(ValueError, match="^IncrementalNet: expected bias=False with cosine=True, got True$"):
        prepare(base.replace(bias=True), 0)
