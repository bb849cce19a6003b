"""`quantize` and `dequantize` against the reference: ranges, ties, given scales, draws, odd inputs."""

import math

import pytest
import quintil.functional as F
import reference
import torch
from conftest import SCALAR, assert_same
from hypothesis import given
from hypothesis import strategies as st

op = torch.ops.quintil.quantize
SHAPES = [(1,), (7,), (1, 1), (3, 129), (5, 300), (2, 3, 17), (2, 3, 4, 5), (64, 64)]
SEEDS = [0, 1, 12345, 2**32 - 1, 2**32, 2**62 - 1]


def check(x, bits, seed=None, **options):
    codes, scale = op(x, bits, seed=seed, **options)
    want_codes, want_scale = reference.quantize(x, bits, seed=seed, **options)
    assert codes.dtype == (torch.int8 if options.get("signed", True) else torch.uint8)
    assert_same(codes, want_codes, "codes")
    assert_same(scale, want_scale.to(scale.dtype), "scale")


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("signed, narrow", [(True, True), (True, False), (False, True)])
def test_nearest_equals_reference(bits, signed, narrow):
    for shape in SHAPES:
        for fraction in (1.0, 0.975):
            check(torch.randn(shape) * 3, bits, signed=signed, narrow=narrow, range_fraction=fraction)


@pytest.mark.parametrize(
    "values, codes, step",
    [
        ([0, 0.5, 1, 2], [0, 4, 8, 15], 0.13),
        ([-2, -0.3, 0.1, 1], [-7, -1, 0, 4], 0.278571),
        ([-1, 1, 0.5, -0.25, 0.07], [-7, 7, 4, -2, 1], 0.975 / 7),
        ([0, 0, 0], [0, 0, 0], 0),
    ],
)
def test_published_examples_t1(values, codes, step):
    got, scale = F.quantize(torch.tensor(values, dtype=torch.float32), 4, signed=None, range_fraction=0.975)
    assert got.tolist() == codes
    assert float(scale) == pytest.approx(step, rel=1e-5)


def test_data_decide_the_sign():
    for values, signed in (
        ([0.0, 1.0], False),
        ([-0.0, 1.0], False),
        ([-1e-30, 1.0], True),
        ([0.0, 0.0], False),
    ):
        codes, _ = F.quantize(torch.tensor(values), 4, signed=None)
        assert codes.dtype == (torch.int8 if signed else torch.uint8), values


def test_ties_round_to_even_by_true_division():
    halves = torch.arange(-13, 14).float() / 2
    check(halves, 4, scale=torch.tensor(1.0))
    codes, _ = op(halves, 4, scale=torch.tensor(1.0))
    assert codes.tolist() == torch.round(halves).tolist()
    step = torch.tensor(0.1)  # k * 0.1 / 0.1 and k * 0.1 * (1 / 0.1) fall on different sides of some ties
    near_ties = torch.arange(-650, 650).float() * 0.01
    check(near_ties, 4, scale=step)
    check(torch.rand(20000 if SCALAR else 200000) * 14 - 7, 4, scale=torch.tensor(0.37))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("seed", SEEDS)
def test_stochastic_equals_reference(bits, seed):
    for shape in SHAPES + [(2, 1030)]:
        check(torch.randn(shape), bits, seed=seed)
    check(torch.rand(9, 70), bits, signed=False, seed=seed, range_fraction=0.975)


def test_given_scale_per_tensor_and_per_row():
    x = torch.randn(6, 3, 11) * 4
    per_row = torch.rand(6) + 0.1
    for scale in (torch.tensor(0.5), per_row):
        for signed, narrow in ((True, True), (True, False), (False, True)):
            check(x, 4, signed=signed, narrow=narrow, scale=scale)
        check(x, 4, scale=scale, seed=9)
        codes, same = op(x, 4, scale=scale)
        assert_same(same, scale)
        assert_same(torch.ops.quintil.dequantize(codes, same), reference.dequantize(codes, scale), "dequantize")


def test_no_code_beyond_range_for_a_million_maxima_t5():
    """m / (m / 7) is above 7 for about 8 % of all m: the codes must not be."""
    n = 100_000 if SCALAR else 1_000_000
    m = torch.rand(n, 1) * 10 ** (torch.rand(n, 1) * 12 - 6)
    scale = (m / 7).flatten()
    above = (m.flatten() / (scale + 1e-32) > 7).float().mean()
    assert 0.04 < above < 0.13
    for seed in (None, 3):
        for sign in (1, -1):
            codes, _ = op(sign * m, 4, scale=scale, seed=seed)
            assert bool((codes == 7 * sign).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_cast(dtype):
    x = torch.randn(33, 7).to(dtype)
    codes, scale = op(x, 4)
    want_codes, want_scale = reference.quantize(x.float(), 4)
    assert_same(codes, want_codes)
    assert_same(scale, want_scale.to(scale.dtype))


def test_strides_do_not_matter():
    base = torch.randn(6, 8, 5, 4)
    for view in (
        base.transpose(0, 3),
        base[::2, 1::3],
        base.to(memory_format=torch.channels_last),
        base[:, :, 2],
        torch.randn(1, 1).expand(4, 9),
    ):
        for seed in (None, 5):
            got, want = op(view, 4, seed=seed), op(view.clone(memory_format=torch.contiguous_format), 4, seed=seed)
            assert_same(got[0], want[0])
            assert_same(got[1], want[1])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_gives_codes_0_and_scale_nan(bad):
    for place in (0, 50, 98):
        x = torch.randn(9, 11)
        x.view(-1)[place] = bad
        codes, scale = op(x, 4)
        assert not codes.any() and bool(scale.isnan())
        assert bool(torch.ops.quintil.dequantize(codes, scale).isnan().all())


def test_non_finite_at_a_given_scale():
    codes, scale = op(torch.tensor([math.nan, math.inf, -math.inf, 1.0]), 4, scale=torch.tensor(0.5))
    assert codes.tolist() == [0, 7, -7, 2] and float(scale) == 0.5


def test_zero_tiny_and_empty():
    codes, scale = op(torch.zeros(4, 5), 4)
    assert not codes.any() and float(scale) == 0
    for tiny in (1e-45, 1e-40, 1.2e-38):  # denormal steps
        check(torch.tensor([tiny, -tiny, 0.0]), 4)
        check(torch.tensor([tiny, -tiny, 0.0]), 4, seed=1)
    for shape in ((0,), (0, 5), (5, 0), (2, 0, 3)):
        codes, scale = op(torch.empty(shape), 4)
        assert codes.shape == shape and scale.shape == () and float(scale) == 0


def test_huge_values_stay_finite():
    check(torch.tensor([3.4e38, -1e38, 5e37]), 4)
    check(torch.tensor([3.4e38, 0.0, 1e30]), 8, signed=False)


def test_not_differentiable():
    codes, scale = op(torch.randn(3, 3, requires_grad=True), 4)
    assert not codes.requires_grad and not scale.requires_grad


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40), st.integers(2, 8), st.integers(-20, 20))
def test_properties(values, bits, power):
    """Half a step of error inside the range; a power of two in x moves only the scale (T7)."""
    x = torch.tensor(values, dtype=torch.float32)
    codes, scale = op(x, bits)
    limit = 2 ** (bits - 1) - 1
    assert int(codes.abs().max()) <= limit
    if 1e-20 < float(x.abs().max()):
        error = (reference.dequantize(codes, scale).double() - x.double()).abs()
        assert float(error.max()) <= float(scale) * 0.50002
        moved, moved_scale = op(x * 2.0**power, bits)
        if float(x.abs().max()) > 1e-3:
            assert_same(moved_scale, scale * 2.0**power)
            if float(x[x != 0].abs().min()) > 1e-20:
                assert_same(moved, codes)
