"""BatchNorm per width and per pair of widths: nn.BatchNorm's arithmetic, statistics apart, re-calibration [DR D19]."""

from __future__ import annotations

import re

import pytest
import quintil
import torch
from conftest import same_bits
from quintil import DoubleRounding
from quintil.bits import recalibrate
from quintil.nn import SwitchableBatchNorm1d, SwitchableBatchNorm2d, transitional_
from small_nets import Net, images
from torch import nn

SHAPES = {
    SwitchableBatchNorm1d: (nn.BatchNorm1d, (6, 5)),
    SwitchableBatchNorm2d: (nn.BatchNorm2d, (6, 5, 3, 2)),
}


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": None}, {"momentum": 0.3, "eps": 1e-2}, {"affine": False}, {"track_running_stats": False}],
    ids=str,
)
@pytest.mark.parametrize("kind", SHAPES)
def test_equals_a_plain_batchnorm_at_every_width(kind, options):
    plain_class, shape = SHAPES[kind]
    norm = kind(5, **options, scheme=DoubleRounding(bits=(4, 2)))
    plain = {width: plain_class(5, **options) for width in (4, 2)}
    for width, training in [(4, True), (2, True), (4, True), (2, False), (4, False), (2, True)]:
        x = torch.randn(shape) * width + 1
        norm.train(training).set_bits(width)
        got, want = norm(x), plain[width].train(training)(x)
        assert same_bits(got, want)
    for width in (4, 2):
        norm.set_bits(width)
        state = plain[width].state_dict()
        assert all(same_bits(norm.active().state_dict()[key], value) for key, value in state.items())
    with pytest.raises(ValueError, match="expected"):
        norm(torch.zeros(2, 2, 2, 2, 2))


def test_starts_as_a_copy_and_keeps_its_own_parameters():
    norm = nn.BatchNorm2d(3, affine=True, dtype=torch.float64)
    nn.init.uniform_(norm.weight)
    norm.running_mean.fill_(2.0)
    norm.bias.requires_grad_(False)
    weight = norm.weight
    model = quintil.quantize_(nn.Sequential(nn.Conv2d(3, 3, 1).double(), norm), DoubleRounding(skip_ends=False))
    assert norm.weight is weight and list(norm.norms) == ["6", "4", "2"]
    for twin in norm.norms.values():
        assert type(twin) is nn.BatchNorm2d and twin.weight.dtype == torch.float64
        assert same_bits(twin.weight, weight) and twin.weight.data_ptr() != weight.data_ptr()
        assert twin.running_mean.tolist() == [2.0] * 3 and twin.running_mean is not norm.running_mean
        assert twin.weight.requires_grad and not twin.bias.requires_grad
    quintil.dequantize_(model)
    assert type(norm) is nn.BatchNorm2d and set(dict(norm.named_modules())) == {""}


def test_width_errors():
    norm = SwitchableBatchNorm2d(3, scheme=DoubleRounding(bits=(4, 2), transitional_norm=True))
    for arguments in ((3,), (4, 3)):
        with pytest.raises(ValueError, match=re.escape("set_bits: expected bits to be one of [4, 2], got 3")):
            norm.set_bits(*arguments)
    assert norm.key == "4"


def chain(scheme: DoubleRounding) -> nn.Sequential:
    """norm, layer, norm, layer, norm, layer, norm."""
    layers = [layer for _ in range(3) for layer in (nn.BatchNorm1d(4), nn.Linear(4, 4))]
    return quintil.quantize_(nn.Sequential(*layers, nn.BatchNorm1d(4)), scheme)


def keys(model: nn.Module) -> list[str]:
    return [module.key for module in model.modules() if hasattr(module, "own_key")]


def test_norms_follow_the_layers_before_them():
    model = chain(DoubleRounding(skip_ends=False))
    assert keys(model) == ["8"] * 4
    quintil.set_bits(model, {"1": 2, "3": 4, "5": 6})
    assert keys(model) == ["2", "2", "4", "6"]  # the first one takes the width of the layer behind it
    model = chain(DoubleRounding(skip_ends=False, transitional_norm=True))
    assert len(model[0].norms) == 15
    quintil.set_bits(model, {"1": 2, "3": 4, "5": 4})
    assert keys(model) == ["2", "2", "2_4", "4"]
    model = chain(DoubleRounding(transitional_norm=True))  # its ends are float
    quintil.set_bits(model, 6)
    assert keys(model) == ["6"] * 4


class Branched(nn.Module):
    """A residual block as in torchvision, with its own BatchNorm in the side branch."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 1)
        self.bn1 = nn.BatchNorm2d(4)
        self.downsample = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.conv2 = nn.Conv2d(4, 4, 1)
        self.bn2 = nn.BatchNorm2d(4)


def test_side_branches_stand_beside_the_main_path():
    model = quintil.quantize_(nn.Sequential(Branched()), DoubleRounding(skip_ends=False, transitional_norm=True))
    quintil.set_bits(model, {"0.conv1": 2, "0.downsample.0": 4, "0.conv2": 6})
    block = model[0]
    assert (block.bn1.key, block.downsample[1].key, block.bn2.key) == ("2", "2_4", "2_6")


def test_pairs_start_from_the_width_before():
    """Warm start of a super-net: (b1, b2) <- b1."""
    model = chain(DoubleRounding(bits=(4, 2), skip_ends=False))
    for width in (4, 2):
        quintil.set_bits(model, width)(torch.randn(8, 4) * width)
    before = {width: model[2].norms["2"].running_var if width == 2 else model[2].running_var for width in (4, 2)}
    y = quintil.set_bits(model.eval(), 2)(torch.ones(2, 4))
    assert transitional_(model) is model
    assert list(model[2].norms) == ["2", "4_2", "2_4"]
    assert same_bits(model[2].norms["4_2"].running_var, before[4])
    assert same_bits(model[2].norms["2_4"].running_var, before[2])
    assert model[1].scheme == model[2].scheme == DoubleRounding(bits=(4, 2), skip_ends=False, transitional_norm=True)
    assert same_bits(quintil.set_bits(model, 2)(torch.ones(2, 4)), y)
    assert transitional_(model) is model and len(model[2].norms) == 3
    twin = chain(model[1].scheme)
    twin.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="^transitional_: expected model to hold BatchNorms per width, got none$"):
        transitional_(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


def test_recalibration_measures_the_norms_in_use():
    model = quintil.quantize_(Net(), DoubleRounding(bits=(4, 2), skip_ends=False))
    data = [images(16).relu() for _ in range(3)]
    for width in (4, 2):
        quintil.set_bits(model, width)(data[0])
    state = {key: value.clone() for key, value in model.state_dict().items()}
    norm = model.stem[1]
    recalibrate(quintil.set_bits(model, 2), data)
    with torch.no_grad():
        seen = [model.stem[0].eval()(x) for x in data]
    model.stem[0].train()
    means = torch.stack([y.mean((0, 2, 3)) for y in seen]).mean(0)
    variances = torch.stack([y.var((0, 2, 3)) for y in seen]).mean(0)
    torch.testing.assert_close(norm.norms["2"].running_mean, means)
    torch.testing.assert_close(norm.norms["2"].running_var, variances)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, state[key])}
    assert changed == {f"stem.1.norms.2.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert all(module.training for module in model.modules()) and norm.norms["2"].momentum == 0.1
    recalibrate(quintil.set_bits(model.eval(), 4), iter(data))
    assert not torch.equal(norm.running_mean, state["stem.1.running_mean"]) and not norm.training
    for call, message in (
        (lambda: recalibrate(nn.Linear(2, 2), data), "to hold BatchNorms with statistics, got none"),
        (lambda: recalibrate(model, []), "recalibrate: expected at least one batch, got none"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    plain = nn.Sequential(nn.BatchNorm2d(3))
    recalibrate(plain, [data[0]])
    torch.testing.assert_close(plain[0].running_mean, data[0].mean((0, 2, 3)))
