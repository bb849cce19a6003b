"""Swapped layers by themselves: construction, padding in words, copies, pickles and files."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import quintil
import torch
from conftest import same_bits
from quintil import HDQT
from quintil.nn import HadamardConv2d, HadamardLinear
from small_nets import SWAPPABLE, Net, OwnLinear, images, swapped
from torch import nn


def test_copies_and_pickles():
    model, x = quintil.quantize_(Net(), HDQT(bits=5)).eval(), images()
    twin = copy.deepcopy(model)
    assert swapped(twin) == SWAPPABLE and same_bits(twin(x), model(x))
    quintil.dequantize_(twin)
    assert swapped(model) == SWAPPABLE
    restored = pickle.loads(pickle.dumps(model))
    assert {m.scheme for m in restored.modules() if hasattr(m, "scheme")} == {HDQT(bits=5)}
    assert isinstance(restored.body["b"], OwnLinear) and same_bits(restored(x), model(x))
    assert type(quintil.dequantize_(restored).body["b"]) is OwnLinear


def test_state_dict_travels_between_float_and_swapped_models():
    model, buffer = quintil.quantize_(Net(), HDQT()).eval(), io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    plain = Net().eval()
    plain.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    x = images()
    assert same_bits(quintil.quantize_(plain, HDQT())(x), model(x))


def test_direct_construction():
    torch.manual_seed(4)
    linear = HadamardLinear(6, 3, bias=False, scheme=HDQT(bits=3))
    torch.manual_seed(4)
    assert same_bits(linear.weight, nn.Linear(6, 3, bias=False).weight) and linear.bias is None
    assert repr(linear) == "HadamardLinear(in_features=6, out_features=3, bias=False, scheme=HDQT(bits=3))"
    conv = HadamardConv2d(3, 4, (3, 5), padding="same", scheme=HDQT())
    assert conv(images()).shape == (4, 4, 8, 8)
    assert type(quintil.dequantize_(conv)) is nn.Conv2d
    with pytest.raises(
        ValueError, match="^HadamardConv2d: expected a layer that HDQT can take, got one where groups=3$"
    ):
        HadamardConv2d(3, 3, 3, groups=3, scheme=HDQT())
    with pytest.raises(TypeError, match="^HadamardLinear: expected scheme to be of class HDQT, got 'hdqt'$"):
        HadamardLinear(3, 3, scheme="hdqt")


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel, dilation", [((3, 5), 1), ((3, 3), 2), ((2, 4), (2, 2))])
def test_padding_in_words(padding, kernel, dilation):
    layer = nn.Conv2d(3, 4, kernel, padding=padding, dilation=dilation)
    twin = nn.Conv2d(3, 4, kernel, padding=0, dilation=dilation)
    if padding == "same":
        spread = (dilation, dilation) if isinstance(dilation, int) else dilation
        twin.padding = tuple(d * (k - 1) // 2 for d, k in zip(spread, kernel))
        twin._reversed_padding_repeated_twice = [p for p in reversed(twin.padding) for _ in range(2)]
    twin.load_state_dict(layer.state_dict())
    x = images()
    torch.testing.assert_close(layer(x), twin(x))
    quintil.quantize_(layer, HDQT())
    quintil.quantize_(twin, HDQT())
    assert same_bits(layer(x), twin(x)) and layer.padding == padding


def test_paper_initialisation_redraws_convolutions_alone():
    model = Net()
    linears = {name: model.get_submodule(name).weight.detach().clone() for name in ("body.a", "head")}
    torch.manual_seed(9)
    quintil.quantize_(model, HDQT.paper(), skip="block", paper_init=True)
    torch.manual_seed(9)
    want = nn.Conv2d(3, 8, 3)
    assert same_bits(model.stem[0].weight, want.weight) and same_bits(model.stem[0].bias, want.bias)
    assert all(same_bits(model.get_submodule(name).weight, value) for name, value in linears.items())
