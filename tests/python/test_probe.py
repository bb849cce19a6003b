"""A probe sees what the reference computes and changes no bit of outputs, gradients or the random state."""

import json
import sys

import pytest
import quintil
import reference
import torch
import torch.nn.functional as nnF
from conftest import activations, run_python, same_bits
from quintil.nn import fuse_, saturation
from torch import nn


def net():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3, stride=2, bias=False), nn.Flatten(),
        nn.Linear(36, 20), nn.ReLU(inplace=True), nn.Linear(20, 5),
    )  # fmt: skip


def step(model, x):
    """Output, gradients and the random state after one training step's backward."""
    torch.manual_seed(3)
    model.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    y = model(x)
    y.square().sum().backward()
    return [y, x.grad, *(p.grad for p in model.parameters()), torch.get_rng_state()]


@pytest.mark.parametrize(
    "scheme",
    [
        quintil.HDQT(),
        quintil.HDQT.paper(),
        quintil.HDQT(hadamard="binary", conv_backward="batch", ste="clip"),
        quintil.HDQT(bits=6, accumulator_bits=12, stochastic=("fa", "b1g"), hadamard="none_scaled"),
        quintil.HDQT(weight_quantizer="vecq", requantize=False),
    ],
    ids=lambda scheme: scheme.summary(),
)
def test_results_are_the_same_bits(scheme):
    model, x = quintil.quantize_(net(), scheme), torch.randn(3, 3, 8, 8)
    want = step(model, x)
    with quintil.probe(model) as seen:
        got = step(model, x)
    assert all(map(same_bits, got, want)) and len(got) == len(want)
    assert list(seen.layers) == ["0", "2", "4", "6"]
    for record in seen.layers.values():
        (entry,) = record.history
        assert {"gradient_levels", "input_gradient_cosine", "weight_gradient_cosine"} <= entry.keys()
        assert 0.3 < entry["weight_gradient_cosine"] <= 1.0 + 1e-9
    assert not any(m._forward_hooks for m in model.modules())


def test_histograms_steps_and_cosines_of_a_linear_layer_by_hand():
    scheme = quintil.HDQT(accumulator_bits=6, stochastic=())
    layer = quintil.quantize_(nn.Sequential(nn.Linear(75, 20)), scheme)[0]
    x, g = activations(40, 75, signed=False).requires_grad_(), torch.randn(40, 20)
    with quintil.probe(layer) as seen:
        layer(input=x).backward(g)
    record = seen.layers[""]
    (entry,) = record.history
    codes, s = reference.quantize(x.detach(), 4, signed=False, range_fraction=0.975)
    weight, sw = reference.quantize(layer.weight.detach(), 4, signed=True, range_fraction=0.975)
    assert record.histograms["input"] == {c: int((codes == c).sum()) for c in codes.unique().tolist()}
    assert record.histograms["weight"] == {c: int((weight == c).sum()) for c in weight.unique().tolist()}
    assert entry["input_levels"] == len(codes.unique()) and entry["weight_levels"] == len(weight.unique())
    assert entry["input_step"] == float(s) and entry["weight_step"] == float(sw)
    assert entry["elements"] == 3000 and entry["clipped"] == int((x > 0.975 * x.max()).sum())
    assert entry["full_tiles"] == int((reference.tile_sums(codes, weight.t(), 32).abs() > 31).sum()) > 0
    shares = saturation(nn.Sequential(layer), x.detach())["0"]
    assert shares["tiles"] == pytest.approx(100.0 * entry["full_tiles"] / entry["tiles"])
    transformed = reference.hadamard_transform(g, 1, hadamard="padded", block=64)
    gradient, _ = reference.quantize(transformed, 4, signed=True)
    assert record.histograms["gradient"] == {c: int((gradient == c).sum()) for c in gradient.unique().tolist()}
    assert entry["gradient_zeros"] == pytest.approx(float((gradient == 0).double().mean()))
    for name, own, want in (
        ("input", x.grad, g @ layer.weight.detach()), ("weight", layer.weight.grad, g.t() @ x.detach()),
    ):  # fmt: skip
        cosine = nnF.cosine_similarity(own.flatten().double(), want.flatten().double(), dim=0)
        assert entry[f"{name}_gradient_cosine"] == pytest.approx(float(cosine), abs=1e-6)
        assert float(cosine) < 0.999


def test_cosines_of_a_convolution_beside_autograd():
    layer = quintil.quantize_(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=(1, 0))), quintil.HDQT())[0]
    x = torch.randn(2, 3, 9, 7, requires_grad=True)
    with quintil.probe(layer) as seen:
        y = layer(x)
        g = torch.randn_like(y)
        y.backward(g)
    own = [x.grad.flatten(), layer.weight.grad.flatten()]
    y = nnF.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)
    want = torch.autograd.grad(y, [x, layer.weight], g)
    (entry,) = seen.layers[""].history
    for name, a, b in zip(("input", "weight"), own, want):
        cosine = float(nnF.cosine_similarity(a.double(), b.flatten().double(), dim=0))
        assert entry[f"{name}_gradient_cosine"] == pytest.approx(cosine, abs=1e-6) and cosine < 0.9999


def test_the_gradients_seen_are_the_layers_own_beside_a_residual():
    """x feeds the layer and a sum: the gradient of x holds both, the probe compares the layer's part."""
    layer = quintil.nn.HadamardLinear(8, 8, bias=False, scheme=quintil.HDQT(bits=8, accumulator_bits=32))
    x = torch.randn(16, 8, requires_grad=True)
    with quintil.probe(layer) as seen:
        (layer(x) - 50.0 * x).square().sum().backward()
    assert seen.layers[""].history[0]["input_gradient_cosine"] > 0.99


def test_every_runs_without_gradients_and_the_first_layer():
    model = quintil.quantize_(net(), quintil.HDQT())
    x = torch.randn(2, 3, 8, 8)
    with quintil.probe(model, every=2) as seen:
        for _ in range(3):
            model(x).sum().backward()
        with torch.no_grad():
            model.eval()(x)
            model(x)
            model(x[:0])
    record = seen.layers["0"]
    assert record.runs == 6 and [entry["run"] for entry in record.history] == [0, 2, 4]
    assert [entry["training"] for entry in record.history] == [1.0, 1.0, 0.0]
    assert "input_gradient_cosine" not in record.history[0] and "weight_gradient_cosine" in record.history[0]
    assert "weight_gradient_cosine" not in record.history[2]
    model(x)
    assert record.runs == 6  # closed


def test_one_image_and_half_precision_have_gradients_too():
    layer = quintil.nn.HadamardConv2d(3, 4, 3, scheme=quintil.HDQT())
    with quintil.probe(layer) as seen:
        layer(torch.randn(3, 6, 6)).sum().backward()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            layer(torch.randn(1, 3, 6, 6).bfloat16()).float().sum().backward()
    assert all("weight_gradient_cosine" in entry for entry in seen.layers[""].history)
    assert len(seen.layers[""].history) == 2


def test_json_and_tensorboard(tmp_path):
    model = quintil.quantize_(nn.Sequential(nn.Linear(6, 3)), quintil.HDQT())
    with quintil.probe(model) as seen:
        for _ in range(2):
            model(torch.randn(4, 6)).sum().backward()
    stored = json.loads(seen.to_json())["0"]
    assert stored["runs"] == 2 and stored["history"] == seen.layers["0"].history
    assert sum(stored["histograms"]["weight"].values()) == 2 * 18
    assert sum(stored["histograms"]["input"].values()) == 2 * 24
    seen.write_tensorboard(tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("0/input_step")]
    assert scalars == [(e["run"], pytest.approx(e["input_step"])) for e in stored["history"]]


def test_tensorboard_is_asked_for_by_name(tmp_path, monkeypatch):
    seen = quintil.probe(quintil.quantize_(nn.Sequential(nn.Linear(6, 3)), quintil.HDQT()))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="probe: expected the package tensorboard, got none"):
        seen.write_tensorboard(tmp_path)


def test_importing_the_package_takes_neither_matplotlib_nor_tensorboard():
    code = "import quintil, sys; print([m for m in ('matplotlib', 'tensorboard') if m in sys.modules])"
    assert run_python("-c", code) == "[]\n"


def test_refusals():
    with pytest.raises(TypeError, match="probe: expected model to be an nn.Module, got int"):
        quintil.probe(3)
    with pytest.raises(ValueError, match="probe: expected model to hold a layer of HDQT, got none"):
        quintil.probe(nn.Linear(3, 2))
    model = quintil.quantize_(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), quintil.HDQT())
    with pytest.raises(ValueError, match="probe: expected every of at least 1, got 0"):
        quintil.probe(model, every=0)
    fuse_(model)
    with pytest.raises(ValueError, match="probe: expected model without fused layers, got some in the model itself"):
        quintil.probe(model)
    assert not any(m._forward_hooks for m in model.modules())
