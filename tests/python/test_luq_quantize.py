"""`luq_quantize`, `luq_codes` and `sawb_clip`: against the reference, their chances, odd input [HDQT H13-H16, T12]."""

import math

import pytest
import quintil.functional as F
import reference_baselines as reference
import torch
from conftest import SCALAR, assert_same

SHAPES = [(), (1,), (7,), (3, 5), (4, 129), (2, 3, 4, 5), (300,), (0, 4), (4, 0)]


def gradients(*shape):
    """Of many sizes, exact zeros and exact powers of the largest among them."""
    x = torch.randn(shape) * torch.exp(2 * torch.randn(shape))
    if x.numel() > 3:
        x.view(-1)[:3] = torch.tensor([0.0, -0.0, float(x.abs().max()) / 4])
    return x


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_reference(shape):
    for bits in (2, 3, 4, 5):
        for samples in (1, 3):
            for levels in ("corrected", "original"):
                x = gradients(*shape)
                got = F.luq_quantize(x, seed=2**61 + bits, bits=bits, samples=samples, levels=levels)
                if x.numel() == 0:
                    assert got.shape == x.shape
                    continue
                want = reference.luq(x, 2**61 + bits, bits, samples, levels)
                assert_same(got, want, f"{bits} bits, {samples} samples, {levels}")


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_codes_are_single_draws(bits):
    x = gradients(33, 70)
    mean = F.luq_quantize(x, seed=9, bits=bits, samples=4)
    draws = [F.luq_codes(x, seed=9, bits=bits, sample=j) for j in range(4)]
    assert all(codes.dtype == torch.int8 for codes, _ in draws)
    total = sum(codes.float() for codes, _ in draws)
    assert_same(mean, draws[0][1] * (total / 4))
    assert not torch.equal(draws[0][0], draws[1][0])
    assert_same(F.luq_quantize(x, seed=9, bits=bits), draws[0][1] * draws[0][0].float())


def test_the_corrected_grid():
    """T12: alpha {0, 1, 2, 4, ..., 64}, all of them, and the largest number is the largest level."""
    x = torch.randn(4000) * torch.exp(torch.randn(4000))
    y = F.luq_quantize(x, seed=1)
    alpha = x.abs().max() / 64
    assert set((y.abs() / alpha).tolist()) == {0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0}
    assert float(y.abs().max()) == float(x.abs().max())
    assert bool((y.sign() * x.sign() >= 0).all())


def test_the_original_grid_comes_from_the_signed_maximum():
    x = torch.tensor([1.0, 0.25, -0.5, -6.0, -1.0])
    y = F.luq_quantize(x, seed=3, levels="original")
    assert y[:3].tolist() == [1.0, 0.25, -0.5] and y[4] == -1.0
    assert float(y[3]) in (-4.0, -8.0)  # beyond 2^7 alpha = 1
    below = F.luq_quantize(-x.abs(), seed=3, levels="original")  # no positive number: from max |x|
    assert torch.isfinite(below).all() and float(below.abs().max()) <= 8.0


@pytest.mark.parametrize("value", [0.004, 0.0119, 0.3, 0.77, 1.0, 1.4])
def test_draws_are_unbiased(value):
    """A binomial test for each of two neighbouring levels, 5 standard deviations [H15, H16]."""
    n = 20_000 if SCALAR else 200_000
    for sign in (1.0, -1.0):
        x = torch.full((n,), sign * value)
        x[-1] = 2.0  # alpha = 1/32
        y = F.luq_quantize(x.reshape(100, -1), seed=77).flatten()[:-1].abs() * 32
        v = value * 32
        lower = 0.0 if v < 1 else 2.0 ** math.floor(math.log2(v))
        upper = 1.0 if v < 1 else 2 * lower
        assert set(y.tolist()) <= {lower, upper}
        p = (float(torch.tensor(value)) * 32 - lower) / (upper - lower)
        ups = int((y == upper).sum())
        assert abs(ups - p * len(y)) <= 5 * math.sqrt(len(y) * p * (1 - p)) + len(y) * 2.0**-17


def test_error_of_one_draw_and_of_the_mean():
    """T12: .285 for one draw, .020 for the mean of 200, of Gaussian gradients; the range fixes the exact values."""
    g = torch.randn(20_000)
    size = g.norm()
    one = (F.luq_quantize(g, seed=5) - g).norm() / size
    many = (F.luq_quantize(g, seed=5, samples=200) - g).norm() / size
    assert 0.25 < one < 0.32 and 0.017 < many < 0.024
    assert abs(one / many - math.sqrt(200)) < 0.5


def test_clip_of_distributions():
    """T12: over sigma of a Gaussian 2.365, over the rms of a uniform 1.536 and of a Laplace distribution 3.476."""
    n = 400_000
    gauss, uniform = torch.randn(n), torch.rand(n) * 2 - 1
    laplace = torch.distributions.Laplace(0.0, 1.0).sample((n,))
    for x, want in ((gauss, 2.365), (uniform, 1.536), (laplace, 3.476)):
        assert abs(float(F.sawb_clip(x)) / float(x.double().square().mean().sqrt()) - want) < 0.05


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 4096), (2, 5000), (4, 3, 3, 3)])
def test_clip_equals_reference(shape):
    x = torch.randn(shape) * torch.exp(torch.randn(shape))
    got = F.sawb_clip(x)
    assert got.dtype == torch.float64
    assert abs(float(got) - reference.clip(x)) <= 1e-12 * reference.clip(x)


def test_clip_of_odd_input():
    assert float(F.sawb_clip(torch.tensor([2.0, -2.0, 2.0]))) == 2.0  # of one size, where the formula is below 0
    assert float(F.sawb_clip(torch.zeros(5))) == 0.0 and float(F.sawb_clip(torch.empty(0))) == 0.0
    for bad in (math.nan, math.inf, -math.inf):
        assert math.isnan(F.sawb_clip(torch.tensor([1.0, bad, 3.0])))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_input_makes_all_nan(bad):
    x = torch.randn(3, 40)
    x[1, 2] = bad
    assert F.luq_quantize(x, seed=1).isnan().all()
    assert F.luq_quantize(x, seed=1, levels="original").isnan().all()
    codes, scale = F.luq_codes(x, seed=1)
    assert codes.eq(0).all() and math.isnan(scale)


def test_zero_empty_and_tiny():
    assert F.luq_quantize(torch.zeros(3, 4), seed=1).eq(0).all()
    codes, scale = F.luq_codes(torch.zeros(3, 4), seed=1)
    assert codes.eq(0).all() and scale == 0
    assert F.luq_codes(torch.empty(0, 4), seed=1)[0].shape == (0, 4)
    x = torch.tensor([1e-40, -3e-39, 2e-38, 1e-45])  # alpha stops at the smallest normal number
    mean = torch.stack([F.luq_quantize(x, seed=s) for s in range(4000)]).double().mean(0)
    torch.testing.assert_close(mean, x.double(), rtol=0, atol=2e-39)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_cast(dtype):
    x = torch.randn(5, 9).to(dtype)
    assert_same(F.luq_quantize(x, seed=3), F.luq_quantize(x.float(), seed=3).to(dtype))
    assert_same(F.luq_codes(x, seed=3)[0], F.luq_codes(x.float(), seed=3)[0])


def test_order_in_memory_does_not_matter():
    x = gradients(6, 40)
    assert_same(F.luq_quantize(x.t().contiguous().t(), seed=3), F.luq_quantize(x, seed=3))


def test_gradient_is_the_identity_once():
    x = gradients(4, 9).requires_grad_()
    g = torch.randn(4, 9)
    assert_same(torch.autograd.grad(F.luq_quantize(x, seed=3), x, g)[0], g)
    first = torch.autograd.grad(F.luq_quantize(x, seed=3), x, x.detach())[0]
    assert not first.requires_grad
    with pytest.raises(NotImplementedError, match=r"luq_quantize: expected a first derivative, got create_graph=True"):
        torch.autograd.grad(F.luq_quantize(x, seed=3).square().sum(), x, create_graph=True)
    assert not F.luq_codes(x, seed=3)[1].requires_grad and not F.sawb_clip(x).requires_grad


def test_seeds_come_from_the_generator():
    x = gradients(4, 100)
    torch.manual_seed(4)
    a = F.luq_quantize(x)
    b = F.luq_quantize(x)
    torch.manual_seed(4)
    assert_same(F.luq_quantize(x), a)
    assert not torch.equal(a, b)
    assert_same(F.luq_quantize(x, generator=torch.Generator().manual_seed(4)), a)
