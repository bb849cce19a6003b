"""The fit of BiC's second stage: its optimum, and what a softmax taken twice does to it [CIL 2.6, C10]."""

from __future__ import annotations

import math

import pytest
import torch
from quintil.continual import fit_bias
from quintil.continual.bias_fit import shuffled
from torch import Tensor


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def two_groups() -> tuple[Tensor, Tensor]:
    """One old class with the logit 0 and one new: ten samples at +1, nine of them new, ten at -1, two of them new."""
    z = torch.cat([torch.ones(10), -torch.ones(10)])
    logits = torch.stack([torch.zeros(20), z], dim=1)
    return logits, torch.tensor([1] * 9 + [0] + [1] * 2 + [0] * 8)


def test_optimum():
    """alpha z + beta must be the log odds: ln 9 at +1 and ln(1/4) at -1, so alpha = ln 6 and beta = ln 1.5."""
    logits, labels = two_groups()
    alpha, beta = fit_bias(lambda: [(logits, labels)], 1, epochs=1000, lr=0.1, offset_penalty=0.0)
    assert (alpha, beta) == pytest.approx((1.791759, 0.405465), abs=2e-5)
    assert (alpha, beta) == pytest.approx((math.log(6), math.log(1.5)), abs=2e-5)


def test_offset_penalty():
    """At the optimum the mean of p - y over both groups balances the penalty's slope, 0.1 beta."""
    logits, labels = two_groups()
    alpha, beta = fit_bias(lambda: [(logits, labels)], 1, epochs=1000, lr=0.1)
    residual = torch.sigmoid(alpha * logits[:, 1].double() + beta) - labels
    assert residual.mean().item() == pytest.approx(-0.1 * beta, abs=1e-5)
    assert (residual * logits[:, 1]).mean().item() == pytest.approx(0.0, abs=1e-5)
    assert 0 < beta < math.log(1.5)


def slopes(logits: list[float], label: int, alpha: float, beta: float) -> tuple[float, float]:
    """Derivatives of the cross-entropy by alpha and beta, one old class first."""
    q = [logits[0], *(alpha * z + beta for z in logits[1:])]
    total = sum(map(math.exp, q))
    residuals = [math.exp(v) / total - (k == label) for k, v in enumerate(q)]
    return sum(r * z for r, z in zip(residuals[1:], logits[1:])), sum(residuals[1:])


def test_steps_by_hand():
    """Weight decay in one step; momentum, a milestone and the penalty in two."""
    row = [0.5, -1.0, 2.0]
    batch = torch.tensor([row], dtype=torch.float64), torch.tensor([1])
    by_alpha, by_beta = slopes(row, 1, 1.0, 0.0)
    found = fit_bias(lambda: [batch], 1, epochs=1, lr=0.2, weight_decay=0.5)
    assert found == pytest.approx((1 - 0.2 * (by_alpha + 0.5), -0.2 * by_beta), abs=1e-6)
    found = fit_bias(lambda: [batch], 1, epochs=2, lr=0.2, milestones=(1,))
    alpha, beta = 1 - 0.2 * by_alpha, -0.2 * by_beta
    later = slopes(row, 1, alpha, beta)
    expected = alpha - 0.02 * (0.9 * by_alpha + later[0]), beta - 0.02 * (0.9 * by_beta + later[1] + 0.1 * beta)
    assert found == pytest.approx(expected, abs=1e-6)


def test_batches_of_an_epoch():
    logits, labels = torch.arange(10.0).unsqueeze(1), torch.arange(10)
    epoch = shuffled(logits, labels, 4, torch.Generator().manual_seed(1))
    first, second = (list(epoch()) for _ in range(2))
    assert [y.numel() for _, y in first] == [4, 4, 2]
    for batches in (first, second):
        assert sorted(torch.cat([y for _, y in batches]).tolist()) == list(range(10))
        assert all(torch.equal(z[:, 0].long(), y) for z, y in batches)
    assert not torch.equal(first[0][1], second[0][1])


def test_divergence_is_an_error():
    logits, labels = two_groups()
    with pytest.raises(
        FloatingPointError, match=r"^fit_bias: expected a finite scale and offset, got .* \(lr 1e\+38\)$"
    ):
        fit_bias(lambda: [(logits, labels)], 1, epochs=30, lr=1e38)


# classes, old ones, validation samples per class, scale and offset of the new logits; accuracy in percent of all, old
# and new classes without a correction, with cross-entropy, and with the softmax taken twice; the entry that is zero
TABLE = [
    ((40, 20, 10, 1.3, 2), (48.1, 12.2, 84.0), (73.5, 66.8, 80.2), (42.0, 0.0, 84.0), 1),
    ((40, 20, 10, 1.5, 4), (42.1, 0.1, 84.0), (73.6, 66.8, 80.5), (42.0, 0.0, 84.0), 1),
    ((100, 80, 2, 1.3, 2), (26.2, 11.6, 84.4), (62.5, 58.5, 78.7), (40.0, 29.0, 84.1), None),
    ((100, 80, 2, 1.5, 4), (17.0, 0.1, 84.4), (63.0, 59.0, 78.9), (16.9, 0.0, 84.4), 1),
    ((20, 10, 20, 1.3, 2), (56.2, 22.0, 90.5), (82.1, 77.3, 86.9), (79.4, 70.2, 88.5), None),
    ((20, 10, 20, 1.5, 4), (45.5, 0.6, 90.5), (82.2, 77.3, 87.2), (45.2, 0.0, 90.5), 1),
    ((100, 90, 2, 1.5, 4), (9.5, 0.5, 90.4), (65.7, 63.9, 81.3), (62.4, 69.4, 0.0), 2),
]  # fmt: skip


def biased(classes: int, old: int, per_class: int, scale: float, offset: float, generator) -> tuple[Tensor, Tensor]:
    """Gaussian logits, the true class raised by 3, those of new classes scaled and shifted."""
    labels = torch.arange(classes).repeat_interleave(per_class)
    logits = torch.randn(labels.numel(), classes, generator=generator)
    logits[torch.arange(labels.numel()), labels] += 3.0
    logits[:, old:] = logits[:, old:] * scale + offset
    return logits, labels


def accuracies(logits: Tensor, labels: Tensor, old: int, alpha: float, beta: float) -> Tensor:
    hits = torch.cat([logits[:, :old], alpha * logits[:, old:] + beta], 1).argmax(1) == labels
    return 100.0 * torch.stack([part.double().mean() for part in (hits, hits[labels < old], hits[labels >= old])])


@pytest.mark.parametrize("setting, none, once, twice, zero", TABLE, ids=[str(row[0]) for row in TABLE])
def test_double_softmax_learns_nothing_or_blanks_a_task(setting, none, once, twice, zero):
    """SGD 0.1 over 170 epochs with the milestones and weight decay of stage 1; mean of five draws, within 3 points."""
    classes, old, _, scale, offset = setting
    found = []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        logits, labels = biased(*setting, generator)
        test = biased(classes, old, 100, scale, offset, generator)
        fits = [(1.0, 0.0)]
        for double_softmax in (False, True):
            epoch = shuffled(logits, labels, 128, generator)
            options = dict(epochs=170, lr=0.1, weight_decay=2e-4, milestones=(60, 100, 140), offset_penalty=0.0)
            fits.append(fit_bias(epoch, old, double_softmax=double_softmax, **options))
        found.append(torch.stack([accuracies(*test, old, *fit) for fit in fits]))
    mean = torch.stack(found).mean(0)
    torch.testing.assert_close(mean, torch.tensor([none, once, twice]).double(), atol=3.0, rtol=0)
    if zero is not None:
        assert mean[2, zero].item() < 0.05 and twice[zero] == 0.0
