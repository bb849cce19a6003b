"""`dc_row='separate'` [HDQT H23]: the weight gradient equals the reference `==`, is unbiased, and leaves all else alone."""

import math

import pytest
import quintil
import reference
import torch
from conftest import SCALAR, activations, assert_same, same_bits, weights
from reference import Options
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
ops = torch.ops.quintil
APART = dict(dc_row="separate")
UNLIMITED = dict(accumulator_bits=32, tile_size=0, backward_tile_size=0)
SHAPES = [(2, 3, 2), (7, 33, 5), (33, 70, 19), (64, 32, 64), (129, 65, 40), (200, 20, 130)]
# x, weight, stride, padding
GEOMETRIES = [
    ((2, 3, 8, 8), (4, 3, 3, 3), (1, 1), (1, 1)),
    ((3, 5, 7, 6), (6, 5, 3, 2), (2, 1), (1, 2)),
    ((2, 17, 4, 4), (33, 17, 3, 3), (1, 1), (1, 1)),
    ((10, 2, 12, 12), (5, 2, 3, 3), (1, 1), (1, 1)),
]


def linear_gradients(x, w, g, o, seed):
    leaves = [x.clone().requires_grad_(), w.clone().requires_grad_()]
    return torch.autograd.grad(ops.hadamard_linear(*leaves, **o.arguments(), seed=seed), leaves, g)


def check_linear(b, k, n, o, seed, signed=False, heavy=False):
    x, w, g = activations(b, k, signed=signed), weights(n, k), torch.randn(b, n)
    g = g * torch.exp(3 * torch.randn(b, n)) if heavy else g
    want = reference.hadamard_linear_backward(x, w, g, o, seed)
    for name, a, exact in zip(("dx", "dw"), linear_gradients(x, w, g, o, seed), want):
        assert_same(a, exact, f"{name}, [{b}, {k}] -> {n}, {o}")


def conv_gradients(x, w, g, stride, padding, o, seed):
    leaves = [x.clone().requires_grad_(), w.clone().requires_grad_()]
    y = ops.hadamard_conv2d(*leaves, None, stride, padding, **o.arguments(conv=True), seed=seed)
    g = torch.randn(y.shape) if g is None else g
    return g, torch.autograd.grad(y, leaves, g)


def check_conv(geometry, o, seed, signed=False):
    x_shape, w_shape, stride, padding = geometry
    x, w = activations(*x_shape, signed=signed), weights(*w_shape)
    g, got = conv_gradients(x, w, None, stride, padding, o, seed)
    want = reference.hadamard_conv2d_backward(x, w, g, stride, padding, o, seed)
    for name, a, exact in zip(("dx", "dw"), got, want):
        assert_same(a, exact, f"{name}, {geometry}, {o}")


@pytest.mark.parametrize("hadamard", ["padded", "divisor"])
@pytest.mark.parametrize("signed", [True, False])
def test_linear_equals_reference(hadamard, signed):
    for i, (b, k, n) in enumerate(SHAPES):
        check_linear(b, k, n, Options(hadamard=hadamard, **APART), 2**40 + i, signed, heavy=i % 2 == 1)


@pytest.mark.parametrize("block", [2, 8, 32, 128, 1024])
def test_every_hadamard_block(block):
    check_linear(150, 21, 37, Options(hadamard_block=block, **APART), seed=5)


def test_transforms_beyond_16_bits():
    """256 rows of codes up to 255 sum to 65280: the exact transform is int32."""
    check_linear(256, 9, 11, Options(bits=8, hadamard="divisor", accumulator_bits=16, **APART), seed=6)


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_operand_width(bits):
    for accumulator_bits in (8, 32):
        check_linear(70, 45, 13, Options(bits=bits, accumulator_bits=accumulator_bits, **APART), seed=bits)


@pytest.mark.parametrize("accumulate", ["tile_end", "every_mac"])
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_every_register(accumulate, overflow):
    for bits, tile in ((8, 32), (5, 16), (6, 7), (8, 0), (32, 32)):
        register = dict(backward_accumulator_bits=bits, backward_tile_size=tile)
        check_linear(140, 70, 37, Options(accumulate=accumulate, overflow=overflow, **register, **APART), seed=77)


@pytest.mark.parametrize("stochastic", ["", "b2a", "b2g", "b1g,b2a,b2g", "fw,fa,b1w,b1g,b2a,b2g"])
def test_every_stochastic_site(stochastic):
    for seed in (0, 2**62 - 1):
        check_linear(135, 300, 21, Options(stochastic=stochastic, **APART), seed)
        check_conv(GEOMETRIES[3], Options(stochastic=stochastic, **APART), seed)


@pytest.mark.parametrize("hadamard", ["padded", "divisor"])
def test_without_requantisation_first_rows_of_the_input_stay_exact(hadamard):
    for bits in (8, 32):
        o = Options(requantize=False, hadamard=hadamard, accumulator_bits=bits, **APART)
        check_linear(136, 33, 20, o, seed=4)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("conv_backward", ["per_sample", "batch"])
def test_conv_equals_reference(geometry, conv_backward):
    for hadamard, tile_order in (("padded", "khwc"), ("divisor", "chw")):
        o = Options(conv_backward=conv_backward, hadamard=hadamard, tile_order=tile_order, **APART)
        check_conv(geometry, o, seed=2**33 + 7)
        check_conv(geometry, o, seed=1, signed=True)


def test_a_weight_gradient_that_is_made_in_pieces():
    check_conv(((9, 120, 3, 3), (125, 120, 3, 3), (1, 1), (1, 1)), Options(**APART), seed=3)


def test_the_forward_and_the_other_gradients_do_not_change():
    x, w, bias, g = activations(80, 40, signed=False), weights(12, 40), torch.randn(12), torch.randn(80, 12)
    results = []
    for dc_row in ("together", "separate"):
        leaves = [t.clone().requires_grad_() for t in (x, w, bias)]
        y = ops.hadamard_linear(*leaves, dc_row=dc_row, seed=9)
        results.append((y, *torch.autograd.grad(y, leaves, g)))
    for i in (0, 1, 3):
        assert same_bits(results[0][i], results[1][i])
    assert not torch.equal(results[0][2], results[1][2])


@pytest.mark.parametrize("rows, options", [(33, dict(hadamard="divisor")), (64, dict(hadamard_block=1)), (1, {})])
def test_blocks_of_order_1_have_no_first_row_of_sums(rows, options):
    x, w, g = activations(rows, 20, signed=False), weights(6, 20), torch.randn(rows, 6)
    together, apart = (linear_gradients(x, w, g, Options(dc_row=d, **options), 3)[1] for d in ("together", "separate"))
    assert same_bits(together, apart)


def test_mean_of_many_draws_tends_to_the_exact_product():
    """Exact but for d_x, which rounds to nearest in 8 bits; against that product the error falls as 1 / sqrt(draws)."""
    x, w, g = activations(128, 32, signed=False), weights(16, 32), torch.randn(128, 16)
    codes, scale = reference.quantize(x, 4, signed=None, range_fraction=0.975)
    exact = (g.double().t() @ codes.double()) * scale
    zx, zg = (reference.hadamard_transform(z, 0).double().reshape(2, 64, -1) for z in (codes, g))
    d_x, u_3 = reference.quantize(zx[:, 0], 8)
    zx[:, 0] = d_x * u_3
    limit = (zg.flatten(0, 1).t() @ zx.flatten(0, 1)) * scale / 64
    assert 0 < (limit - exact).norm() < 0.005 * exact.norm()
    total, errors = torch.zeros(16, 32, dtype=torch.float64), {}
    for seed in range(256 if SCALAR else 1000):
        total += linear_gradients(x, w, g, Options(**UNLIMITED, **APART), seed)[1]
        errors[seed + 1] = float((total / (seed + 1) - limit).norm() / limit.norm())
    assert 0.2 < errors[1] < 0.4
    for n in (16, 256, 1000):
        if n in errors:
            assert errors[n] * math.sqrt(n) == pytest.approx(errors[1], rel=0.2), n


def test_a_batch_of_equal_rows_travels_in_first_rows_alone():
    """All other rows of H x are 0: what is left is the rounding of 8-bit codes."""
    x, g = torch.rand(1, 30).expand(128, 30), torch.randn(1, 8).expand(128, 8)
    w = weights(8, 30)
    codes, scale = reference.quantize(x, 4, signed=None, range_fraction=0.975)
    exact = (g.double().t() @ codes.double()) * scale
    for dc_row, low, high in (("separate", 0.0, 0.02), ("together", 0.03, 1.0)):
        dw = linear_gradients(x, w, g, Options(dc_row=dc_row, **UNLIMITED), 4)[1]
        assert low < float((dw - exact).norm() / exact.norm()) < high, dc_row


def test_zero_and_non_finite_gradients():
    x, w, o = activations(70, 10, signed=False), weights(6, 10), Options(**APART)
    assert not linear_gradients(x, w, torch.zeros(70, 6), o, 1)[1].any()
    assert not linear_gradients(torch.zeros(70, 10), w, torch.randn(70, 6), o, 1)[1].any()
    for bad in (math.nan, math.inf):
        g = torch.randn(70, 6)
        g[3, 2] = bad
        assert linear_gradients(x, w, g, o, 1)[1].isnan().all()
    assert linear_gradients(torch.zeros(0, 10), w, torch.zeros(0, 6), o, 1)[1].eq(0).all()


@pytest.mark.parametrize("script", [False, True])
def test_layers_train_with_it(script):
    """quantize_ passes the option on: eager and scripted layers give the gradient of the op."""
    layer = quintil.quantize_(nn.Linear(20, 6), quintil.HDQT(stochastic=(), **APART))
    x, g = activations(70, 20, signed=False), torch.randn(70, 6)
    (torch.jit.script(layer) if script else layer)(x).backward(g)
    o = Options(stochastic="", **APART)
    want = linear_gradients(x, layer.weight.detach(), g, o, None)[1]
    assert same_bits(layer.weight.grad, want)
    plain = linear_gradients(x, layer.weight.detach(), g, Options(stochastic=""), None)[1]
    assert not torch.equal(want, plain)


# ---- limits of the two gradients apart ---------------------------------------------------------------------


LIMITS = [(None, None), (None, 32), (32, 8), (12, 6), (None, 4), (32, None)]


@pytest.mark.parametrize("backward, own", LIMITS)
def test_each_gradient_has_its_own_limit(backward, own):
    """dx is that of a layer limited by B1's width, dw that of one limited by B2's."""
    x, w, g = activations(96, 60, signed=False), weights(70, 60), torch.randn(96, 70)
    widths = dict(backward_accumulator_bits=backward, weight_gradient_accumulator_bits=own)
    b1 = 8 if backward is None else backward
    b2 = b1 if own is None else own
    for options in (dict(backward_tile_size=0), dict(accumulate="every_mac", hadamard="divisor"), APART):
        got = linear_gradients(x, w, g, Options(**widths, **options), 5)
        for i, bits in ((0, b1), (1, b2)):
            same = linear_gradients(x, w, g, Options(backward_accumulator_bits=bits, **options), 5)
            assert same_bits(got[i], same[i]), (options, i)
        check_linear(40, 70, 37, Options(**widths, **options), seed=2)
    check_conv(GEOMETRIES[0], Options(**widths), seed=3)


def test_the_limits_under_test_act():
    x, w, g = activations(96, 60, signed=False), weights(70, 60), torch.randn(96, 70)
    several = [
        linear_gradients(x, w, g, Options(backward_accumulator_bits=b, backward_tile_size=0), 5) for b in (4, 6, 8, 32)
    ]
    for which in (0, 1):
        assert len({tuple(gradients[which].flatten().tolist()) for gradients in several}) >= 3


@pytest.mark.parametrize("accumulator_bits", [16, 20])
def test_collas2024_with_wide_accumulators(accumulator_bits):
    """[HDQT 2.6] 8-bit operands: sums of 512 products reach 8 million, far beyond 16 bits."""
    o = reference.paper_options("collas2024", 8, accumulator_bits)
    scheme = quintil.HDQT.paper("collas2024", 8, accumulator_bits)
    assert scheme.linear_options() == o.arguments()
    check_linear(512, 33, 18, o, seed=11)
    assert scheme.weight_gradient_bits == accumulator_bits and scheme.input_gradient_bits == 32
