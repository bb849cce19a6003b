"""Where random bits come from: one seed per call, drawn from PyTorch's generator at the outermost layer."""

import pytest
import quintil.functional as F
import torch
from conftest import activations, assert_same, weights
from torch.utils.checkpoint import checkpoint

SEEDS = [0, 1, 2, 2**32, 2**62 - 1]


def linear_gradient(seed=None, **options):
    x, w = torch.linspace(-1, 1, 60).reshape(6, 10).requires_grad_(), torch.linspace(-1, 1, 50).reshape(5, 10)
    y = F.hadamard_linear(x, w, seed=seed, **options)
    return torch.autograd.grad(y, x, torch.linspace(-2, 3, 30).reshape(6, 5))[0]


def conv_gradient(seed=None, **options):
    x, w = torch.linspace(-1, 1, 108).reshape(2, 6, 3, 3).requires_grad_(), torch.linspace(-1, 1, 270).reshape(
        5, 6, 3, 3
    )
    y = F.hadamard_conv2d(x, w, padding=1, seed=seed, **options)
    return torch.autograd.grad(y, x, torch.linspace(-2, 3, 90).reshape(2, 5, 3, 3))[0]


def conv_norm_gradient(seed=None, **options):
    x, w = torch.linspace(-1, 1, 108).reshape(2, 6, 3, 3).requires_grad_(), torch.linspace(-1, 1, 270).sin()
    y, *_ = F.hadamard_conv2d_batch_norm(
        x, w.reshape(5, 6, 3, 3), torch.ones(5), torch.zeros(5), padding=1, relu=False, seed=seed, **options
    )
    return torch.autograd.grad(y, x, torch.linspace(-2, 3, 90).cos().reshape(2, 5, 3, 3))[0]


@pytest.mark.parametrize("gradient", [linear_gradient, conv_gradient, conv_norm_gradient])
def test_two_calls_differ_and_manual_seed_repeats(gradient):
    torch.manual_seed(5)
    first, second = gradient(), gradient()
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert_same(gradient(), first)
    assert_same(gradient(), second)


@pytest.mark.parametrize("gradient", [linear_gradient, conv_gradient, conv_norm_gradient])
def test_generator_and_seed_arguments(gradient):
    drawn = gradient(generator=torch.Generator().manual_seed(3))
    state = torch.get_rng_state()
    assert_same(gradient(generator=torch.Generator().manual_seed(3)), drawn)
    seed = int(torch.randint(0, 2**62, (), generator=torch.Generator().manual_seed(3)))
    assert_same(gradient(seed=seed), drawn)
    assert torch.equal(state, torch.get_rng_state()), "a given seed or generator must leave the default generator alone"


@pytest.mark.parametrize("gradient", [linear_gradient, conv_gradient, conv_norm_gradient])
def test_every_seed_is_ordinary(gradient):
    """Zero too: no value of the seed switches the randomness off."""
    results = [gradient(seed=s) for s in SEEDS]
    for i, a in enumerate(results):
        assert_same(gradient(seed=SEEDS[i]), a)
        for b in results[:i]:
            assert not torch.equal(a, b)
    nearest = gradient(stochastic="")
    assert not any(torch.equal(nearest, a) for a in results)


def test_nothing_is_drawn_when_no_gradient_can_flow():
    x, w = activations(4, 8), weights(3, 8)
    image, kernel = activations(1, 3, 5, 5), weights(2, 3, 3, 3)
    leaf = w.clone().requires_grad_()
    state = torch.get_rng_state()
    F.hadamard_linear(x, w)
    F.hadamard_conv2d(image, kernel)
    with torch.no_grad():
        F.hadamard_linear(x, leaf)
    with torch.inference_mode():
        F.hadamard_linear(x, leaf)
    assert torch.equal(state, torch.get_rng_state())
    F.hadamard_linear(x, leaf)
    assert not torch.equal(state, torch.get_rng_state())


def test_checkpointing_replays_the_draw():
    x = activations(8, 12).requires_grad_()
    w = [weights(12, 12).requires_grad_() for _ in range(2)]

    def layers(x):
        return F.hadamard_linear(F.hadamard_linear(x, w[0]).relu(), w[1])

    g = torch.randn(8, 12)
    torch.manual_seed(1)
    plain = torch.autograd.grad(layers(x), (x, *w), g)
    torch.manual_seed(1)
    replayed = torch.autograd.grad(checkpoint(layers, x, use_reentrant=False), (x, *w), g)
    for a, b in zip(replayed, plain):
        assert_same(a, b)


def test_operands_of_one_call_draw_apart():
    """With hadamard='none' B1 and B2 quantise the same gradient, with different bits."""
    n = 16
    x, w, g = torch.eye(n).requires_grad_(), torch.eye(n).requires_grad_(), torch.randn(n, n)
    y = torch.ops.quintil.hadamard_linear(x, w, seed=7, hadamard="none", accumulator_bits=32, stochastic="b1g,b2g")
    dx, dw = torch.autograd.grad(y, (x, w), g)
    assert torch.allclose(dx, dw.t(), atol=float(g.abs().max()) / 7 * 1.01)
    assert not torch.equal(dx, dw.t())
