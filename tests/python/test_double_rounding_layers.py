"""Layers of Double Rounding: what they compute, what gradients reach, and that they learn [DR 2.1-2.4]."""

from __future__ import annotations

import pytest
import quintil
import torch
import torch.nn.functional as F
from conftest import assert_same, same_bits
from quintil import DoubleRounding
from quintil.nn import DoubleRoundingConv2d, DoubleRoundingLinear
from small_double_rounding import WIDTHS, linear, started
from small_nets import Net, images
from torch import nn

ops = torch.ops.quintil


@pytest.mark.parametrize("width", WIDTHS)
def test_linear_computes_what_the_ops_compute(width):
    layer, x = linear(), torch.rand(9, 20)
    started(layer, x).set_bits(width)
    w_step, x_step = layer.weight_quantizers["8"].step, layer.input_quantizers[str(width)].step
    w = ops.double_round_quantize(layer.weight, w_step, 8, width)
    assert_same(layer(x), F.linear(ops.lsq_quantize(x, x_step, width), w, layer.bias))
    stored = quintil.functional.quantize(layer.weight, 8, signed=True, narrow=False, scale=w_step)[0]
    codes = ops.double_round(stored, 8, width)
    assert_same(layer.quantized_weight(), codes * (w_step * 2 ** (8 - width))[:, None])
    assert len(layer.quantized_input(x).unique()) <= 2**width


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("groups, padding_mode", [(1, "zeros"), (2, "zeros"), (4, "reflect")])
def test_conv2d_computes_what_the_ops_compute(width, groups, padding_mode):
    geometry = {"stride": 2, "padding": (1, 2), "dilation": (1, 2), "groups": groups, "padding_mode": padding_mode}
    layer = DoubleRoundingConv2d(4, 8, 3, **geometry, scheme=DoubleRounding())
    plain, x = nn.Conv2d(4, 8, 3, **geometry), torch.rand(2, 4, 9, 8)
    started(layer, x).set_bits(width)
    plain.bias = layer.bias
    plain.weight = nn.Parameter(ops.double_round_quantize(layer.weight, layer.weight_quantizers["8"].step, 8, width))
    assert_same(layer(x), plain(ops.lsq_quantize(x, layer.input_quantizers[str(width)].step, width)))
    assert same_bits(layer(x[0]), layer(x[:1])[0])


@pytest.mark.parametrize(
    "options",
    [
        {"weight_source": "float"},
        {"rounding": "floor"},
        {"rounding": "half_up", "mask_on": "rounded", "scale_residual": "single", "scale_grad_sum": "all"},
        {"chain_pow2": True},
    ],
    ids=str,
)
def test_options_of_the_scheme_reach_the_op(options):
    layer, x = linear(DoubleRounding(**options)), torch.rand(9, 20)
    started(layer, x).set_bits(2)
    step = layer.weight_quantizers["8"].step
    layer(x).square().sum().backward()
    got, layer.weight.grad, step.grad = (layer.weight.grad, step.grad), None, None
    w = ops.double_round_quantize(layer.weight, step, 8, 2, **options)
    mask = {"mask_on": options.get("mask_on", "scaled")}
    y = F.linear(ops.lsq_quantize(x, layer.input_quantizers["2"].step, 2, **mask), w, layer.bias)
    want = torch.autograd.grad(y.square().sum(), (layer.weight, step))
    for a, b in zip(got, want):
        assert_same(a, b)
    plain = ops.double_round_quantize(layer.weight, step, 8, 2)
    if "weight_source" in options or "rounding" in options:
        assert not torch.equal(w, plain)


def test_a_step_per_width():
    """shared_step=False: each width rounds the float weight once, to its own grid."""
    layer, x = linear(DoubleRounding(bits=(4, 3, 2), shared_step=False)), torch.rand(9, 20)
    started(layer, x).set_bits(3)
    quantizers = layer.weight_quantizers
    assert list(quantizers) == ["4", "3", "2"]
    assert same_bits(layer.quantized_weight(), ops.double_round_quantize(layer.weight, quantizers["3"].step, 3, 3))
    ratios = quantizers["2"].step / quantizers["4"].step
    assert torch.allclose(ratios, torch.full_like(ratios, 4.0))
    layer(x).sum().backward()
    assert quantizers["3"].step.grad is not None and quantizers["4"].step.grad is quantizers["2"].step.grad is None


def test_switching_forth_and_back_is_bit_identical():
    """T11."""
    model = quintil.quantize_(Net(), DoubleRounding(skip_ends=False))
    x = images().relu()
    with torch.no_grad():
        for width in WIDTHS:
            quintil.set_bits(model, width)(x)
        before = {width: quintil.set_bits(model.eval(), width)(x) for width in WIDTHS}
        for width in (8, 2, 8, 6, 4):
            assert same_bits(quintil.set_bits(model, width)(x), before[width])
    assert len({y.sum().item() for y in before.values()}) == 4


def test_gradients_reach_what_is_in_use_alone():
    model = quintil.quantize_(Net(), DoubleRounding(bits=(4, 2), skip_ends=False))
    quintil.set_bits(model, 2)(images().relu()).square().sum().backward()
    got = {name for name, p in model.named_parameters() if p.grad is not None}
    absent = {name for name, _ in model.named_parameters()} - got
    assert absent == {
        "stem.1.weight", "stem.1.bias",
        *(f"{layer}.input_quantizers.4.step" for layer in ("stem.0", "block.0", "body.a", "body.b", "head")),
    }  # fmt: skip
    assert all(torch.count_nonzero(p.grad) > 0 for p in model.parameters() if p.grad is not None)


def test_training_learns_at_every_width():
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    quintil.quantize_(model, DoubleRounding())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    y = torch.arange(64) % 4
    x = torch.randn(4, 16)[y] + 0.3 * torch.randn(64, 16)
    losses = []
    for _ in range(40):
        for width in WIDTHS:
            loss = F.cross_entropy(quintil.set_bits(model, width)(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert max(losses[-4:]) < 0.3 * min(losses[:4])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype):
    layer = DoubleRoundingLinear(6, 3, dtype=dtype, scheme=DoubleRounding())
    x = torch.rand(4, 6).to(dtype)
    y = layer(x)
    assert y.dtype == dtype and layer.weight_quantizers["8"].step.dtype == torch.float32
    y.sum().backward()
    assert layer.weight.grad.dtype == dtype and layer.weight_quantizers["8"].step.grad.dtype == torch.float32
