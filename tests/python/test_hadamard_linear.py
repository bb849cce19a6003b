"""`hadamard_linear`: forward and gradients equal the reference for every option, and the odd cases."""

import math
from dataclasses import replace

import pytest
import quintil.functional as F
import reference
import torch
from conftest import SCALAR, activations, assert_same, weights
from reference import Options

op = torch.ops.quintil.hadamard_linear
SHAPES = [(1, 1, 1), (2, 3, 2), (7, 33, 5), (33, 70, 19), (64, 32, 64), (65, 129, 40), (16, 20, 130)]


def gradients(x, w, bias, g, o, seed):
    leaves = [t.detach().clone().requires_grad_() for t in (x, w)] + (
        [] if bias is None else [bias.clone().requires_grad_()]
    )
    y = op(*leaves, **o.arguments(), seed=seed)
    return y.detach(), torch.autograd.grad(y, leaves, g)


def check(b, k, n, o, seed, signed=True, heavy=False):
    x, w, bias, g = activations(b, k, signed=signed), weights(n, k), torch.randn(n), torch.randn(b, n)
    if heavy:
        g = g * torch.exp(3 * torch.randn(b, n))
    y, got = gradients(x, w, bias, g, o, seed)
    what = f"[{b}, {k}] -> {n}, {o}"
    assert_same(y, reference.hadamard_linear(x, w, bias, o, seed), f"y, {what}")
    for name, a, want in zip(("dx", "dw", "db"), got, reference.hadamard_linear_backward(x, w, g, o, seed)):
        assert_same(a, want, f"{name}, {what}")


@pytest.mark.parametrize("hadamard", ["divisor", "binary", "padded", "none", "none_scaled"])
@pytest.mark.parametrize("signed", [True, False])
def test_equals_reference_in_every_layout(hadamard, signed):
    for i, (b, k, n) in enumerate(SHAPES):
        check(b, k, n, Options(hadamard=hadamard), seed=2**40 + i, signed=signed, heavy=i % 2 == 1)


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_operand_width(bits):
    for accumulator_bits in (8, 16, 32):
        check(21, 45, 13, Options(bits=bits, accumulator_bits=accumulator_bits), seed=bits)
        check(
            21,
            45,
            13,
            Options(bits=bits, accumulator_bits=accumulator_bits, hadamard="divisor"),
            seed=bits,
            signed=False,
        )


@pytest.mark.parametrize("accumulate", ["tile_end", "every_mac"])
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_every_register(accumulate, overflow):
    for bits, tile, backward_bits, backward_tile in (
        (8, 32, None, 32),
        (6, 21, 8, 0),
        (4, 1, 5, 16),
        (8, 0, 10, 0),
        (32, 32, 8, 7),
    ):
        o = Options(
            accumulator_bits=bits,
            tile_size=tile,
            backward_accumulator_bits=backward_bits,
            backward_tile_size=backward_tile,
            accumulate=accumulate,
            overflow=overflow,
        )
        check(40, 70, 37, o, seed=77)
        check(40, 70, 37, o, seed=77, signed=False)


@pytest.mark.parametrize("block", [1, 2, 8, 32, 64, 128])
def test_every_hadamard_block(block):
    check(70, 21, 37, Options(hadamard_block=block), seed=5)


@pytest.mark.parametrize(
    "stochastic",
    ["", "b1g,b2a,b2g", "b1w", "b1g", "b2a", "b2g", "fw", "fa", "fw,fa,b1w,b1g,b2a,b2g", "b2g,fa"],
)
def test_every_stochastic_site(stochastic):
    for seed in (0, 1, 2**62 - 1):
        check(35, 300, 21, Options(stochastic=stochastic), seed=seed, signed=False)
    check(66, 20, 133, Options(stochastic=stochastic, hadamard="divisor", bits=5), seed=3)


@pytest.mark.parametrize("accumulators", ["uniform", "iclr2023", "response", "collas2024", "head"])
def test_paper_presets(accumulators):
    for bits, accumulator_bits in ((4, 8), (3, 6), (5, 10)):
        o = reference.paper_options(accumulators, bits, accumulator_bits)
        check(72, 61, 18, o, seed=11)
        check(32, 61, 18, o, seed=11, signed=False)


@pytest.mark.parametrize("ste", ["identity", "clip", "raw"])
@pytest.mark.parametrize("fraction", [0.975, 0.5, 1.0])
def test_straight_through_variants(ste, fraction):
    o = Options(ste=ste, range_fraction=fraction, bits=3)
    for signed in (True, False):
        check(20, 30, 10, o, seed=1, signed=signed)
    x, w, g = 8 * torch.randn(20, 30), 8 * weights(10, 30), torch.randn(20, 10)
    _, got = gradients(x, w, None, g, o, 1)
    for a, want in zip(got, reference.hadamard_linear_backward(x, w, g, o, 1)):
        assert_same(a, want)
    if ste == "raw":
        assert bool((got[0][x.abs() > 3] == 0).all()) and bool((got[0] != 0).any())


@pytest.mark.parametrize("hadamard", ["divisor", "padded", "none", "none_scaled"])
def test_without_requantisation(hadamard):
    for signed in (True, False):
        check(40, 33, 20, Options(requantize=False, hadamard=hadamard), seed=4, signed=signed)
        check(
            64,
            33,
            20,
            Options(requantize=False, hadamard=hadamard, accumulator_bits=32),
            seed=4,
            signed=signed,
        )


def test_all_non_negative_weights_become_unsigned():
    x, w, g = activations(9, 20), weights(6, 20).abs(), torch.randn(9, 6)
    y, got = gradients(x, w, None, g, Options(), 8)
    assert_same(y, reference.hadamard_linear(x, w))
    for a, want in zip(got, reference.hadamard_linear_backward(x, w, g, Options(), 8)):
        assert_same(a, want)


def test_leading_dimensions_are_rows():
    w, bias = weights(5, 12), torch.randn(5)
    for shape in ((12,), (3, 12), (2, 3, 12), (2, 1, 3, 12)):
        x = torch.randn(shape)
        g = torch.randn(*shape[:-1], 5)
        y, (dx, dw, db) = gradients(x, w, bias, g, Options(), 6)
        assert y.shape == g.shape and dx.shape == x.shape
        assert_same(y, reference.hadamard_linear(x, w, bias))
        for a, want in zip((dx, dw, db), reference.hadamard_linear_backward(x, w, g, Options(), 6)):
            assert_same(a, want)


def test_each_gradient_alone_equals_the_joint_one():
    x, w, bias, g = activations(30, 41), weights(12, 41), torch.randn(12), torch.randn(30, 12)
    _, joint = gradients(x, w, bias, g, Options(), 21)
    for i in range(3):
        leaves = [x.clone(), w.clone(), bias.clone()]
        leaves[i].requires_grad_()
        (alone,) = torch.autograd.grad(op(*leaves, seed=21), leaves[i], g)
        assert_same(alone, joint[i])


def test_bias_gradient_adds_rows_in_chunks_of_1024():
    for rows in (1023, 1024, 1025, 2500):
        x, w, bias = torch.randn(rows, 2), weights(3, 2), torch.randn(3, requires_grad=True)
        g = torch.randn(rows, 3) * 10 ** (3 * torch.randn(rows, 3))
        (db,) = torch.autograd.grad(op(x, w, bias, seed=0), bias, g)
        assert_same(db, reference.bias_gradient(g), f"{rows} rows")


def test_strides_do_not_matter():
    x, w, g = activations(24, 36), weights(16, 36), torch.randn(24, 16)
    want_y, want = gradients(x, w, None, g, Options(), 3)
    wide = torch.stack([x, -x], -1)[..., 0]
    for left, right, upstream in (
        (x.t().contiguous().t(), w.t().contiguous().t(), g.t().contiguous().t()),
        (wide, w, g),
        (x, torch.cat([w, w])[:16], torch.cat([g, g], 1)[:, :16]),
    ):
        leaves = left.detach().requires_grad_(), right.detach().requires_grad_()
        y = op(*leaves, seed=3)
        assert_same(y, want_y)
        for a, b in zip(torch.autograd.grad(y, leaves, upstream), want):
            assert_same(a, b)
    row = torch.randn(1, 16)
    _, expanded = gradients(x, w, None, row.expand(24, 16), Options(), 3)
    _, copied = gradients(x, w, None, row.expand(24, 16).contiguous(), Options(), 3)
    assert_same(expanded[0], copied[0])
    assert_same(expanded[1], copied[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_cast(dtype):
    x, w, bias, g = (t.to(dtype) for t in (activations(10, 20), weights(6, 20), torch.randn(6), torch.randn(10, 6)))
    y, got = gradients(x, w, bias, g, Options(), 2)
    assert y.dtype == dtype and all(t.dtype == dtype for t in got)
    x, w, bias, g = (t.float() for t in (x, w, bias, g))
    assert_same(y, reference.hadamard_linear(x, w, bias).to(dtype))
    for a, want in zip(got, reference.hadamard_linear_backward(x, w, g, Options(), 2)):
        assert_same(a, want.to(dtype))


def test_zero_tensors_give_the_bias_and_no_nan():
    x, w, bias, g = activations(5, 9), weights(4, 9), torch.randn(4), torch.randn(5, 4)
    for left, right, upstream in (
        (0 * x, w, g),
        (x, 0 * w, g),
        (x, w, 0 * g),
        (0 * x, 0 * w, 0 * g),
        (x, w, 1e-38 * g),
        (1e-40 * x, w, g),
    ):
        y, got = gradients(left, right, bias, upstream, Options(), 1)
        assert_same(y, reference.hadamard_linear(left, right, bias))
        if not left.any() or not right.any():
            assert_same(y, bias.expand(5, 4))
        for a, want in zip(got, reference.hadamard_linear_backward(left, right, upstream, Options(), 1)):
            assert bool(a.isfinite().all())
            assert_same(a, want)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_operands_make_everything_nan(bad):
    x, w, bias, g = activations(6, 10), weights(4, 10), torch.randn(4), torch.randn(6, 4)
    for i in (0, 1):
        broken = [x.clone(), w.clone()]
        broken[i][2, 3] = bad
        assert bool(op(*broken, bias).isnan().all())
    g[1, 2] = bad
    _, (dx, dw, _) = gradients(x, w, bias, g, Options(), 1)
    assert bool(dx.isnan().all()) and bool(dw.isnan().all())


def test_large_gradients_stop_at_the_cap():
    """Stochastic sites limit max |z| to 1e8; nearest ones do not."""
    x, w, g = activations(9, 12), weights(6, 12), torch.randn(9, 6) * 1e9
    for stochastic in ("b1g,b2a,b2g", ""):
        o = Options(stochastic=stochastic)
        _, got = gradients(x, w, None, g, o, 5)
        for a, want in zip(got, reference.hadamard_linear_backward(x, w, g, o, 5)):
            assert_same(a, want)


@pytest.mark.parametrize("shape, n", [((0, 5), 3), ((4, 0), 3), ((4, 5), 0), ((0, 0), 0), ((2, 0, 5), 3)])
def test_empty(shape, n):
    x, w, bias = torch.randn(shape), torch.randn(n, shape[-1]), torch.randn(n)
    y, (dx, dw, db) = gradients(x, w, bias, torch.randn(*shape[:-1], n), Options(), 1)
    assert_same(y, bias.expand(*shape[:-1], n))
    assert dx.shape == x.shape and dw.shape == w.shape and db.shape == (n,)
    assert not dx.any() and not dw.any()


def test_forward_is_deterministic_and_needs_no_seed():
    x, w = activations(8, 20), weights(4, 20)
    with torch.inference_mode():
        assert_same(op(x, w), op(x, w, seed=99))
        assert_same(F.hadamard_linear(x, w), op(x, w))
    x.requires_grad_()
    assert_same(op(x, w), op(x, w, seed=1))
    (dx,) = torch.autograd.grad(op(x, w, stochastic="").sum(), x)  # no stochastic site: no seed needed
    assert_same(dx, reference.hadamard_linear_backward(x.detach(), w, torch.ones(8, 4), Options(stochastic=""))[0])


def test_not_twice_differentiable():
    x, w = activations(4, 6).requires_grad_(), weights(3, 6).requires_grad_()
    with pytest.raises(RuntimeError, match="twice differentiable"):
        (dx,) = torch.autograd.grad(op(x, w, seed=1).square().sum(), x, create_graph=True)
        dx.sum().backward()


def test_saved_for_backward_is_packed():
    """Two codes per byte: about an eighth of the float operands."""
    b, k, n = 64, 256, 128
    x, w = activations(b, k).requires_grad_(), weights(n, k).requires_grad_()
    held = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t) or t, lambda t: t):
        y = op(x, w, seed=1)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
    assert sum(storages.values()) <= (b * k + n * k) // 2 * 1.01 + 64
    y.sum().backward()


@pytest.mark.parametrize("bits, k", [(4, 405), (4, 256), (3, 64), (8, 405)])
def test_bytes_saved_for_backward(bits, k):
    """Exactly the codes, two per byte up to 4 bits, and four scalars; at 4 bits an eighth of float32 within 1 %."""
    b, n = 128, 405
    x, w, bias = (
        activations(b, k).requires_grad_(),
        weights(n, k).requires_grad_(),
        torch.randn(n, requires_grad=True),
    )
    held = {}
    keep = lambda t: held.setdefault(t.untyped_storage().data_ptr(), t)  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = op(x, w, bias, bits=bits, seed=1)
    saved = sum(t.untyped_storage().nbytes() for t in held.values())
    assert saved == (b + n) * ((k + 1) // 2 if bits <= 4 else k) + 4 * 4
    if bits == 4:
        assert abs(saved / (4 * (x.numel() + w.numel())) * 8 - 1) < 0.01
    y.sum().backward()


@pytest.mark.parametrize(
    "bits, make_x, make_w, floor",
    [
        (4, lambda s: torch.randn(s), lambda s: torch.randn(s), 10.5),
        (4, lambda s: torch.randn(s).relu(), weights, 19.0),
        (8, lambda s: torch.randn(s), lambda s: torch.randn(s), 35.0),
        (8, lambda s: torch.randn(s).relu(), weights, 35.0),
    ],
)
def test_quality_floor_without_a_limit(bits, make_x, make_w, floor):
    b, n, k = (64, 128, 512) if SCALAR else (256, 512, 512)
    x, w = make_x((b, k)), make_w((n, k)) if make_w is not weights else weights(n, k)
    exact = x.double() @ w.double().t()
    y = op(x, w, bits=bits, accumulator_bits=32).double()
    assert float(10 * torch.log10(exact.square().sum() / (y - exact).square().sum())) >= floor


def test_gradients_point_where_the_exact_ones_do():
    x, w, g = activations(128, 96, signed=False), weights(64, 96), torch.randn(128, 64)
    o = Options(accumulator_bits=32)
    _, (dx, dw) = gradients(x, w, None, g, o, 3)
    for got, exact, floor in ((dx, g @ w, 0.93), (dw, g.t() @ x, 0.85)):
        assert float(torch.nn.functional.cosine_similarity(got.flatten(), exact.flatten(), 0)) > floor


def test_one_row_of_options_in_float64_reference():
    """The reference itself: with every quantiser the identity, its formulas are the exact gradients (T4)."""
    x, w, g = (torch.randn(s, dtype=torch.float64) for s in ((13, 21), (10, 21), (13, 10)))
    for mode in ("divisor", "binary", "padded", "none"):
        dx, dw, db = reference.hadamard_linear_backward(x, w, g, replace(Options(), exact=True, hadamard=mode))
        for got, exact in ((dx, g @ w), (dw, g.t() @ x), (db, g.sum(0))):
            assert torch.allclose(got, exact, atol=1e-5)
