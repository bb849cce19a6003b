"""`double_round_quantize` against the reference for every option, and the oracles T1-T5 of Double Rounding."""

import itertools

import pytest
import quintil.functional as F
import reference_double_rounding as reference
import torch
from conftest import assert_same
from reference_double_rounding import Step
from test_double_round import WIDTHS

SHAPES = [(1,), (9,), (4, 33), (5, 3, 3, 3), (2, 4111)]
ROUNDINGS = ["half_even", "half_up", "floor"]


def leaf(t):
    return t.detach().clone().requires_grad_()


def gradients(x, scale, from_bits, to_bits, grad, **options):
    inputs = [leaf(x), leaf(scale)]
    y = F.double_round_quantize(*inputs, from_bits, to_bits, **options)
    return [y.detach(), *torch.autograd.grad(y, inputs, grad)]


def check(x, scale, from_bits, to_bits, g, **options):
    y, dx, dscale = gradients(x, scale, from_bits, to_bits, g, **options)
    step = Step(to_bits, from_bits, **options)
    assert_same(y, step.forward(x, scale), "y")
    want = step.gradients(x, g, scale)
    assert_same(dx, want[0], "dx")
    assert_same(dscale, want[1], "dscale")


@pytest.mark.parametrize("h", range(1, 9))
def test_equals_reference(h):
    for bits, shape in itertools.product(range(1, h + 1), SHAPES):
        x, g = torch.randn(shape), torch.randn(shape)
        for scale in (torch.tensor(2.0 / 2**h), torch.rand(shape[0]) * 2 / 2**h + 0.01):
            check(x, scale, h, bits, g)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_every_option_equals_reference(rounding):
    """Steps that are powers of two, so that ties are met."""
    x, g = torch.randint(-300, 300, (6, 50)) / 128, torch.randn(6, 50)
    for source, mask, residual, total, chain in itertools.product(
        ("stored", "float"), ("scaled", "rounded"), ("double", "single"), ("channel", "all"), (False, True)
    ):
        options = dict(
            weight_source=source, mask_on=mask, scale_residual=residual, scale_grad_sum=total, chain_pow2=chain
        )
        for bits in (8, 5, 2, 1):
            for scale in (torch.tensor(1 / 64), 2.0 ** torch.arange(-8.0, -2.0)):
                check(x, scale, 8, bits, g, rounding=rounding, **options)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_packed_integers_reproduce_training_t1(rounding):
    """Codes stored at h bits and rounded again are the integers of the training forward, bit for bit."""
    x = torch.cat([torch.randn(2000) / 3, torch.arange(-520, 520) / 512])
    for h, bits in WIDTHS:
        scale = torch.tensor(1.0 / 2 ** (h - 1))
        stored = reference.stored_codes(x, scale, h).to(torch.int8)
        low = F.double_round(stored, h, bits, rounding=rounding)
        y = F.double_round_quantize(x, scale, h, bits, rounding=rounding)
        assert_same(y, low * (scale * 2 ** (h - bits)), f"{h} to {bits}")
        if h >= 2:
            assert_same(F.quantize(x, h, signed=True, narrow=False, scale=scale)[0], stored)


@pytest.fixture(scope="module")
def gaussian():
    """The quantiles of a normal distribution, which have no sampling error, and the step of three sigma."""
    n = 200_000
    return torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n).float(), torch.tensor(3 / 128)


def error(w, scale, bits, **options) -> float:
    return float((F.double_round_quantize(w, scale, 8, bits, **options) - w).square().mean())


def test_single_against_double_rounding_t3(gaussian):
    """They differ on 24.9 / 12.5 / 6.2 / 3.1 / 1.5 / .75 %; the price is s_h^2 / 4 at every width."""
    w, scale = gaussian
    for bits, share in zip(range(7, 1, -1), (0.249, 0.125, 0.062, 0.031, 0.015, 0.0075)):
        twice, once = (F.double_round_quantize(w, scale, 8, bits, weight_source=s) for s in ("stored", "float"))
        assert float((twice != once).float().mean()) == pytest.approx(share, rel=0.03), bits
        penalty = error(w, scale, bits) - error(w, scale, bits, weight_source="float")
        assert penalty == pytest.approx(1.373e-4, rel=0.06), bits


def test_errors_of_all_widths_t4(gaussian):
    w, scale = gaussian
    twice = [0.00048, 0.00077, 0.00137, 0.00368, 0.01280, 0.0493, 0.2006]
    floor = [0.00048, 0.00077, 0.00246, 0.01024, 0.0434, 0.180, 0.735]
    for bits, want_twice, want_floor in zip(range(8, 1, -1), twice, floor):
        assert error(w, scale, bits) == pytest.approx(want_twice, rel=0.03), bits
        assert error(w, scale, bits, rounding="floor") == pytest.approx(want_floor, rel=0.03), bits


def through_identity(t, rounded):
    """rounded, with the derivative of t."""
    return t + (rounded - t).detach()


@pytest.mark.parametrize("bits", range(1, 9))
def test_exact_chain_rule_t5(bits):
    """autograd through D1 (without its clip), D2 and D3 with identity roundings, in float64."""
    h, n = 8, 4000
    low, high = reference.code_range(bits)
    w, g, step = leaf(torch.randn(n).double()), torch.randn(n).double(), leaf(torch.tensor(1 / 64).double())
    z = w / step
    stored = through_identity(z, torch.round(z))
    v = stored / 2 ** (h - bits)
    y = through_identity(v, torch.round(v)).clamp(low, high) * (step * 2 ** (h - bits))
    dw, ds = torch.autograd.grad(y, (w, step), g)

    options = dict(chain_pow2=True, mask_on="rounded")
    _, dx, dscale = gradients(w.float(), step.float(), h, bits, g.float(), **options)
    assert_same(dx, dw.float())
    assert float(dscale) * (n * high) ** 0.5 == pytest.approx(float(ds), rel=1e-4, abs=1e-3 * 2 ** (h - bits))


def test_at_equal_widths_the_chain_factor_has_no_effect_t5():
    x, g, scale = torch.randn(3, 40), torch.randn(3, 40), torch.rand(3) / 50 + 0.01
    for a, b in zip(gradients(x, scale, 6, 6, g), gradients(x, scale, 6, 6, g, chain_pow2=True)):
        assert_same(a, b)


def test_equal_widths_are_a_signed_lsq_quantiser():
    x, g, scale = leaf(torch.randn(3, 40)), torch.randn(3, 40), leaf(torch.rand(3) / 50 + 0.01)
    y = F.lsq_quantize(x, scale, 6, signed=True)
    for a, b in zip(gradients(x, scale, 6, 6, g), [y, *torch.autograd.grad(y, (x, scale), g)]):
        assert_same(a, b)


def test_authors_gradient_shares_one_sum():
    """scale_residual='single', scale_grad_sum='all': every channel receives the same gradient."""
    x, g, scale = torch.randn(5, 30), torch.randn(5, 30), torch.full((5,), 0.02)
    _, _, shared = gradients(x, scale, 8, 4, g, scale_residual="single", scale_grad_sum="all")
    _, _, own = gradients(x, scale, 8, 4, g, scale_residual="single")
    assert len(shared.unique()) == 1 and len(own.unique()) == 5
    assert float(shared[0]) == pytest.approx(float(own.sum()), rel=1e-5)


def test_layouts_and_float_types():
    x = torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)
    scale = torch.rand(4) / 50
    y = F.double_round_quantize(x, scale, 8, 4)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert_same(y, F.double_round_quantize(x.contiguous(), scale, 8, 4))
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        got = F.double_round_quantize(x.to(dtype), scale, 8, 4)
        assert got.dtype == dtype
        assert_same(got, F.double_round_quantize(x.to(dtype).float(), scale, 8, 4).to(dtype))
    assert F.double_round_quantize(torch.empty(0, 5), torch.empty(0), 8, 4).shape == (0, 5)
    assert torch.isnan(F.double_round_quantize(torch.tensor([float("nan")]), torch.tensor(1.0), 8, 4)).all()
