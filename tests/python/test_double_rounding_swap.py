"""Models swapped to Double Rounding: what changes and comes back, another scheme, the ends, copies and pickles."""

from __future__ import annotations

import copy
import pickle

import pytest
import quintil
import torch
from conftest import same_bits
from quintil import HDQT, DoubleRounding
from quintil.nn import DoubleRoundingConv2d, DoubleRoundingLinear, HadamardLinear, SwitchableBatchNorm2d
from small_double_rounding import linear
from small_nets import Net, OwnLinear, images
from torch import nn


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
