"""`vecq_step`, `vecq_quantize` and `vecq_codes` against the reference, and on odd input."""

import itertools
import math

import pytest
import quintil.functional as F
import reference_vecq as reference
import torch
from conftest import assert_same

# x, and the sizes that its steps can have
SHAPES = [
    ((), [()]),
    ((1,), [(), (1,)]),
    ((9,), [(), (9,)]),
    ((4, 33), [(), (4,), (4, 3), (4, 33)]),
    ((5, 3, 3, 3), [(), (5,), (5, 9)]),
    ((2, 4111), [(), (2,)]),
    ((0, 3), [(), (0,), (0, 3)]),
    ((3, 0), [(), (3,), (3, 0)]),
]
CASES = [(shape, sizes) for shape, options in SHAPES for sizes in options]


def leaf(t):
    return t.detach().clone().requires_grad_()


def step_of(x, bits, sizes, **options):
    if len(sizes) == 2:
        group_size = x[0].numel() // sizes[1] if x.numel() else 1
        return F.vecq_step(x, bits, group_size=group_size, **options)
    return F.vecq_step(x, bits, per_channel=len(sizes) == 1, **options)


@pytest.mark.parametrize("shape, sizes", CASES)
def test_equals_reference(shape, sizes):
    x = torch.randn(shape) * torch.exp(torch.randn(shape))
    g = torch.randn(shape)
    for bits, sigma in itertools.product((*range(1, 10), 16), ("population", "unbiased")):
        step = step_of(x, bits, sizes, sigma=sigma)
        assert_same(step, reference.step(x, bits, sizes, sigma), f"step at {bits} bits")
        for drive in ("projection", "norm", "none"):
            for grad_mode, ratio in (("ste", 0.0), ("pwl", 0.0), ("pwl", 0.25), ("pwl_c", 0.0), ("pwl_c", 0.3)):
                options = dict(drive=drive, grad_mode=grad_mode, grad_ratio=ratio)
                at = leaf(x)
                y, codes, alpha = F.vecq_quantize(at, bits, step=step, **options)
                want_y, want_codes, want_alpha, inside = reference.quantize(x, bits, step, **options)
                what = f"at {bits} bits, {options}"
                assert codes.dtype == (torch.int8 if bits <= 8 else torch.int16)
                assert_same(codes, want_codes, f"codes {what}")
                assert_same(alpha, want_alpha, f"alpha {what}")
                assert_same(y, want_y, f"y {what}")
                assert not codes.requires_grad and not alpha.requires_grad
                assert_same(torch.autograd.grad(y, at, g)[0], torch.where(inside, g, 0.0), f"dx {what}")
        assert_same(F.vecq_codes(x, bits, step), want_codes, f"vecq_codes at {bits} bits")


def test_the_default_step_is_that_of_the_tensor():
    x = torch.randn(7, 30)
    for a, b in zip(F.vecq_quantize(x, 4), F.vecq_quantize(x, 4, step=F.vecq_step(x, 4))):
        assert_same(a, b)


def test_given_step_and_length():
    """As an evaluation uses them; ties to even: x / step - 1/2 = 0.5 and 1.5, 2.5."""
    x = torch.tensor([-9.0, -0.5, -0.0, 0.0, 0.1, 0.5, 1.0, 1.5, math.inf, math.nan])
    y, codes, alpha = F.vecq_quantize(x, 2, step=torch.tensor(0.5), alpha=torch.tensor(2.0))
    assert codes.tolist() == [-2, -2, 0, 0, 0, 0, 1, 1, 1, 0] and float(alpha) == 2.0
    assert_same(y, torch.tensor([-3.0, -3.0, 1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, math.nan]))


def test_not_finite_numbers_make_all_that_shares_their_step_nan():
    x = torch.randn(3, 40)
    x[1, 7], x[2, 3] = math.nan, math.inf
    step = F.vecq_step(x, 4, per_channel=True)
    y, codes, alpha = F.vecq_quantize(x, 4, step=step)
    assert step.isnan().tolist() == alpha.isnan().tolist() == [False, True, True]
    assert y[1:].isnan().all() and not y[0].isnan().any() and codes[1:].eq(0).all() and codes[0].ne(0).any()
    assert F.vecq_step(x, 4).isnan() and F.vecq_step(x, 4, lambda_mode="search").isnan()
    assert F.vecq_step(torch.tensor([math.inf, math.inf]), 4).isnan()


def test_a_step_of_zero_and_tiny_numbers():
    y, codes, _ = F.vecq_quantize(torch.tensor([0.0, 1.0, -1.0]), 3, step=torch.tensor(0.0))
    assert codes.tolist() == [0, 3, -4] and torch.isfinite(y).all()
    for tiny in (1e-20, 1e-40):  # below the 1e-7 of the step: zeros, as is all within 2^-25 of a step
        y, codes, alpha = F.vecq_quantize(torch.tensor([tiny, -tiny]), 4)
        assert codes.tolist() == [0, 0] and torch.isfinite(y).all()


def test_checked_mode_names_the_first_bad_index():
    bad = torch.tensor([[1.0], [math.nan]])
    F.set_checked(True)
    try:
        for call, name in (
            (lambda: F.vecq_step(bad, 4), "vecq_step: expected x"),
            (lambda: F.vecq_quantize(bad, 4, step=torch.tensor(1.0)), "vecq_quantize: expected x"),
            (lambda: F.vecq_codes(bad, 4, torch.tensor(1.0)), "vecq_codes: expected x"),
            (lambda: F.vecq_losses(bad, bad), "vecq_losses: expected x"),
        ):
            with pytest.raises(ValueError, match=rf"^{name} to be finite, got nan \(at index \[1, 0\]\)$"):
                call()
    finally:
        F.set_checked(False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_float_types_are_computed_in_float32(dtype):
    x, g = torch.randn(4, 9).to(dtype), torch.randn(4, 9).to(dtype)
    at, plain = leaf(x), leaf(x.float())
    got, want = F.vecq_quantize(at, 4), F.vecq_quantize(plain, 4)
    assert got[0].dtype == dtype and got[2].dtype == torch.float32
    assert_same(got[0], want[0].to(dtype))
    assert_same(got[1], want[1])
    assert_same(torch.autograd.grad(got[0], at, g)[0], g)
    assert_same(F.vecq_step(x, 4), F.vecq_step(x.float(), 4))
    assert_same(F.vecq_codes(x, 4, F.vecq_step(x, 4)), want[1])


def test_memory_formats_are_kept():
    x = torch.randn(4, 3, 5, 2).to(memory_format=torch.channels_last)
    for per_channel in (False, True):
        step = F.vecq_step(x.contiguous(), 4, per_channel=per_channel)
        y, codes, _ = F.vecq_quantize(x, 4, step=step, drive="none")
        want = F.vecq_quantize(x.contiguous(), 4, step=step, drive="none")
        assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (y, codes, F.vecq_codes(x, 4, step)))
        assert_same(y, want[0])
        assert_same(codes, want[1])
    groups = F.vecq_step(x, 4, group_size=5)
    assert_same(groups, reference.step(x, 4, (4, 6)))
    assert_same(F.vecq_quantize(x, 4, step=groups)[0], F.vecq_quantize(x.contiguous(), 4, step=groups)[0])
    strided = torch.randn(6, 10).t()[::2]
    assert_same(F.vecq_quantize(strided, 4)[0], F.vecq_quantize(strided.contiguous(), 4)[0])


def test_a_gradient_can_be_differentiated_again():
    """The straight-through gradient is linear in what comes back."""
    x = leaf(torch.randn(20))
    y, *_ = F.vecq_quantize(x, 3, grad_mode="pwl_c")
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    inside = (x >= y.min()) & (x <= y.max())
    assert_same(second, torch.where(inside, 2.0, 0.0))
    assert 0 < int(inside.sum()) < 20


def test_forward_mode_is_refused():
    import torch.autograd.forward_ad as forward_ad

    with forward_ad.dual_level():
        x = forward_ad.make_dual(torch.randn(3), torch.ones(3))
        with pytest.raises(NotImplementedError, match="^vecq_quantize: expected inputs without a tangent, got one"):
            F.vecq_quantize(x, 4)
