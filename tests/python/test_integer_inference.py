"""Evaluation multiplies the integers that training means, and keeps the weight's codes until something changes."""

from __future__ import annotations

import copy
import pickle

import pytest
import quintil
import torch
import torch.nn.functional as F
from conftest import assert_same, same_bits
from quintil import DoubleRounding
from quintil.models import PreActResNet
from quintil.models.preact import PreActBlock
from quintil.nn import DoubleRoundingConv2d, DoubleRoundingLinear
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

WIDTHS = (8, 6, 4, 2)
SCHEMES = {
    "default": {},
    "offset": {"activation_offset": True},
    "signed": {"activation_signed": True},
    "per tensor": {"per_channel": False},
    "floor": {"rounding": "floor"},
    "float": {"weight_source": "float"},
    "own steps": {"shared_step": False},
    "half up": {"rounding": "half_up", "bits": (7, 5, 1)},
}


class Calls(TorchDispatchMode):
    """Names of quintil's ops that run inside."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "quintil":
            self.names.append(func._opname)
        return func(*args, **(kwargs or {}))


def started(layer: nn.Module, x: torch.Tensor) -> nn.Module:
    with torch.no_grad():
        for width in layer.widths:
            layer.set_bits(width)
            layer(x)
    return layer.eval()


def linear(options: dict) -> tuple[nn.Module, torch.Tensor]:
    x = torch.randn(5, 9, 40)
    return started(DoubleRoundingLinear(40, 7, scheme=DoubleRounding(**options)), x), x


def conv(options: dict, **geometry) -> tuple[nn.Module, torch.Tensor]:
    x = torch.randn(3, 6, 9, 8)
    geometry = {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 2), "dilation": (2, 1), **geometry}
    return started(DoubleRoundingConv2d(6, 4, **geometry, scheme=DoubleRounding(**options)), x), x


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("make", [linear, conv], ids=["linear", "conv"])
def test_the_same_integers_as_in_training(make, name):
    layer, x = make(SCHEMES[name])
    for width in [width for width in layer.widths if width > 1]:
        layer.set_bits(width)
        weight, weight_step = layer.weight_codes()
        assert weight.dtype == torch.int8
        shape = (-1,) + (1,) * (weight.dim() - 1) if weight_step.dim() else ()
        assert_same(weight * weight_step.reshape(shape), layer.quantized_weight())
        codes, step, offset = layer.input_codes(x)
        assert_same(codes * step + (0 if offset is None else offset), layer.quantized_input(x))
        with Calls() as calls, torch.no_grad():
            integer = layer(x)
        product = "int_linear" if make is linear else "int_conv2d"
        assert product in calls.names and "lsq_quantize" not in calls.names
        with Calls() as calls:
            real = layer(x)
        assert product not in calls.names
        exact = double(layer, x)
        for y in (integer, real):
            torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-5 * exact.abs().max().item())


def double(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The layer on its grids in float64."""
    with torch.no_grad():
        x, w, b = layer.quantized_input(x).double(), layer.quantized_weight().double(), layer.bias.double()
        if isinstance(layer, nn.Linear):
            return F.linear(x, w, b)
        return F.conv2d(x, w, b, layer.stride, layer.padding, layer.dilation)


def test_exact_sums():
    """The result is one float32 rounding per factor of an exact integer sum."""
    layer, x = linear({})
    with torch.no_grad():
        for width in WIDTHS:
            layer.set_bits(width)
            weight, weight_step = layer.weight_codes()
            codes, step, _ = layer.input_codes(x)
            sums = (codes.flatten(0, 1).long() @ weight.long().t()).float()
            assert_same(layer(x).flatten(0, 1), sums * weight_step * step + layer.bias)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    "geometry",
    [
        {"groups": 2},
        {"padding_mode": "circular"},
        {"padding": "same", "stride": 1, "kernel_size": (3, 2)},
    ],
    ids=str,
)
def test_where_integers_stay_out(geometry):
    layer, x = conv({}, **geometry)
    assert not layer.integers
    with Calls() as calls, torch.no_grad():
        y = layer(x)
    assert "int_conv2d" not in calls.names
    assert same_bits(layer(x), y)


def test_other_cases_in_float():
    layer, x = conv({}, padding="same", stride=1, kernel_size=3, dilation=2)  # even: integers
    with Calls() as calls, torch.no_grad():
        torch.testing.assert_close(
            layer(x), layer._conv_forward(layer.quantized_input(x), layer.quantized_weight(), layer.bias)
        )
        assert same_bits(layer(x[0]), layer(x[:1])[0])
    assert "int_conv2d" in calls.names
    layer, x = linear({"bits": (3, 1)})
    with torch.no_grad():
        assert same_bits(
            layer.set_bits(1) or layer(x), F.linear(layer.quantized_input(x), layer.quantized_weight(), layer.bias)
        )
    layer, x = linear({"weight_source": "float", "rounding": "half_up"})
    assert not layer.integers
    with torch.no_grad():
        assert same_bits(layer(x), F.linear(layer.quantized_input(x), layer.quantized_weight(), layer.bias))
    with pytest.raises(RuntimeError, match="^8 bits: expected a training forward"), torch.no_grad():
        layer = DoubleRoundingLinear(3, 3, scheme=DoubleRounding()).eval()
        layer.set_bits(6)
        layer(torch.zeros(1, 3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype):
    layer, x = linear({"activation_offset": True})
    layer, x = layer.to(dtype), x.to(dtype)
    for quantizer in [*layer.weight_quantizers.values(), *layer.input_quantizers.values()]:
        quantizer.float()
    with torch.no_grad():
        y = layer(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y, layer(x), rtol=2e-2, atol=2e-2)


# Codes that are kept ----------------------------------------------------------------------------------------------


def roundings(layer: nn.Module, x: torch.Tensor) -> int:
    """How often a forward in evaluation rounds the weight."""
    with Calls() as calls, torch.no_grad():
        layer(x)
    return calls.names.count("double_round")


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.set_bits(4),
        lambda layer: layer.weight.data.__imul__(1.0) is layer.train().eval(),
        lambda layer: layer.load_state_dict(layer.state_dict()),
        lambda layer: torch.nn.init.zeros_(layer.weight_quantizers["8"].step).add_(0.1),
        lambda layer: setattr(layer.weight, "data", layer.weight.data.clone()),
    ],
    ids=["width", "mode", "state", "step", "data"],
)
def test_codes_are_kept_until_something_changes(change):
    layer, x = linear({})
    layer.set_bits(6)
    assert [roundings(layer, x) for _ in range(3)] == [1, 0, 0]
    with torch.no_grad():
        change(layer)
    assert [roundings(layer, x) for _ in range(2)] == [1, 0]
    fresh = copy.deepcopy(layer)
    with torch.no_grad():
        assert same_bits(layer(x), fresh(x))


def test_a_switch_rounds_integers():
    """From a width to another that was in use before: no float weight is read, and no memory asked for."""
    layer, x = linear({})
    with torch.no_grad():
        want = {width: (layer.set_bits(width), layer(x))[1] for width in WIDTHS}
        place = layer.kept_weight_codes()[0].data_ptr()
        for width in (4, 8, 2, 6):
            layer.set_bits(width)
            with Calls() as calls:
                codes, step = layer.kept_weight_codes()
            assert calls.names == ["double_round"] and codes.data_ptr() == place
            assert all(same_bits(a, b) for a, b in zip((codes, step), layer.weight_codes()))
            assert same_bits(layer(x), want[width])


def test_kept_codes_travel_nowhere():
    layer, x = linear({})
    roundings(layer, x)
    keys = set(layer.state_dict())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert roundings(twin, x) == 1 and set(twin.state_dict()) == keys
    with torch.inference_mode():
        other = copy.deepcopy(layer)
        other.weight = nn.Parameter(layer.weight * 2)
        first = other(x)
        other.weight *= 0.5
        assert not torch.equal(other(x), first) and same_bits(other(x), layer(x))


def test_a_network_switches_between_the_same_results():
    """T11 on integers, layer by layer mixed too, and float logits up to rounding."""
    net = quintil.quantize_(PreActResNet(PreActBlock, (1, 1), 8, 5), DoubleRounding())
    x = torch.randn(4, 3, 12, 12)
    with torch.no_grad():
        for width in WIDTHS:
            quintil.set_bits(net, width)(x)
    net.eval()
    mixed = {"*": 4, "stages.0": 8, "stages.1.*.conv2": 2}
    with torch.no_grad():
        logits = [quintil.set_bits(net, bits)(x) for bits in (*WIDTHS, mixed)]
        for bits, want in zip((mixed, 2, 4, 6, 8), reversed(logits)):
            assert same_bits(quintil.set_bits(net, bits)(x), want)
    for bits, want in zip((*WIDTHS, mixed), logits):
        torch.testing.assert_close(quintil.set_bits(net, bits)(x), want, rtol=1e-4, atol=1e-5)
