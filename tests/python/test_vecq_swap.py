"""Models swapped to VecQ: what changes and comes back, what cannot be taken, files, copies and pickles."""

from __future__ import annotations

import copy
import pickle

import pytest
import quintil
import torch
from conftest import assert_same, same_bits
from quintil import VecQ
from small_nets import Net, images
from small_vecq import started
from torch import nn


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
