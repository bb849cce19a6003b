"""`vecq_activation` [VECQ V11, V12] and `vecq_losses` [V2] against their formulas (T12)."""

import math

import pytest
import quintil.functional as F
import reference_vecq as reference
import torch
from conftest import assert_same


@pytest.mark.parametrize("drive", ["projection", "norm"])
@pytest.mark.parametrize("bits", [1, 4, 8, 12])
def test_training_uses_the_batch_and_evaluation_the_averages(bits, drive):
    x, g = torch.randn(30, 20).requires_grad_(), torch.randn(30, 20)
    averages = torch.tensor([0.5, 0.7, 0.81])
    y, moved = F.vecq_activation(x, bits, averages, training=True, drive=drive)
    step = reference.step(x.detach(), bits)
    want, _, alpha, _ = reference.quantize(x.detach(), bits, step, drive)
    assert_same(y, want)
    assert_same(torch.autograd.grad(y, x, g)[0], g)
    torch.testing.assert_close(moved, 0.9 * averages + 0.1 * torch.stack([step, alpha, torch.tensor(0.0)]))
    y, kept = F.vecq_activation(x, bits, moved, training=False, drive=drive)
    assert_same(kept, moved)
    assert_same(y, moved[1] * reference.levels(x.detach(), moved[0], bits).float())
    assert_same(torch.autograd.grad(y, x, g)[0], g)


def test_averages_of_a_constant_batch_t12():
    """After t steps A = a + m^t (1 - a)."""
    x = torch.randn(200)
    step = float(F.vecq_step(x, 4))
    for momentum in (0.9, 0.5, 0.0):
        averages = torch.ones(3)
        for t in range(1, 6):
            _, averages = F.vecq_activation(x, 4, averages, training=True, momentum=momentum)
            assert float(averages[0]) == pytest.approx(step + momentum**t * (1 - step), rel=1e-5)
            assert float(averages[2]) == pytest.approx(momentum**t, rel=1e-5)


def test_an_empty_batch_moves_nothing():
    averages = torch.tensor([0.5, 0.7, 0.81])
    y, kept = F.vecq_activation(torch.empty(0, 3), 4, averages, training=True)
    assert y.shape == (0, 3)
    assert_same(kept, averages)


def test_losses_equal_reference():
    x, y = torch.randn(4, 50), torch.randn(4, 50) + 1
    orientation, modulus, total = F.vecq_losses(x, y)
    assert orientation.dtype == torch.float64
    assert [float(orientation), float(modulus)] == pytest.approx(reference.losses(x, y), rel=1e-12)
    rows = F.vecq_losses(x, y, per_channel=True)
    for i in range(4):
        assert [float(rows[0][i]), float(rows[1][i])] == pytest.approx(reference.losses(x[i], y[i]), rel=1e-12)
    assert_same(rows[2], rows[0] + rows[1])
    assert float(F.vecq_losses(x.double(), y.half().double())[1]) == float(F.vecq_losses(x, y.half())[1])


def test_losses_of_zeros_and_nothing():
    zero, one = torch.zeros(3), torch.ones(3)
    assert [float(t) for t in F.vecq_losses(zero, zero)] == [0, 0, 0]
    assert [float(t) for t in F.vecq_losses(zero, one)] == [0, 3, 3]
    assert [float(t) for t in F.vecq_losses(one, zero)] == [1, 3, 4]
    assert [float(t) for t in F.vecq_losses(torch.empty(0), torch.empty(0))] == [0, 0, 0]
    assert math.isnan(F.vecq_losses(torch.tensor([math.nan]), torch.ones(1))[0])
