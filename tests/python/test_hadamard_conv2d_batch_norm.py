"""`hadamard_conv2d_batch_norm`: near the separate layers in double, and every bit as the stated float law says."""

import math

import pytest
import quintil.functional as F
import reference
import torch
from conftest import activations, assert_same, weights
from reference import Options

op = torch.ops.quintil.hadamard_conv2d_batch_norm
DEFAULTS = Options()
APART = Options(dc_row="separate", weight_gradient_accumulator_bits=6)
# x, weight, stride, padding
GEOMETRIES = [
    ((2, 3, 8, 8), (4, 3, 3, 3), (1, 1), (1, 1)),
    ((3, 5, 7, 6), (9, 5, 3, 2), (2, 1), (1, 2)),
    ((2, 16, 6, 6), (16, 16, 3, 3), (1, 1), (1, 1)),
    ((1, 2, 40, 41), (3, 2, 1, 1), (1, 1), (0, 0)),
    ((9, 2, 5, 5), (33, 2, 3, 3), (2, 2), (0, 0)),
]


def inputs(geometry, residual=True):
    x_shape, w_shape, stride, padding = geometry
    x, w = activations(*x_shape), weights(*w_shape)
    gamma, beta = torch.rand(w_shape[0]) + 0.5, torch.randn(w_shape[0])
    shape = torch.nn.functional.conv2d(x, w, None, stride, padding).shape
    return x, w, gamma, beta, torch.randn(shape) if residual else None


def call(tensors, geometry, *, relu=True, o=DEFAULTS, seed=5, g=None):
    leaves = [None if t is None else t.detach().clone().requires_grad_() for t in tensors]
    y, mean, variance = op(*leaves, *geometry[2:], [1, 1], relu=relu, seed=seed, **o.arguments(conv=True))
    g = torch.randn(y.shape) if g is None else g
    got = torch.autograd.grad(y, [leaf for leaf in leaves if leaf is not None], g)
    return y.detach(), mean, variance, g, got


def by_rows(image):
    return image.permute(0, 2, 3, 1).reshape(-1, image.size(1))


def in_double(conv, tensors, relu):
    """relu(batch_norm(conv) + residual) by PyTorch in float64, with the leaves of the norm."""
    conv, gamma, beta = (t.double().requires_grad_() for t in (conv, tensors[2], tensors[3]))
    residual = None if tensors[4] is None else tensors[4].double().requires_grad_()
    y = torch.nn.functional.batch_norm(conv, None, None, gamma, beta, training=True, eps=1e-5)
    y = y if residual is None else y + residual
    return (y.relu() if relu else y), [t for t in (conv, gamma, beta, residual) if t is not None]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_near_the_separate_layers(geometry, relu, residual):
    tensors = inputs(geometry, residual)
    y, mean, variance, g, got = call(tensors, geometry, relu=relu)
    conv = reference.hadamard_conv2d(*tensors[:2], None, *geometry[2:])
    want, leaves = in_double(conv, tensors, relu)
    torch.testing.assert_close(y.double(), want.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mean.double(), conv.double().mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(variance.double(), conv.double().var((0, 2, 3), correction=0), rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad(want, leaves, g.double())
    for a, b in zip(
        got[2:], gradients[1:]
    ):  # gamma, beta, residual; a sum near 0 may sit on the other side of the ReLU
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-3)


def law(sums, step, gamma, beta, residual, relu, grad, eps=1e-5):
    """y and the gradients in the stated order of roundings, on rows [values, channels]; float32 throughout."""
    n = sums.size(0)
    total, squares = sums.long().sum(0).double(), (sums.long() ** 2).sum(0).double()
    centre = total / n
    variance = ((squares - total * centre) / n).clamp(min=0) * step * step
    scale = step / (variance + eps).sqrt()
    shift = -centre * scale
    a, b = gamma.double(), beta.double()
    z = sums.float() * (a * scale).float() + (a * shift + b).float()
    z = z if residual is None else z + residual
    g = torch.where(z <= 0, 0.0, grad) if relu else grad
    normalised = sums.float() * scale.float() + shift.float()
    means = []
    sums_of = []
    for product in (g, g * normalised):
        parts = []
        for chunk in product.split(1024):
            part = torch.zeros(product.size(1))
            for row in chunk:
                part = part + row
            parts.append(part)
        together = torch.zeros(product.size(1))
        for part in parts:
            together = together + part
        sums_of.append(together)
        means.append((together.double() / n).float())
    gain = (a / (variance + eps).sqrt()).float()
    dy = ((g - means[0]) - normalised * means[1]) * gain
    return z.relu() if relu else z, dy, sums_of[1], sums_of[0], g


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("o", [DEFAULTS, APART], ids=["together", "apart"])
def test_every_bit_follows_the_law(geometry, relu, o):
    tensors = inputs(geometry)
    x, w, gamma, beta, residual = tensors
    y, _, _, g, got = call(tensors, geometry, relu=relu, o=o, seed=11)
    taps, codes, sx, wc, sw = reference._conv_operands(x, w, *geometry[2:], o, 11)
    sums = reference.multiply(codes.reshape(-1, codes.size(2)), wc.t(), o, o.forward_register())
    step = torch.as_tensor(sw).double() * torch.as_tensor(sx).double()
    want = law(sums, step, gamma, beta, by_rows(residual), relu, by_rows(g))
    assert_same(by_rows(y), want[0], "y")
    dy = want[1].reshape(y.size(0), *y.shape[2:], -1).permute(0, 3, 1, 2)
    dx, dw, _ = reference.hadamard_conv2d_backward(x, w, dy, *geometry[2:], o, 11)
    for name, a, b in zip(("dx", "dw", "gamma", "beta", "residual"), got, (dx, dw, want[2], want[3], None)):
        assert_same(a, b, name) if b is not None else assert_same(by_rows(a), want[4], name)


@pytest.mark.parametrize("geometry", [GEOMETRIES[2], GEOMETRIES[4]], ids=str)  # one block of samples, two
@pytest.mark.parametrize("threads", [1, 3])
def test_every_gradient_alone_is_that_among_all(geometry, threads):
    """Whichever of them are wanted, and whether one loop over the samples makes them or two."""
    tensors = inputs(geometry)
    *_, g, all_five = call(tensors, geometry)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for i, want in enumerate(all_five):
            leaves = [t.detach().clone().requires_grad_(k == i) for k, t in enumerate(tensors)]
            y, *_ = op(*leaves, *geometry[2:], [1, 1], seed=5, **DEFAULTS.arguments(conv=True))
            assert_same(torch.autograd.grad(y, leaves[i], g)[0], want, str(i))
        *_, again = call(tensors, geometry, g=g)
        for i, (a, b) in enumerate(zip(again, all_five)):
            assert_same(a, b, str(i))
    finally:
        torch.set_num_threads(before)


def test_the_separate_layers_and_the_op_give_one_model_the_same_step():
    """A whole step of conv, norm, add, relu in float32 ends within rounding of the fused one."""
    geometry = GEOMETRIES[2]
    tensors = inputs(geometry)
    x, w, gamma, beta, residual = (t.clone().requires_grad_() for t in tensors)
    conv = F.hadamard_conv2d(x, w, None, 1, 1, seed=3, stochastic="")
    y = (torch.nn.functional.batch_norm(conv, None, None, gamma, beta, training=True) + residual).relu()
    g = torch.randn(y.shape)
    want = torch.autograd.grad(y, (x, w, gamma, beta, residual), g)
    fused, *_, got = call(tensors, geometry, o=Options(stochastic=""), g=g)
    torch.testing.assert_close(fused, y.detach(), rtol=1e-4, atol=1e-4)
    for a, b in zip(got, want):
        assert (a - b).norm() < 0.02 * b.norm()  # codes of the gradient may fall on the other side of a tie


def test_saved_bytes_are_codes():
    x, w, gamma, beta, _ = inputs(((8, 16, 16, 16), (16, 16, 3, 3), (1, 1), (1, 1)), residual=False)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y, *_ = op(x.requires_grad_(), w.requires_grad_(), gamma, beta, None, [1, 1], [1, 1], seed=1)
    saved = sum(t.numel() * t.element_size() for t in kept)
    assert saved < 2.7 * y.numel()
    assert all(not t.is_floating_point() or t.numel() <= 16 * 4 for t in kept)


def test_evaluation_gives_the_same_forward_and_draws_nothing():
    tensors = inputs(GEOMETRIES[1])
    with torch.inference_mode():
        got = op(*tensors, *GEOMETRIES[1][2:], [1, 1])
    want = call(tensors, GEOMETRIES[1])
    for a, b in zip(got, want[:3]):
        assert_same(a, b)
    state = torch.get_rng_state()
    F.hadamard_conv2d_batch_norm(*tensors, *GEOMETRIES[1][2:])
    assert torch.equal(state, torch.get_rng_state())


def test_memory_format_and_dtype_follow_x():
    x, w, gamma, beta, residual = inputs(GEOMETRIES[2])
    plain, *_ = F.hadamard_conv2d_batch_norm(x, w, gamma, beta, residual, 1, 1, seed=1)
    last, *_ = F.hadamard_conv2d_batch_norm(
        x.to(memory_format=torch.channels_last), w, gamma, beta, residual, 1, 1, seed=1
    )
    assert plain.is_contiguous() and last.is_contiguous(memory_format=torch.channels_last)
    assert_same(plain, last)
    half, mean, variance = F.hadamard_conv2d_batch_norm(x.bfloat16(), w, gamma, beta, None, 1, 1, seed=1)
    assert (half.dtype, mean.dtype, variance.dtype) == (torch.bfloat16, torch.float32, torch.float32)


def test_not_a_number_in_is_not_a_number_out():
    x, w, gamma, beta, residual = inputs(GEOMETRIES[0])
    x[0, 0, 0, 0] = math.nan
    y, mean, variance = op(x, w, gamma, beta, residual, [1, 1], [1, 1])
    assert y.isnan().all() and mean.isnan().all() and variance.isnan().all()


def test_zero_input_gives_beta():
    x, w, gamma, beta, _ = inputs(GEOMETRIES[0], residual=False)
    y, mean, variance = op(torch.zeros_like(x), w, gamma, beta, None, [1, 1], [1, 1], relu=False)
    assert_same(y, beta.reshape(1, -1, 1, 1).expand_as(y).contiguous())
    assert not mean.any() and not variance.any()


def test_a_second_derivative_and_a_missing_seed_are_refused():
    tensors = [t.requires_grad_() for t in inputs(GEOMETRIES[0])]
    y, *_ = op(*tensors, [1, 1], [1, 1], seed=1)
    with pytest.raises(NotImplementedError, match="expected a first derivative"):
        torch.autograd.grad(y.square().sum(), tensors[0], create_graph=True)
    y, *_ = op(*tensors, [1, 1], [1, 1])
    with pytest.raises(ValueError, match="expected seed to be an integer"):
        y.sum().backward()
