"""`minifloat_quantize`: all numbers of each format, against the reference, odd input [HDQT H18-H22, T13]."""

import math

import pytest
import quintil.functional as F
import reference_baselines as reference
import torch
from conftest import SCALAR, assert_same
from reference_baselines import FP130, FP134, MASTER

FORMATS = [(FP134, 0), (FP134, -7), (FP130, 0), (FP130, 5), (MASTER, 32), ((3, 3, 2, 2, 1, 1, 0), 2)]
SHAPES = [(), (1,), (7,), (3, 5), (4, 129), (2, 3, 4, 5), (0, 4), (4, 0)]


def scale(value):
    return torch.tensor(value)


def numbers(shape, exponent):
    return torch.randn(shape) * torch.exp(2 * torch.randn(shape)) * 2.0**exponent


@pytest.mark.parametrize("significands, exponent", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_reference(shape, significands, exponent):
    x, previous = numbers(shape, exponent), numbers(shape, exponent)
    options = ({}, {"seed": 2**61 + 1}, {"previous": previous})
    for keywords in options:
        got = F.minifloat_quantize(x, significands, scale(exponent), **keywords)
        if x.numel() == 0:
            assert got.shape == x.shape
        else:
            assert_same(got, reference.minifloat(x, significands, exponent, **keywords), str(keywords))


def test_24_bits_round_nothing():
    x = numbers((4, 99), 0).clamp(-3.9, 3.9)
    assert_same(F.minifloat_quantize(x, (24,) * 40, scale(1)), x)


@pytest.mark.parametrize(
    "significands, count, most, least", [(FP134, 255, 1.9375, 2.0**-10), (FP130, 15, 1.0, 2.0**-6)]
)
def test_every_number_of_a_format(significands, count, most, least):
    """T13: rounding a fine grid gives all numbers of the format and no others, each of which stays."""
    x = torch.arange(-(2**16), 2**16 + 1) / 2.0**15
    values = F.minifloat_quantize(x, significands, scale(0)).unique()
    assert len(values) == count
    assert float(values.max()) == most and float(values[values > 0].min()) == least
    assert_same(
        values, torch.cat([-reference.table(significands, 0)[1:].flip(0), reference.table(significands, 0)]).float()
    )
    for keywords in ({}, {"seed": 5}, {"previous": values + 1}, {"previous": values - 1}):
        assert_same(F.minifloat_quantize(values, significands, scale(0), **keywords), values)


def test_ties_at_the_smallest_numbers():
    """T13: 2^-11 -> 0, 1.5 * 2^-11 -> 2^-10."""
    x = torch.tensor([2.0**-11, 1.5 * 2.0**-11, -(2.0**-11), 3 * 2.0**-11, 1.03125, 1.09375, 1.97, 1e30])
    want = [0.0, 2.0**-10, 0.0, 2.0**-9, 1.0, 1.125, 1.9375, 1.9375]
    assert F.minifloat_quantize(x, FP134, scale(0)).tolist() == want


def test_the_master_format():
    """H22: 1 + 6 + 9 bits: at most 2^33 - 2^23, steps of at least 2^-39."""
    x = torch.tensor([1e30, 2.0**-39, 2.0**-41, 1.4 * 2.0**-39, 1 + 2.0**-9, 1 + 2.0**-11])
    want = [2.0**33 - 2.0**23, 2.0**-39, 0.0, 2.0**-39, 1 + 2.0**-9, 1.0]
    assert F.minifloat_quantize(x, MASTER, scale(32)).tolist() == want


def test_scales_shift_the_format():
    x = numbers((6, 50), 0)
    for exponent in (-116, -30, 3, 126):
        shifted = torch.ldexp(x.double(), scale(exponent)).float()
        keep = shifted.abs() < 3e38
        want = torch.ldexp(F.minifloat_quantize(x, FP134, scale(0)).double(), scale(exponent)).float()
        normal = keep & (x.abs() > 2.0**-9)
        assert_same(F.minifloat_quantize(shifted, FP134, scale(exponent))[normal], want[normal])


@pytest.mark.parametrize("keywords", [{}, {"seed": 5}, {"previous": True}])
def test_a_scale_per_row(keywords):
    for x in (numbers((4, 33), 0), numbers((4, 3, 5), 0), numbers((4,), 0), numbers((4, 0), 0)):
        exponents = torch.tensor([0, -3, 2, 1], dtype=torch.int32)
        if "previous" in keywords:
            keywords = {"previous": x.flip(0)}
        whole = [F.minifloat_quantize(x, FP134, e, **keywords) for e in exponents]
        got = F.minifloat_quantize(x, FP134, exponents, **keywords)
        assert_same(got, torch.stack([w[i] for i, w in enumerate(whole)]))


@pytest.mark.parametrize("fraction", [2.0**-16, 0.01, 0.25, 0.5, 0.9])
def test_draws_are_unbiased(fraction):
    n = 20_000 if SCALAR else 200_000
    for sign in (1.0, -1.0):
        x = torch.full((100, n // 100), sign * (1 + fraction / 16))
        y = F.minifloat_quantize(x, FP134, scale(0), seed=13).abs()
        assert set(y.unique().tolist()) <= {1.0, 1.0625}
        ups = int((y > 1).sum())
        p = (float(x[0, 0].abs()) - 1) * 16
        assert abs(ups - p * n) <= 5 * math.sqrt(n * p * (1 - p)) + n * 2.0**-17


def test_hysteresis_keeps_the_side_of_the_previous_value():
    """H22: ceil if previous > new else floor: a weight that wavers by less than a step does not change."""
    previous = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0])
    x = torch.tensor([1.03, 0.99, -0.98, -1.03, 1.1])
    assert F.minifloat_quantize(x, FP134, scale(0), previous=previous).tolist() == [1.0, 1.0, -1.0, -1.0, 1.0625]


def test_odd_numbers():
    x = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, -1e-40])
    y = F.minifloat_quantize(x, FP134, scale(0))
    assert math.isnan(y[0]) and y[1:].tolist() == [1.9375, -1.9375, 0.0, -0.0, 0.0, -0.0]
    assert torch.signbit(y[4]) and not torch.signbit(y[3])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_cast(dtype):
    x = torch.randn(5, 9).to(dtype)
    want = F.minifloat_quantize(x.float(), FP134, scale(0)).to(dtype)
    assert_same(F.minifloat_quantize(x, FP134, scale(0)), want)
    assert_same(F.minifloat_quantize(x, list(FP134), torch.tensor(0, dtype=torch.int32)), want)


def test_order_in_memory_does_not_matter():
    x = numbers((6, 40), 0)
    y = F.minifloat_quantize(x.t().contiguous().t(), FP134, scale(0), seed=3)
    assert_same(y, F.minifloat_quantize(x, FP134, scale(0), seed=3))


def test_gradient_is_the_identity_once():
    x, g = numbers((4, 9), 3).requires_grad_(), torch.randn(4, 9)
    for keywords in ({}, {"seed": 1}, {"previous": torch.randn(4, 9)}):
        y = F.minifloat_quantize(x, FP134, scale(0), **keywords)
        assert_same(torch.autograd.grad(y, x, g)[0], g)
    with pytest.raises(NotImplementedError, match=r"minifloat_quantize: expected a first derivative"):
        torch.autograd.grad(F.minifloat_quantize(x, FP134, scale(0)).square().sum(), x, create_graph=True)


@pytest.mark.parametrize("exponent", [127, -123, [0, 0, -123], [127, 0, 0]])
def test_scales_whose_steps_are_no_normal_numbers(exponent):
    got = exponent if isinstance(exponent, int) else next(e for e in exponent if e)
    with pytest.raises(ValueError, match=rf"minifloat_quantize: expected exponent in -122\.\.126, got {got}"):
        F.minifloat_quantize(torch.randn(3, 4), (5, 4, 3), torch.tensor(exponent))
