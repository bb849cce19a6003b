"""`quintil.set_bits`: names and patterns, what it refuses, scripted models."""

from __future__ import annotations

import re

import pytest
import quintil
import torch
from conftest import same_bits
from quintil import DoubleRounding
from quintil.bits import get_bits
from quintil.models import PreActResNet
from quintil.models.preact import PreActBlock
from small_nets import Net, images
from torch import nn

WIDTHS = (8, 6, 4, 2)


def model(**options) -> nn.Module:
    return quintil.quantize_(Net(), DoubleRounding(skip_ends=False, **options))


LAYERS = ("stem.0", "block.0", "body.a", "body.b", "head")


@pytest.mark.parametrize(
    "bits, want",
    [
        (4, (4, 4, 4, 4, 4)),
        ({"head": 2}, (8, 8, 8, 8, 2)),
        ({"body": 4}, (8, 8, 4, 4, 8)),
        ({"body.*": 4, "body.b": 6}, (8, 8, 4, 6, 8)),
        ({"body.b": 6, "body.*": 4}, (8, 8, 4, 4, 8)),
        ({"*": 2, "st*": 4, "[hb]*": 6}, (4, 6, 6, 6, 6)),
        ({}, (8, 8, 8, 8, 8)),
    ],
)
def test_names_and_patterns(bits, want):
    net = model()
    assert quintil.set_bits(net, bits) is net
    assert get_bits(net) == dict(zip(LAYERS, want))
    quintil.set_bits(net, {"head": 4})  # the others keep theirs
    assert get_bits(net) == dict(zip(LAYERS, (*want[:4], 4)))


def test_nothing_is_moved():
    net = model()
    state = {key: (value.data_ptr(), value._version) for key, value in net.state_dict().items()}
    quintil.set_bits(net, 2)
    assert {key: (value.data_ptr(), value._version) for key, value in net.state_dict().items()} == state


@pytest.mark.parametrize(
    "bits, error, message",
    [
        (5, ValueError, "set_bits: expected bits to be one of 8, 6, 4, 2, got 5 (layer 'stem.0')"),
        ({"head": 4, "body.a": 3}, ValueError,
         "set_bits: expected bits to be one of 8, 6, 4, 2, got 3 (layer 'body.a')"),
        ({"head": 4, "body.q": 4}, KeyError,
         "set_bits: expected names of layers, got 'body.q' (nearest: body.b, body.a, block.0)"),
        ({"stem.1": 4}, KeyError, "set_bits: expected names of layers, got 'stem.1' (nearest: stem.0, "),
        ("4", TypeError, "set_bits: expected bits to be an int, got '4' (layer 'stem.0')"),
        ({"head": True}, TypeError, "set_bits: expected bits to be an int, got True (layer 'head')"),
    ],
)  # fmt: skip
def test_refused_before_anything_changes(bits, error, message):
    net = model()
    with pytest.raises(error, match=re.escape(message)):
        quintil.set_bits(net, bits)
    assert set(get_bits(net).values()) == {8} and net.stem[1].key == "8"


def test_other_refusals():
    with pytest.raises(ValueError, match="^set_bits: expected model to hold layers of several widths, got none$"):
        quintil.set_bits(Net(), 4)
    with pytest.raises(TypeError, match="^set_bits: expected model to be an nn.Module, got int$"):
        quintil.set_bits(3, 4)
    with pytest.raises(ValueError, match=re.escape("set_bits: expected bits to be one of [8, 6, 4, 2], got 3")):
        model().head.set_bits(3)


def test_layers_may_have_different_lists():
    net = quintil.quantize_(Net(), DoubleRounding(bits=(4, 2)), skip=["body.a", "stem"])
    quintil.quantize_(net, DoubleRounding(bits=(8, 4)), skip=["block", "body.b", "stem", "head"])
    assert get_bits(net) == {"block.0": 4, "body.a": 8, "body.b": 4}
    assert set(get_bits(quintil.set_bits(net, 4)).values()) == {4}
    with pytest.raises(ValueError, match=re.escape("to be one of 8, 4, got 2 (layer 'body.a')")):
        quintil.set_bits(net, 2)


# TorchScript ------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained():
    net = PreActResNet(PreActBlock, (1, 1), 4, 5, in_channels=1)
    quintil.quantize_(net, DoubleRounding(transitional_norm=True))
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        for width in WIDTHS:
            quintil.set_bits(net, width)(x)
    return net.eval(), x


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("reload", [False, True])
def test_scripted_models_switch_too(trained, reload, tmp_path):
    net, x = trained
    scripted = torch.jit.script(net)
    if reload:
        scripted.save(str(tmp_path / "net.pt"))
        scripted = torch.jit.load(str(tmp_path / "net.pt"))
    mixed = {"*": 4, "stages.0": 8, "stages.1.*.conv2": 2}
    for bits in (2, 8, mixed, 6):
        assert quintil.set_bits(scripted, bits) is scripted
        quintil.set_bits(net, bits)
        assert get_bits(scripted) == get_bits(net)
        with torch.no_grad():
            assert same_bits(scripted(x), net(x))
    layer = next(module for module in scripted.modules() if hasattr(module, "input_quantizers"))
    with pytest.raises(torch.jit.Error, match="expected bits to be one of .*, got 3"):
        layer.set_bits(3)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_scripted_training_equals_eager(trained):
    net, x = trained
    net.train()
    scripted = torch.jit.script(net)
    labels = torch.arange(4)
    gradients = []
    for one in (scripted, net):
        quintil.set_bits(one, {"*": 4, "stages.1": 2})
        net.zero_grad()
        state = {key: value.clone() for key, value in net.state_dict().items()}
        nn.functional.cross_entropy(one(x), labels).backward()
        gradients.append({name: p.grad for name, p in net.named_parameters() if p.grad is not None})
        net.load_state_dict(state)
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 20
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_scripted_model_says_that_its_steps_did_not_start():
    scripted = torch.jit.script(model())
    with pytest.raises(torch.jit.Error, match="8 bits: expected a training forward at this width before others"):
        scripted(images())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("reload", [False, True])
def test_a_scripted_model_has_the_method(trained, reload, tmp_path):
    net, x = trained
    scripted = quintil.nn.script(net)
    if reload:
        scripted.save(str(tmp_path / "net.pt"))
        scripted = torch.jit.load(str(tmp_path / "net.pt"))
    quintil.set_bits(scripted, {"stages.0": 6})
    for bits in (2, 8, 4):
        scripted.set_bits(bits)
        with torch.no_grad():
            assert same_bits(scripted(x), quintil.set_bits(net, bits)(x))
    with pytest.raises(
        torch.jit.Error, match=re.escape("expected bits to be one of 8, 6, 4, 2, got 3 (layer 'stages.0.0.conv1')")
    ):
        scripted.set_bits(3)
    with torch.no_grad():
        assert same_bits(scripted(x), net(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_other_scripted_models():
    net = model(bits=(4, 2))
    quintil.nn.script(net.head).set_bits(2)
    assert net.head.bits == 4
    scripted = quintil.nn.script(quintil.quantize_(net, DoubleRounding(bits=(8, 4)), skip=["stem", "body", "head"]))
    with pytest.raises(torch.jit.Error, match=re.escape("to be one of 8, 4, got 2 (layer 'block.0')")):
        scripted.set_bits(2)
    assert set(get_bits(scripted).values()) == {4, 8}
    with pytest.raises(ValueError, match="^script: expected model to hold layers of several widths, got none$"):
        quintil.nn.script(Net())
    with pytest.raises(torch.jit.Error, match="4 bits: expected a training forward"), torch.no_grad():
        quintil.nn.script(net, values=False).eval()(images())
    net.set_bits = 3
    with pytest.raises(ValueError, match="^script: expected model to have no attribute 'set_bits', got one$"):
        quintil.nn.script(net)
