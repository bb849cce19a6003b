"""Layers of Double Rounding: what they compute, where their steps start, what the state dict keeps [DR 2.1-2.4]."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import quintil
import torch
import torch.nn.functional as F
from conftest import assert_same, same_bits
from quintil import HDQT, DoubleRounding
from quintil.nn import (
    DoubleRoundingConv2d,
    DoubleRoundingLinear,
    HadamardLinear,
    SwitchableBatchNorm2d,
    keep_steps_positive,
)
from small_nets import Net, OwnLinear, images
from torch import nn

ops = torch.ops.quintil
WIDTHS = (8, 6, 4, 2)


def linear(scheme: DoubleRounding | None = None, inputs: int = 20, outputs: int = 7) -> DoubleRoundingLinear:
    return DoubleRoundingLinear(inputs, outputs, scheme=scheme or DoubleRounding())


def started(layer: nn.Module, x: torch.Tensor) -> nn.Module:
    """After a training forward at every width."""
    training = layer.training
    layer.train()
    with torch.no_grad():
        for width in layer.widths:
            layer.set_bits(width)
            layer(x)
    layer.set_bits(layer.widths[0])
    return layer.train(training)


# Forward ----------------------------------------------------------------------------------------------------------


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


# Steps ------------------------------------------------------------------------------------------------------------


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


# Swap -------------------------------------------------------------------------------------------------------------


def test_swaps_and_restores():
    model, x = Net(), images()
    parameters = dict(model.named_parameters())
    kinds = {name: type(m) for name, m in model.named_modules()}
    attributes = {name: set(vars(m)) for name, m in model.named_modules()}
    keys, want = list(model.state_dict()), model.eval()(x)
    quintil.quantize_(model, DoubleRounding())
    assert type(model.stem[0]) is nn.Conv2d and type(model.head) is nn.Linear  # the ends
    assert type(model.block[0]) is DoubleRoundingConv2d and type(model.stem[1]) is SwitchableBatchNorm2d
    assert isinstance(model.body["b"], OwnLinear) and model.body["b"].shout() == "MINE"
    assert not any(module.training for module in model.modules())
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in parameters.items())
    added = {key for key in set(model.state_dict()) - set(keys) if not key.endswith("num_batches_tracked")}
    assert all(".weight_quantizers.8." in k or ".input_quantizers." in k or ".norms." in k for k in added)
    float_state = Net().state_dict()
    missing, unexpected = model.load_state_dict(float_state, strict=False)
    assert set(missing) == added and unexpected == []
    for parameter, value in zip(parameters.values(), (float_state[name] for name in parameters)):
        assert same_bits(parameter, value)
    quintil.dequantize_(model)
    assert {name: type(m) for name, m in model.named_modules()} == kinds
    assert {name: set(vars(m)) for name, m in model.named_modules()} == attributes
    assert list(model.state_dict()) == keys and not torch.equal(model(x), want)  # the loaded values
    assert "scheme=DoubleRounding(), bits=8" in repr(linear())


def test_again_is_a_no_op_and_another_scheme_swaps_again():
    model = quintil.quantize_(Net(), DoubleRounding())
    quintil.set_bits(model, 4)(images())
    state = {name: dict(vars(m)) for name, m in model.named_modules()}
    quintil.quantize_(model, DoubleRounding())
    assert {name: dict(vars(m)) for name, m in model.named_modules()} == state
    quintil.quantize_(model, DoubleRounding(bits=(4, 2), skip_ends=False))
    assert type(model.stem[0]) is DoubleRoundingConv2d and list(model.stem[1].norms) == ["2"]
    assert not model.block[0].weight_quantizers["4"].ready
    quintil.quantize_(model, DoubleRounding(bits=(4, 2), switch_norm=False))
    assert type(model.stem[1]) is nn.BatchNorm2d and type(model.stem[0]) is nn.Conv2d
    quintil.quantize_(model, DoubleRounding())
    quintil.quantize_(model, HDQT())
    assert type(model.stem[1]) is nn.BatchNorm2d and isinstance(model.body["a"], HadamardLinear)
    assert sum(hasattr(module, "input_quantizers") for module in model.modules()) == 0


def test_ends_are_those_of_the_whole_model():
    """Also where they are skipped or cannot be taken; a model of ends alone has nothing to swap."""
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    quintil.quantize_(model, DoubleRounding(), skip="4")
    assert [type(m) for m in model] == [nn.Conv1d, nn.Flatten, *[DoubleRoundingLinear] * 2, nn.Linear]
    with pytest.raises(ValueError, match=r"got none \(the first and the last stay in float32\)$"):
        quintil.quantize_(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)), DoubleRounding())
    with pytest.raises(ValueError, match=r"got '0' \(Conv1d has no version in DoubleRounding\)"):
        quintil.quantize_(model, DoubleRounding(skip_ends=False))
    with pytest.raises(
        TypeError, match="^DoubleRoundingLinear: expected scheme to be of class DoubleRounding, got HDQT"
    ):
        DoubleRoundingLinear(2, 2, scheme=HDQT())


def test_copies_and_pickles():
    model, x = quintil.quantize_(Net(), DoubleRounding()), images()
    with torch.no_grad():
        quintil.set_bits(model, 4)(x)
    model.eval()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert same_bits(twin(x), model(x)) and isinstance(twin.body["b"], OwnLinear)
        assert twin.body["a"].scheme == DoubleRounding() and twin.body["a"].bits == 4
        quintil.dequantize_(twin)
    assert model.body["a"].bits == 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype):
    layer = DoubleRoundingLinear(6, 3, dtype=dtype, scheme=DoubleRounding())
    x = torch.rand(4, 6).to(dtype)
    y = layer(x)
    assert y.dtype == dtype and layer.weight_quantizers["8"].step.dtype == torch.float32
    y.sum().backward()
    assert layer.weight.grad.dtype == dtype and layer.weight_quantizers["8"].step.grad.dtype == torch.float32
