"""`hadamard_conv2d`: forward and gradients equal the reference, `==`, over geometries, orders and options."""

import math
from dataclasses import replace

import pytest
import quintil.functional as F
import reference
import torch
from conftest import SCALAR, activations, assert_same, weights
from reference import Options

op = torch.ops.quintil.hadamard_conv2d
# x, weight, stride, padding
GEOMETRIES = [
    ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (0, 0)),
    ((2, 3, 8, 8), (4, 3, 3, 3), (1, 1), (1, 1)),
    ((3, 5, 7, 6), (6, 5, 3, 2), (2, 1), (1, 2)),
    ((2, 4, 9, 9), (3, 4, 1, 1), (2, 2), (0, 0)),
    ((2, 3, 6, 11), (7, 3, 2, 5), (3, 2), (2, 1)),
    ((9, 2, 5, 5), (5, 2, 3, 3), (1, 1), (0, 0)),
    ((2, 17, 4, 4), (33, 17, 3, 3), (1, 1), (1, 1)),
    ((1, 2, 3, 3), (2, 2, 3, 3), (1, 1), (3, 3)),
]


def gradients(x, w, bias, g, stride, padding, o, seed):
    leaves = [t.detach().clone().requires_grad_() for t in (x, w)] + (
        [] if bias is None else [bias.clone().requires_grad_()]
    )
    bias_leaf = leaves[2] if len(leaves) == 3 else None
    y = op(leaves[0], leaves[1], bias_leaf, stride, padding, [1, 1], **o.arguments(conv=True), seed=seed)
    g = torch.randn(y.shape) if g is None else g
    return y.detach(), g, torch.autograd.grad(y, leaves, g)


def check(geometry, o, seed, signed=True):
    x_shape, w_shape, stride, padding = geometry
    x, w, bias = activations(*x_shape, signed=signed), weights(*w_shape), torch.randn(w_shape[0])
    y, g, got = gradients(x, w, bias, None, stride, padding, o, seed)
    what = f"{geometry}, {o}"
    assert_same(y, reference.hadamard_conv2d(x, w, bias, stride, padding, o, seed), f"y, {what}")
    for name, a, want in zip(
        ("dx", "dw", "db"), got, reference.hadamard_conv2d_backward(x, w, g, stride, padding, o, seed)
    ):
        assert_same(a, want, f"{name}, {what}")


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("tile_order", ["khwc", "chw"])
@pytest.mark.parametrize("conv_backward", ["per_sample", "batch"])
def test_equals_reference_in_every_geometry(geometry, tile_order, conv_backward):
    o = Options(tile_order=tile_order, conv_backward=conv_backward)
    check(geometry, o, seed=2**33 + 7)
    check(geometry, o, seed=1, signed=False)


@pytest.mark.parametrize("hadamard", ["divisor", "binary", "padded", "none", "none_scaled"])
@pytest.mark.parametrize("conv_backward", ["per_sample", "batch"])
def test_equals_reference_in_every_layout(hadamard, conv_backward):
    for geometry in GEOMETRIES[1:4]:
        check(geometry, Options(hadamard=hadamard, conv_backward=conv_backward), seed=6, signed=False)


@pytest.mark.parametrize("accumulate", ["tile_end", "every_mac"])
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_every_register(accumulate, overflow):
    for bits, tile, backward_bits, backward_tile in ((8, 32, None, 32), (6, 5, 8, 0), (32, 0, 6, 7)):
        o = Options(
            accumulator_bits=bits,
            tile_size=tile,
            backward_accumulator_bits=backward_bits,
            backward_tile_size=backward_tile,
            accumulate=accumulate,
            overflow=overflow,
        )
        for geometry in (GEOMETRIES[1], GEOMETRIES[6]):
            check(geometry, o, seed=8, signed=False)


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_operand_width(bits):
    for accumulator_bits in (8, 32):
        check(GEOMETRIES[2], Options(bits=bits, accumulator_bits=accumulator_bits), seed=bits)


@pytest.mark.parametrize("accumulators", ["uniform", "iclr2023", "response", "collas2024", "head"])
def test_paper_presets(accumulators):
    o = reference.paper_options(accumulators)
    assert (o.tile_order, o.hadamard, o.ste, o.backward_tile_size) == ("chw", "divisor", "raw", 0)
    for geometry in GEOMETRIES[1:3]:
        check(geometry, o, seed=10, signed=False)


@pytest.mark.parametrize("stochastic", ["", "b1w", "b1g", "b2a", "b2g", "fw", "fa", "fw,fa,b1w,b1g,b2a,b2g"])
@pytest.mark.parametrize("tile_order", ["khwc", "chw"])
def test_every_stochastic_site(stochastic, tile_order):
    for conv_backward in ("per_sample", "batch"):
        o = Options(stochastic=stochastic, tile_order=tile_order, conv_backward=conv_backward)
        for geometry in (GEOMETRIES[2], GEOMETRIES[6]):
            check(geometry, o, seed=2**62 - 1, signed=False)


@pytest.mark.parametrize("ste", ["identity", "clip", "raw"])
def test_straight_through_variants(ste):
    o = Options(ste=ste, bits=2, range_fraction=0.6)
    check(GEOMETRIES[1], o, seed=1)
    check(GEOMETRIES[2], replace(o, conv_backward="batch", tile_order="chw"), seed=1, signed=False)


def test_without_requantisation():
    for hadamard in ("divisor", "padded", "none", "none_scaled"):
        check(GEOMETRIES[1], Options(requantize=False, hadamard=hadamard), seed=2, signed=False)


@pytest.mark.parametrize("block", [1, 4, 16, 128])
def test_every_hadamard_block(block):
    check(GEOMETRIES[6], Options(hadamard_block=block), seed=5)
    check(GEOMETRIES[2], Options(hadamard_block=block, conv_backward="batch"), seed=5)


def test_more_than_one_block_of_eight_samples():
    """Per-sample weight gradients of very different size show the order of the sum [N8]."""
    x, w = activations(19, 2, 4, 4), weights(3, 2, 3, 3)
    g = torch.randn(19, 3, 4, 4) * 10 ** (2 * torch.randn(19, 1, 1, 1))
    _, g, got = gradients(x, w, torch.randn(3), g, (1, 1), (1, 1), Options(), 4)
    for name, a, want in zip(
        ("dx", "dw", "db"), got, reference.hadamard_conv2d_backward(x, w, g, (1, 1), (1, 1), Options(), 4)
    ):
        assert_same(a, want, name)


@pytest.mark.parametrize("height, width", [(3, 3), (5, 13)])
def test_a_weight_gradient_that_is_made_in_pieces(height, width):
    """More than 2^17 numbers; the last piece has fewer than 16 outputs, the second block of samples only one.

    Up to 64 positions a kernel adds the products of samples as it makes them, beyond that they are made one by one.
    """
    t = torch.Generator().manual_seed(8)
    sizes = ((9, 120, height, width), (124, 120, 3, 3), (9, 124, height, width))
    x, w, g = (torch.randn(s, generator=t) for s in sizes)
    _, g, got = gradients(x, w, None, g, (1, 1), (1, 1), Options(), 6)
    for name, a, want in zip(
        ("dx", "dw"), got, reference.hadamard_conv2d_backward(x, w, g, (1, 1), (1, 1), Options(), 6)
    ):
        assert_same(a, want, name)


def test_a_training_sized_image():
    samples, side = (1, 8) if SCALAR else (2, 16)
    check(((samples, 16, side, side), (16, 16, 3, 3), (1, 1), (1, 1)), Options(), seed=9, signed=False)
    check(
        ((samples, 16, side, side), (32, 16, 3, 3), (2, 2), (1, 1)),
        reference.paper_options(),
        seed=9,
        signed=False,
    )


def test_a_1x1_convolution_over_one_sample_is_a_linear_layer():
    """Rows are positions, so both ops must agree bit for bit where nothing is drawn (their draws lie elsewhere)."""
    x, w, g = activations(1, 12, 5, 7), weights(9, 12, 1, 1), torch.randn(1, 9, 5, 7)
    y, _, (dx, dw) = gradients(x, w, None, g, (1, 1), (0, 0), Options(stochastic=""), 31)
    rows = x.permute(0, 2, 3, 1).reshape(35, 12).requires_grad_()
    flat = w.reshape(9, 12).requires_grad_()
    out = torch.ops.quintil.hadamard_linear(rows, flat, stochastic="")
    drows, dflat = torch.autograd.grad(out, (rows, flat), g.permute(0, 2, 3, 1).reshape(35, 9))
    assert_same(y.permute(0, 2, 3, 1).reshape(35, 9), out)
    assert_same(dx.permute(0, 2, 3, 1).reshape(35, 12), drows)
    assert_same(dw.reshape(9, 12), dflat)


def test_memory_format_is_kept_and_changes_nothing():
    x, w, bias, g = activations(3, 6, 7, 5), weights(4, 6, 3, 3), torch.randn(4), torch.randn(3, 4, 7, 5)
    y, _, want = gradients(x, w, bias, g, (1, 1), (1, 1), Options(), 3)
    assert y.is_contiguous()
    last = torch.channels_last
    y_last, _, got = gradients(
        x.to(memory_format=last),
        w.to(memory_format=last),
        bias,
        g.to(memory_format=last),
        (1, 1),
        (1, 1),
        Options(),
        3,
    )
    assert y_last.is_contiguous(memory_format=last)
    assert_same(y_last, y)
    for a, b in zip(got, want):
        assert_same(a, b)
    strided = torch.stack([x, x], -1)[..., 0]
    assert_same(
        op(strided, w.transpose(2, 3), bias, [1, 1], [1, 1]),
        op(x, w.transpose(2, 3).contiguous(), bias, [1, 1], [1, 1]),
    )


def test_functional_takes_single_numbers():
    x, w = activations(2, 3, 6, 6), weights(4, 3, 3, 3)
    assert_same(F.hadamard_conv2d(x, w, None, 2, 1), reference.hadamard_conv2d(x, w, None, (2, 2), (1, 1)))
    assert_same(F.hadamard_conv2d(x, w, None, (2, 1), 1), op(x, w, None, [2, 1], [1, 1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_cast(dtype):
    x, w, bias, g = (
        t.to(dtype) for t in (activations(2, 3, 5, 5), weights(4, 3, 3, 3), torch.randn(4), torch.randn(2, 4, 3, 3))
    )
    y, _, got = gradients(x, w, bias, g, (1, 1), (0, 0), Options(), 2)
    x, w, bias, g = (t.float() for t in (x, w, bias, g))
    assert y.dtype == dtype
    assert_same(y, reference.hadamard_conv2d(x, w, bias).to(dtype))
    for a, want in zip(got, reference.hadamard_conv2d_backward(x, w, g, o=Options(), seed=2)):
        assert a.dtype == dtype
        assert_same(a, want.to(dtype))


def test_zero_and_non_finite():
    x, w, bias, g = activations(2, 3, 5, 5), weights(4, 3, 3, 3), torch.randn(4), torch.randn(2, 4, 5, 5)
    assert_same(op(0 * x, w, bias, [1, 1], [1, 1]), bias[None, :, None, None].expand(2, 4, 5, 5))
    _, _, got = gradients(0 * x, 0 * w, bias, 0 * g, (1, 1), (1, 1), Options(), 1)
    assert not any(t.any() for t in got)
    for i in (0, 1):
        broken = [x.clone(), w.clone()]
        broken[i][1, 2, 0, 1] = math.nan
        assert bool(op(*broken, bias, [1, 1], [1, 1]).isnan().all())
    g[1, 0, 2, 2] = math.inf
    _, _, (dx, dw, _) = gradients(x, w, bias, g, (1, 1), (1, 1), Options(), 1)
    assert bool(dx[1].isnan().all()) and bool(dx[0].isfinite().all()) and bool(dw.isnan().all())


@pytest.mark.parametrize("conv_backward", ["per_sample", "batch"])
def test_empty_batch(conv_backward):
    o = Options(conv_backward=conv_backward)
    y, g, (dx, dw, db) = gradients(
        torch.randn(0, 3, 5, 5), weights(4, 3, 3, 3), torch.randn(4), None, (1, 1), (1, 1), o, 1
    )
    assert y.shape == (0, 4, 5, 5) and dx.shape == (0, 3, 5, 5) and dw.shape == (4, 3, 3, 3)
    assert not dw.any() and not db.any()


DILATIONS = [  # x, kernel, stride, padding, dilation
    ((2, 3, 9, 9), (4, 3, 3, 3), (1, 1), (2, 2), (2, 2)),
    ((3, 2, 11, 8), (5, 2, 3, 2), (2, 1), (0, 3), (3, 2)),
    ((1, 17, 6, 12), (3, 17, 2, 4), (1, 2), (1, 4), (1, 3)),
]


@pytest.mark.parametrize("geometry", DILATIONS, ids=str)
@pytest.mark.parametrize("tile_order", ["khwc", "chw"])
@pytest.mark.parametrize("conv_backward", ["per_sample", "batch"])
def test_dilation_is_a_kernel_stuffed_with_zeros(geometry, tile_order, conv_backward):
    """Without a limit, a transform and draws both compute the same integer sums: the zeros add nothing.

    Where a stride leaves pixels out, their codes are not rounded again: the stuffed kernel would see another maximum.
    """
    x_shape, w_shape, stride, padding, dilation = geometry
    kh, kw = (d * (k - 1) + 1 for d, k in zip(dilation, w_shape[2:]))
    w, bias = weights(*w_shape), torch.randn(w_shape[0])
    stuffed = torch.zeros(*w_shape[:2], kh, kw)
    taps = (slice(None), slice(None), slice(None, None, dilation[0]), slice(None, None, dilation[1]))
    stuffed[taps] = w
    options = dict(
        accumulator_bits=32,
        hadamard="none",
        stochastic="",
        requantize=stride == (1, 1),
        tile_order=tile_order,
        conv_backward=conv_backward,
    )

    for x in (activations(*x_shape), activations(*x_shape, signed=False)):
        results, g = [], None
        for kernel, spread in ((w, dilation), (stuffed, (1, 1))):
            leaves = [
                x.clone().requires_grad_(),
                kernel.clone().requires_grad_(),
                bias.clone().requires_grad_(),
            ]
            y = op(*leaves, stride, padding, spread, **options)
            g = torch.randn(y.shape) if g is None else g
            results.append((y.detach(), *torch.autograd.grad(y, leaves, g)))
        (y, dx, dw, db), (want_y, want_dx, want_dw, want_db) = results
        assert y.shape == torch.nn.functional.conv2d(x, w, bias, stride, padding, dilation).shape
        assert y.unique().numel() > 20 and dx.any() and dw.any(), "a comparison of nothing"
        for name, a, want in (
            ("y", y, want_y),
            ("dx", dx, want_dx),
            ("dw", dw, want_dw[taps]),
            ("db", db, want_db),
        ):
            assert_same(a, want, name)


def test_saved_for_backward_is_packed():
    x, w = activations(4, 16, 16, 16).requires_grad_(), weights(16, 16, 3, 3).requires_grad_()
    held = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t) or t, lambda t: t):
        y = op(x, w, None, [1, 1], [1, 1], seed=1)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
    assert sum(storages.values()) <= (x.numel() + w.numel()) // 2 * 1.01 + 64
    y.sum().backward()


def test_not_twice_differentiable():
    x, w = activations(1, 2, 4, 4).requires_grad_(), weights(3, 2, 3, 3).requires_grad_()
    with pytest.raises(RuntimeError, match="twice differentiable"):
        (dx,) = torch.autograd.grad(op(x, w, seed=1).square().sum(), x, create_graph=True)
        dx.sum().backward()


def test_reference_formulas_are_the_exact_gradients():
    """The reference with every quantiser the identity: autograd through a plain convolution (T4)."""
    for _, w_shape, stride, padding in GEOMETRIES[1:5]:
        x = torch.randn(3, w_shape[1], 9, 11, dtype=torch.float64, requires_grad=True)
        w, bias = torch.randn(w_shape, dtype=torch.float64, requires_grad=True), torch.randn(
            w_shape[0], dtype=torch.float64, requires_grad=True
        )
        y = torch.nn.functional.conv2d(x, w, bias, stride, padding)
        g = torch.randn_like(y)
        exact = torch.autograd.grad(y, (x, w, bias), g)
        for mode in ("divisor", "binary", "padded", "none"):
            for conv_backward, tile_order in (("per_sample", "khwc"), ("batch", "chw")):
                o = Options(exact=True, hadamard=mode, conv_backward=conv_backward, tile_order=tile_order)
                got = reference.hadamard_conv2d_backward(x.detach(), w.detach(), g, stride, padding, o)
                for a, b in zip(got, exact):
                    assert torch.allclose(a, b, atol=1e-5)
