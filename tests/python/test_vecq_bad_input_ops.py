"""Ops of VecQ on numbers without spread, without elements or not finite, and on bits out of range."""

from __future__ import annotations

import pytest
import quintil
import torch
from quintil import VecQ
from quintil import functional as Q

NUMBERS = {
    "equal": torch.full((3, 4), 0.7),
    "equal, negative": torch.full((3, 4), -0.7),
    "zeros": torch.zeros(3, 4),
    "negative zeros": -torch.zeros(3, 4),
    "one": torch.tensor([0.3]),
    "one without dimensions": torch.tensor(-0.3),
}


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_without_spread_stay(kind, bits):
    x = NUMBERS[kind]
    for lambda_mode in ("table", "search"):
        for drive in ("projection", "norm"):
            y, codes, alpha = Q.vecq_quantize(x, bits, step=Q.vecq_step(x, bits, lambda_mode=lambda_mode), drive=drive)
            torch.testing.assert_close(y, x, rtol=2e-6 if bits > 1 else 1e-5, atol=0)
            assert torch.isfinite(alpha) and bool((codes == codes.flatten()[0]).all())
    y, averages = Q.vecq_activation(x, bits, torch.ones(3), training=True)
    torch.testing.assert_close(y, x, rtol=1e-5, atol=0)
    assert bool(averages.isfinite().all())
    assert [float(loss) for loss in Q.vecq_losses(x, x)] == pytest.approx([0, 0, 0], abs=1e-12)


def test_exact_zeros_lie_on_the_level_above():
    for bits in (1, 2, 8, 16):
        x = torch.tensor([0.0, -0.0, 1.0, -1.0])
        y, codes, alpha = Q.vecq_quantize(x, bits)
        assert codes[:2].tolist() == [0, 0] and bool((y[:2] == alpha / 2).all())
        assert Q.vecq_codes(x, bits, torch.tensor(1.0))[:2].tolist() == [0, 0]


@pytest.mark.parametrize("sizes", [(0,), (3, 0), (0, 3)], ids=str)
def test_nothing_gives_nothing(sizes):
    x = torch.zeros(sizes, requires_grad=True)
    for options in (dict(), dict(per_channel=True), dict(lambda_mode="search")):
        step = Q.vecq_step(x, 4, **options)
        y, codes, alpha = Q.vecq_quantize(x, 4, step=step)
        assert y.shape == codes.shape == x.shape and codes.dtype == torch.int8 and alpha.shape == step.shape
        assert bool(step.isfinite().all()) and bool((alpha == 0).all())
        y.sum().backward()
        assert x.grad.shape == x.shape
    y, averages = Q.vecq_activation(x, 4, torch.tensor([2.0, 3.0, 0.5]), training=True)
    assert y.shape == x.shape and averages.tolist() == [2.0, 3.0, 0.5]
    assert [float(loss) for loss in Q.vecq_losses(x, x)] == [0, 0, 0]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_makes_its_group_nan(value):
    x = torch.randn(3, 4)
    x[1, 2] = value
    for options, spoilt in ((dict(), [0, 1, 2]), (dict(per_channel=True), [1])):
        for lambda_mode in ("table", "search"):
            y, codes, alpha = Q.vecq_quantize(x, 4, step=Q.vecq_step(x, 4, lambda_mode=lambda_mode, **options))
            assert y.isnan().any(1).nonzero().flatten().tolist() == spoilt and bool(y[spoilt].isnan().all())
            assert not codes[spoilt].any() and bool(alpha.isnan().any())
    assert Q.vecq_activation(x, 4, torch.ones(3), training=True)[0].isnan().all()
    assert all(loss.isnan() for loss in Q.vecq_losses(x, x))
    quintil.set_checked(True)
    try:
        for call in (Q.vecq_step, Q.vecq_quantize, lambda x, bits: Q.vecq_codes(x, bits, torch.tensor(1.0))):
            with pytest.raises(ValueError, match=r"expected x to be finite, got"):
                call(x, 4)
    finally:
        quintil.set_checked(False)


@pytest.mark.parametrize("bits", [0, 17, -1])
def test_bits_out_of_range(bits):
    x, ones = torch.randn(4), torch.ones(3)
    calls = [
        lambda: Q.vecq_step(x, bits),
        lambda: Q.vecq_quantize(x, bits),
        lambda: Q.vecq_codes(x, bits, ones[0]),
        lambda: Q.vecq_activation(x, bits, ones, training=True),
        lambda: Q.vecq_activation(x, bits, ones, training=False),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"^vecq_\w+: expected bits in 1\.\.16, got {bits}$"):
            call()
    for field, scheme in (("weight_bits", lambda: VecQ(bits)), ("activation_bits", lambda: VecQ(4, bits))):
        with pytest.raises(ValueError, match=rf"^VecQ: expected {field} in 1\.\.16, got {bits}$"):
            scheme()
