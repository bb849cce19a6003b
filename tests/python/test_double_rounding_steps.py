"""Steps of Double Rounding: where they start, that they start once, what the state dict keeps [DR 2.1-2.4]."""

from __future__ import annotations

import io
import math

import pytest
import quintil
import torch
from conftest import assert_same, same_bits
from quintil import DoubleRounding
from quintil.nn import DoubleRoundingConv2d, keep_steps_positive
from small_double_rounding import WIDTHS, linear, started
from small_nets import Net, images
from torch import nn


def test_weight_steps_start_from_the_spread():
    """D9, per channel and per tensor, from the training forward and not from the swap."""
    layer, x = linear(), torch.rand(9, 20)
    with torch.no_grad():
        layer.weight.mul_(3.0).add_(0.1)
    layer.set_bits(2)
    layer(x)
    rows = layer.weight.detach().double()
    mean, spread = rows.mean(1), 3 * rows.std(1)
    want = torch.maximum((mean - spread).abs(), (mean + spread).abs()) / 128
    torch.testing.assert_close(layer.weight_quantizers["8"].step.double(), want, rtol=1e-6, atol=0)
    layer = linear(DoubleRounding(bits=(4, 2), per_channel=False))
    layer(x)
    want = 2 * layer.weight.detach().abs().mean() / math.sqrt(7)
    torch.testing.assert_close(layer.weight_quantizers["4"].step.detach(), want)
    narrow = DoubleRoundingConv2d(3, 3, 1, groups=3, scheme=DoubleRounding())  # one weight per channel
    narrow(torch.rand(1, 3, 2, 2))
    assert same_bits(narrow.weight_quantizers["8"].step, narrow.weight.detach().flatten().abs() / 128)


def rounding_errors(rows: torch.Tensor, steps: torch.Tensor, bits: int) -> torch.Tensor:
    """Squared errors of rows [C, K] on the grid of steps [C, S] in float64: [C, S]."""
    rows, steps = rows.double()[:, None], steps.double()[..., None]
    codes = (rows / steps).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (codes * steps - rows).square().sum(-1)


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_weight_steps_start_from_vecq(per_channel, bits):
    """Close to the best grid by brute force, whatever the shape of the numbers."""
    for draw in (torch.distributions.Laplace(0.0, 1.0), torch.distributions.Normal(0.0, 1.0)):
        weight = draw.sample((3, 4000)) * torch.tensor([[0.1], [1.0], [7.0]] if per_channel else [[0.1]] * 3)
        steps = {}
        for init in ("lsq", "vecq"):
            layer = linear(DoubleRounding(bits=(bits,), per_channel=per_channel, weight_init=init), 4000, 3)
            with torch.no_grad():
                layer.weight.copy_(weight)
            layer(torch.rand(2, 4000))
            steps[init] = layer.weight_quantizers[str(bits)].step.detach()
        rows = weight if per_channel else weight.reshape(1, -1)
        candidates = rows.std(1, keepdim=True).double() * torch.logspace(-2.5, 0.5, 400, dtype=torch.float64)
        best = rounding_errors(rows, candidates, bits).amin(1)
        error = {init: rounding_errors(rows, step.reshape(-1, 1), bits)[:, 0] for init, step in steps.items()}
        assert bool((error["vecq"] < 1.1 * best).all()) and bool((error["vecq"] < 1.01 * error["lsq"]).all())


def test_vecq_starts_without_spread():
    """Equal numbers lie on the outermost levels; the first step of one bit is LSQ's; zeros have the smallest step."""
    layer = linear(DoubleRounding(bits=(4, 1), per_channel=False, shared_step=False, weight_init="vecq"))
    with torch.no_grad():
        layer.weight.fill_(0.3)
    started(layer, torch.rand(9, 20))
    assert layer.weight_quantizers["4"].step.item() == pytest.approx(0.3 / 7.5, rel=1e-5)
    assert layer.weight_quantizers["1"].step.item() == pytest.approx(2 * 0.3, rel=1e-5)
    layer = linear(DoubleRounding(weight_init="vecq"))
    with torch.no_grad():
        layer.weight.zero_()
    assert_same(layer(torch.rand(9, 20)), layer.bias.expand(9, 7))
    assert bool((layer.weight_quantizers["8"].step == torch.tensor(1e-8)).all())


@pytest.mark.parametrize("signed", [False, True])
def test_input_steps_start_from_percentiles(signed):
    """D12: values of rank round(.999 n) from below and above."""
    layer = linear(DoubleRounding(activation_signed=signed))
    x = torch.randperm(10_000).float().reshape(500, 20) - (5000 if signed else 0)
    for width in WIDTHS:
        layer.set_bits(width)
        layer(x)
        want = (9990 - 1 - 10) / (2**width - 1)  # ranks 9990 and 11 of 0, 1, 2, ...
        assert layer.input_quantizers[str(width)].step.item() == pytest.approx(want, rel=1e-6)


def test_other_starts_of_input_steps():
    x = torch.randn(40, 20)
    layer = linear(DoubleRounding(activation_init="lsq"))
    layer(x)
    want = 2 * x.abs().mean().item() / math.sqrt(255)
    assert layer.input_quantizers["8"].step.item() == pytest.approx(want, rel=1e-6)
    layer = linear(DoubleRounding(activation_offset=True, bits=(4, 2)))
    layer(x)
    quantizer = layer.input_quantizers["4"]
    assert quantizer.step.item() == pytest.approx((x.max() - x.min()).item() / 15, rel=1e-6)
    assert quantizer.offset.item() == x.min().item()
    assert (layer.quantized_input(x) - x).abs().max() <= 0.501 * quantizer.step
    layer(x).square().sum().backward()
    assert quantizer.offset.grad is not None and layer.input_quantizers["2"].offset.grad is None


def test_each_width_starts_once_in_its_first_training_forward():
    layer = linear()
    steps = {width: layer.input_quantizers[str(width)].step for width in WIDTHS}
    layer(torch.rand(5, 20))
    first = steps[8].item()
    layer(100 * torch.rand(5, 20))
    assert steps[8].item() == first and all(steps[width].item() == 1.0 for width in (6, 4, 2))
    layer.set_bits(4)
    layer(100 * torch.rand(5, 20))
    assert steps[4].item() > 1.0 and [bool(q.ready) for q in layer.input_quantizers.values()] == [
        True,
        False,
        True,
        False,
    ]
    layer.eval().set_bits(6)
    with pytest.raises(
        RuntimeError, match="^6 bits: expected a training forward at this width before others, got none"
    ):
        layer(torch.rand(5, 20))
    assert not layer.input_quantizers["6"].ready


def test_a_reloaded_state_does_not_start_again():
    """T11: steps, flags and BatchNorms of every width survive."""
    model = quintil.quantize_(Net(), DoubleRounding(skip_ends=False))
    x, buffer = images().relu(), io.BytesIO()
    for width in WIDTHS:
        quintil.set_bits(model, width)(x * width)
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    twin = quintil.quantize_(Net(), DoubleRounding(skip_ends=False))
    twin.load_state_dict(torch.load(buffer, weights_only=True))
    other = 100 * images().relu()
    for width in (2, 8, 4, 6):
        with torch.no_grad():
            assert same_bits(quintil.set_bits(twin, width)(other), quintil.set_bits(model, width)(other))
    states = model.state_dict()
    assert all(same_bits(value, states[key]) for key, value in twin.state_dict().items())


def test_steps_stay_positive():
    layer, x = linear(), torch.rand(9, 20)
    layer(x)
    steps = [layer.weight_quantizers["8"].step, layer.input_quantizers["8"].step]
    for keep in (lambda: layer(x), lambda: keep_steps_positive(nn.Sequential(layer))):
        for step in steps:
            with torch.no_grad():
                step.view(-1)[0] = -0.5
        keep()
        assert all(step.view(-1)[0].item() == pytest.approx(1e-8) and bool((step > 0).all()) for step in steps)
