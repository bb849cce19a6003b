"""Linear layers and convolutions of VecQ: what they compute, on which numbers, and what they keep [VECQ 2.5-2.9]."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import quintil
import torch
import torch.nn.functional as F
from conftest import assert_same, same_bits
from quintil import VecQ
from quintil.nn import VecQConv1d, VecQConv2d, VecQConvTranspose2d, VecQLinear
from quintil.nn.levels import ActivationQuantizer
from small_nets import Net, descent, images
from torch import nn

ops = torch.ops.quintil


def makers():
    """Layer of a scheme, its float class with the same arguments, and an input."""
    return {
        "linear": (VecQLinear, nn.Linear, (20, 7), {}, (9, 20)),
        "conv1d": (VecQConv1d, nn.Conv1d, (4, 6, 3), dict(stride=2, padding=1, dilation=2), (3, 4, 11)),
        "conv2d": (VecQConv2d, nn.Conv2d, (4, 6, 3), dict(stride=2, padding=(1, 2), dilation=(1, 2)), (2, 4, 9, 8)),
        "plain conv2d": (VecQConv2d, nn.Conv2d, (4, 6, (2, 3)), {}, (2, 4, 6, 7)),
        "same conv2d": (VecQConv2d, nn.Conv2d, (4, 6, 3), dict(padding="same", bias=False), (2, 4, 6, 7)),
        "grouped": (VecQConv2d, nn.Conv2d, (4, 6, 3), dict(groups=2, padding_mode="reflect", padding=1), (2, 4, 6, 7)),
        "transposed": (VecQConvTranspose2d, nn.ConvTranspose2d, (4, 6, 3), dict(stride=2), (2, 4, 5, 4)),
    }


def made(kind: str, scheme: VecQ):
    layer_class, float_class, arguments, keywords, shape = makers()[kind]
    layer, plain = layer_class(*arguments, **keywords, scheme=scheme), float_class(*arguments, **keywords)
    return layer, plain, torch.randn(shape) * 1.5 + 0.2


def levels_of(t, bits, **options):
    return ops.vecq_quantize(t, bits, step=ops.vecq_step(t, bits, **options))[0]


def started(layer: nn.Module, x: torch.Tensor, batches: int = 3) -> nn.Module:
    """In evaluation mode, after some training forwards."""
    layer.train()
    with torch.no_grad():
        for _ in range(batches):
            layer(x)
    return layer.eval()


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


# Activations ------------------------------------------------------------------------------------------------------


def test_averages_move_in_training_only_t12():
    layer, _, x = made("linear", VecQ(4, 6))
    with pytest.raises(RuntimeError, match="^VecQ: expected a training forward or calibrate"):
        layer.eval()(x)
    started(layer, x, 3)
    step, alpha = ops.vecq_step(x, 6), ops.vecq_quantize(x, 6)[2]
    averages = layer.input_quantizer.averages.clone()
    want = [float(a) + 0.9**3 * (1 - float(a)) for a in (step, alpha)]
    assert averages.tolist() == pytest.approx([*want, 0.9**3], rel=1e-5)
    layer(100 * x)
    with torch.no_grad():
        layer(100 * x)
    assert_same(layer.input_quantizer.averages, averages)
    values = (layer.input_quantizer(x) / averages[1] - 0.5).round()
    assert_same(values, ops.vecq_codes(x, 6, averages[0]).float())

    other, *_ = made("linear", VecQ(4, 6))
    other.load_state_dict(layer.state_dict())
    assert_same(other.eval()(x), layer(x))
    layer.train()(x)
    assert not torch.equal(layer.input_quantizer.averages, averages)


def test_debiased_averages():
    layer, _, x = made("linear", VecQ(4, 6, ema_debias=True))
    started(layer, x, 1)
    step, length = layer.input_quantizer.step_and_length()
    torch.testing.assert_close(
        torch.stack([step, length]), torch.stack([ops.vecq_step(x, 6), ops.vecq_quantize(x, 6)[2]])
    )


def test_calibration_starts_averages_and_nothing_else():
    model = quintil.quantize_(Net(), VecQ(8, 8, ema_debias=True))
    before = copy.deepcopy(model.state_dict())
    batches = [(images(8), torch.zeros(8)) for _ in range(4)]
    assert quintil.nn.calibrate(model, batches) is model and not any(m.training for m in model.modules())
    after = model.state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {f"{name}.input_quantizer.averages" for name in ("stem.0", "block.0", "body.a", "body.b", "head")}
    plain = Net().eval()
    plain.load_state_dict({k: v for k, v in before.items() if k in plain.state_dict()})
    x = batches[0][0]
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain(x), rtol=0, atol=0.05)
    with pytest.raises(ValueError, match="^calibrate: expected batches to hold a batch, got none$"):
        quintil.nn.calibrate(model, [])
    with pytest.raises(ValueError, match="^calibrate: expected model to have quantised activations, got none"):
        quintil.nn.calibrate(quintil.quantize_(Net(), VecQ(8)), batches)


# Swap and storage -------------------------------------------------------------------------------------------------


def test_swap_and_back():
    model = Net()
    parameters, kinds = dict(model.named_parameters()), {name: type(m) for name, m in model.named_modules()}
    state = set(model.state_dict())
    attributes = {name: set(vars(m)) for name, m in model.named_modules()}
    quintil.quantize_(model, VecQ(4, 8))
    assert dict(model.named_parameters()) == parameters and not model.head.weight_quantizer.fixed
    added = set(model.state_dict()) - state
    assert {name.rpartition(".")[2] for name in added} == {"alpha", "averages"}
    model.load_state_dict(Net().state_dict(), strict=False)
    quintil.quantize_(model, VecQ(4, 8))  # an equal scheme is no change
    quintil.dequantize_(model)
    assert {name: type(m) for name, m in model.named_modules()} == kinds
    assert {name: set(vars(m)) for name, m in model.named_modules()} == attributes


def test_what_cannot_be_taken():
    with pytest.raises(
        ValueError, match="'0' \\(group_size=7, which does not divide the 20 elements of weight\\[0\\]\\)"
    ):
        quintil.quantize_(nn.Sequential(nn.Linear(20, 4)), VecQ(4, group_size=7))
    with pytest.raises(ValueError, match="'0' \\(Conv3d has no version in VecQ\\)"):
        quintil.quantize_(nn.Sequential(nn.Conv3d(2, 2, 3), nn.Linear(3, 3)), VecQ(4))
    with pytest.raises(ValueError, match="expected model to hold a layer that VecQ swaps, got none"):
        quintil.quantize_(nn.Sequential(nn.ReLU()), VecQ(4))


@pytest.mark.parametrize("options", [{}, {"per_channel": True}, {"group_size": 2}], ids=str)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8, 12])
def test_files_hold_codes_and_compute_the_same(bits, options, tmp_path):
    group = options.get("group_size")
    skip = (lambda name, m: isinstance(m, nn.Conv2d)) if group else ()  # 27 elements
    model = quintil.quantize_(Net(), VecQ(bits, 8, **options), skip=skip)
    with torch.no_grad():  # far from a normal distribution, where levels would move if they were chosen again
        for p in model.parameters():
            p.copy_(p.sign() * p.abs().pow(3))
    x = images(6)
    started(model, x)
    quintil.save_quantized(model, tmp_path / "net")
    loaded = quintil.load_quantized(Net(), tmp_path / "net")
    with torch.no_grad():
        assert same_bits(loaded(x), model(x))
    assert_same(loaded(x), model(x))
    assert loaded.head.weight_quantizer.fixed == (bits <= 8)

    again = quintil.quantize_(Net(), VecQ(bits, 8, **options), skip=skip)
    again.load_state_dict(loaded.state_dict())
    assert_same(again.eval()(x), model(x))
    quintil.save_quantized(loaded, tmp_path / "again")
    assert_same(quintil.load_quantized(Net(), tmp_path / "again")(x), model(x))
    loaded.train()(x).sum().backward()
    assert not loaded.head.weight_quantizer.fixed and loaded.head.weight.grad is not None
    assert not loaded.head.weight_quantizer.alpha.any()


def test_copies_and_pickles():
    model = quintil.quantize_(Net(), VecQ(4, 8))
    x = images()
    started(model, x)
    with torch.no_grad():
        want = model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert same_bits(other(x), want)


# Training, scripts and graphs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [VecQ(2), VecQ(4, 8), VecQ(2, 4, grad_mode="pwl_c", per_channel=True)], ids=str)
def test_a_net_learns(scheme):
    model = quintil.quantize_(Net(), scheme)
    y = torch.arange(40) % 5
    x = images(5)[y] + 0.1 * images(40)
    losses = descent(model, torch.optim.Adam(model.parameters(), lr=0.01), x, y, 40)
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        assert float((model.eval()(x).argmax(1) == y).float().mean()) > 0.8


@pytest.mark.parametrize("scheme", [VecQ(4), VecQ(4, 8), VecQ(8, 8, per_channel=True)], ids=str)
def test_a_scripted_model_computes_the_same(scheme):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    quintil.quantize_(model, scheme)
    x = images()
    started(model, x)
    scripted = torch.jit.script(copy.deepcopy(model))
    with torch.no_grad():
        assert_same(scripted(x), model(x))
    assert_same(scripted(x), model(x))
    model.train(), scripted.train()
    assert_same(scripted(x), model(x))
    fresh = torch.jit.script(quintil.quantize_(nn.Sequential(nn.Linear(3, 2)), VecQ(4, 8)).eval())
    with pytest.raises(Exception, match="expected a training forward or calibrate"):
        fresh(torch.randn(2, 3))


def test_compiled_training_and_evaluation():
    model = quintil.quantize_(nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)), VecQ(4, 8))
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(16, 12)
    for _ in range(2):
        got, want = compiled(x), other(x)
        assert_same(got, want)
        got.sum().backward()
        want.sum().backward()
    assert_same(model[0].weight.grad, other[0].weight.grad)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), other.buffers()))
    model.eval(), other.eval()
    with torch.no_grad():
        assert_same(compiled(x), other(x))


def test_schemes():
    assert VecQ.paper(2, 8) == VecQ(2, 8) and VecQ(2).stored_bits == 2
    assert VecQ.paper(2, 8, "autoqnn") == VecQ(2, 8, drive="norm", sigma="unbiased")
    assert VecQ.from_dict(VecQ(3, None, momentum=0).to_dict()) == VecQ(3, momentum=0.0)
    for options, error, text in (
        (dict(weight_bits=0), ValueError, "weight_bits in 1..16, got 0"),
        (dict(weight_bits=17), ValueError, "weight_bits in 1..16, got 17"),
        (dict(activation_bits=0), ValueError, "activation_bits in 1..16, got 0"),
        (dict(activation_bits=2.0), TypeError, "activation_bits to be an int or None, got 2.0"),
        (dict(momentum=1), ValueError, r"momentum in \[0, 1\), got 1"),
        (dict(momentum=float("nan")), ValueError, r"momentum in \[0, 1\), got nan"),
        (dict(grad_ratio=-0.1), ValueError, r"grad_ratio in \[0, 1\], got -0.1"),
        (dict(grad_ratio=0.1), ValueError, "grad_ratio 0 with grad_mode 'ste', got 0.1"),
        (dict(drive="x"), ValueError, "drive to be one of 'projection', 'norm', 'none', got 'x'"),
        (
            dict(activation_place="x"),
            ValueError,
            "activation_place to be one of 'input', 'output', 'before_activation', got 'x'",
        ),
        (dict(group_size=-1), ValueError, "group_size >= 0, got -1"),
        (dict(per_channel=1), TypeError, "per_channel to be a bool, got 1"),
    ):
        with pytest.raises(error, match=rf"^VecQ: expected {text}$"):
            VecQ(**options)
    with pytest.raises(ValueError, match="^VecQ.paper: expected code to be one of 'paper', 'autoqnn', got 'x'$"):
        VecQ.paper(2, code="x")


def test_layers_without_quantised_activations_have_no_averages():
    model = quintil.quantize_(Net(), VecQ(4))
    assert not any("averages" in name for name in model.state_dict())
    assert all(m.bits == 0 for m in model.modules() if isinstance(m, ActivationQuantizer))
    assert torch.isfinite(model.eval()(images())).all(), "nothing to start"
