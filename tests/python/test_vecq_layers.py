"""Linear layers and convolutions of VecQ: what they compute in training and, in evaluation, on integers [VECQ 2.9]."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_same
from quintil import VecQ
from small_vecq import levels_of, made, makers, started
from torch import nn

ops = torch.ops.quintil

# Forward ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits, activations", [(2, None), (4, 8), (12, 3)])
@pytest.mark.parametrize("kind", makers())
def test_training_computes_what_the_ops_compute(kind, bits, activations):
    layer, plain, x = made(kind, VecQ(bits, activations))
    plain.weight = nn.Parameter(levels_of(layer.weight, bits))
    plain.bias = None if layer.bias is None else nn.Parameter(levels_of(layer.bias, bits))
    inputs = x if activations is None else levels_of(x, activations)
    assert_same(layer(x), plain(inputs))
    g = torch.randn(plain(inputs).shape)
    layer(x).backward(g)
    plain(inputs).backward(g)
    assert_same(layer.weight.grad, plain.weight.grad)
    values, lengths = layer.levels()
    assert len(values.unique()) <= 2 ** bits and not (values == 0).any()
    assert_same(layer.quantized_weight(), values * lengths)


@pytest.mark.parametrize(
    "options, step_options",
    [
        (dict(per_channel=True), dict(per_channel=True)),
        (dict(group_size=5), dict(group_size=5)),
        (dict(lambda_mode="search"), dict(lambda_mode="search")),
        (dict(sigma="unbiased"), dict(sigma="unbiased")),
    ],
    ids=str,
)
def test_options_of_the_step(options, step_options):
    layer, _, x = made("linear", VecQ(3, quantize_bias=False, **options))
    assert_same(layer(x), F.linear(x, levels_of(layer.weight, 3, **step_options), layer.bias))


def test_options_of_length_and_gradient():
    for drive in ("norm", "none"):
        layer, _, x = made("linear", VecQ(2, drive=drive, quantize_bias=False))
        assert_same(layer(x), F.linear(x, ops.vecq_quantize(layer.weight, 2, drive=drive)[0], layer.bias))
    layer, _, x = made("linear", VecQ(2, grad_mode="pwl_c", grad_ratio=0.5, quantize_bias=False))
    w = layer.weight.detach().clone().requires_grad_()
    want = F.linear(x, ops.vecq_quantize(w, 2, grad_mode="pwl_c", grad_ratio=0.5)[0], layer.bias)
    assert_same(layer(x), want)
    g = torch.randn(want.shape)
    layer(x).backward(g)
    assert_same(layer.weight.grad, torch.autograd.grad(want, w, g)[0])
    assert (layer.weight.grad == 0).any()
    assert len(layer.eval().quantized_weight().unique()) <= 4, "evaluation has no ratio"


def test_activations_of_the_output():
    layer, _, x = made("linear", VecQ(4, 5, activation_place="output"))
    y = F.linear(x, layer.quantized_weight(), layer.quantized_bias())
    assert_same(layer(x), levels_of(y, 5))
    started(layer, x)
    assert len(layer(x).unique()) <= 32 and not layer.uses_integers()


# Integers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits, activations", list(itertools.product((1, 2, 4, 7, 8), (1, 4, 7, 8))))
@pytest.mark.parametrize("kind", ["linear", "conv1d", "conv2d", "plain conv2d", "same conv2d"])
def test_evaluation_multiplies_integers_t11(kind, bits, activations):
    for per_channel in (False, True):
        layer, _, x = made(kind, VecQ(bits, activations, per_channel=per_channel))
        started(layer, x)
        want = layer(x)  # gradients are enabled: float32
        assert not layer.uses_integers()
        with torch.no_grad():
            assert layer.uses_integers()
            got = layer(x)
            single = layer(x[0])
        torch.testing.assert_close(got, want, rtol=1e-5, atol=2e-5)
        torch.testing.assert_close(single, got[0], rtol=1e-6, atol=1e-6)
        assert not got.requires_grad and got.is_contiguous() == want.is_contiguous()


def test_odd_integers_and_sums_are_the_same_product_t11():
    x, w = torch.randint(-64, 64, (9, 40)).to(torch.int8), torch.randint(-64, 64, (6, 40)).to(torch.int8)
    half = torch.tensor(1.0)
    exact = (x.double() + 0.5) @ (w.double() + 0.5).t()
    odd = ops.int_linear(x, half, w, half, x_zero2=-1, weight_zero2=-1)
    sums = ops.int_linear(x, half, w, half) + 0.5 * x.sum(1)[:, None] + 0.5 * w.sum(1) + 10
    assert_same(odd.double(), exact)
    assert_same(sums.double(), exact)


@pytest.mark.parametrize("kind", ["linear", "conv1d", "conv2d"])
def test_empty_batches_and_zeros(kind):
    layer, _, x = made(kind, VecQ(4, 8))
    started(layer, x)
    with torch.no_grad():
        assert layer(x[:0]).shape == (0, *layer(x).shape[1:])
        assert layer.train()(x[:0]).shape[0] == 0
        layer.weight.zero_()
        for mode in (True, False):
            bias = layer.quantized_bias().reshape(-1, *[1] * (x.dim() - 2))
            torch.testing.assert_close(layer.train(mode)(x), bias.expand(layer(x).shape), rtol=0, atol=0)


def test_kept_codes_follow_every_change():
    layer, _, x = made("linear", VecQ(4, 4))
    started(layer, x)

    def check() -> torch.Tensor:
        want = layer(x)
        with torch.no_grad():
            got = layer(x)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
        return got

    before = check()
    with torch.no_grad():
        layer.weight.mul_(-1)
    assert not torch.equal(check(), before)
    before = check()
    with torch.no_grad():
        layer.bias.add_(1)
    assert not torch.equal(check(), before)
    before = check()
    layer.weight = nn.Parameter(layer.weight.detach() + 0.5)
    assert not torch.equal(check(), before)
    with torch.inference_mode():
        layer.weight = nn.Parameter(torch.randn(7, 20), requires_grad=False)
        assert torch.isfinite(layer(x)).all()
