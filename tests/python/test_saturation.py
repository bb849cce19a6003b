"""Saturation counts of a model: equal to counts taken by hand from the reference's codes and tile sums."""

import pytest
import quintil
import reference
import torch
from conftest import activations, weights
from quintil.nn import saturation
from torch import nn


def by_hand(x, w, scheme):
    """Percent of tiles beyond the limit for matrices x [rows, K], w [N, K]."""
    codes, _ = reference.quantize(x, scheme.bits, signed=bool((x < 0).any()), range_fraction=scheme.range_fraction)
    weight, _ = reference.quantize(w, scheme.bits, signed=True, range_fraction=scheme.range_fraction)
    sums = reference.tile_sums(codes, weight.t(), scheme.tile_size or x.size(1))
    return 100.0 * float((sums.abs() > 2 ** (scheme.accumulator_bits - 1) - 1).double().mean())


@pytest.mark.parametrize("tile_size", [32, 8, 0])
@pytest.mark.parametrize("signed", [True, False])
def test_linear_counts_tiles_and_codes(tile_size, signed):
    scheme = quintil.HDQT(tile_size=tile_size)
    layer = nn.Linear(75, 20)
    x = activations(40, 75, signed=signed)
    found = saturation(quintil.quantize_(nn.Sequential(layer), scheme), x)
    assert found["0"]["tiles"] == pytest.approx(by_hand(x, layer.weight.detach(), scheme), abs=1e-9)
    assert found["0"]["codes"] == pytest.approx(
        100.0 * float((x.abs() > 0.975 * x.abs().max()).double().mean()), rel=1e-5
    )
    if tile_size == 0:
        assert found["0"]["tiles"] > 1


@pytest.mark.parametrize("tile_order", ["khwc", "chw"])
def test_conv_counts_what_shares_a_tile(tile_order):
    scheme = quintil.HDQT(tile_order=tile_order, tile_size=16)
    layer = nn.Conv2d(6, 8, 3, padding=1, stride=2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(weights(8, 6, 3, 3))
    x = activations(2, 6, 9, 7, signed=False)
    found = saturation(quintil.quantize_(nn.Sequential(layer), scheme), x)
    rows = nn.functional.unfold(x, 3, padding=1, stride=2).transpose(1, 2).flatten(0, 1)
    w = layer.weight.detach().flatten(1)
    if tile_order == "khwc":
        order = torch.arange(54).view(6, 9).t().flatten()
        rows, w = rows[:, order], w[:, order]
    assert found["0"]["tiles"] > 0
    assert found["0"]["tiles"] == pytest.approx(by_hand(rows, w, scheme), abs=1e-9)


def test_nothing_saturates_without_a_limit_and_the_model_stays_as_it_was():
    model = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Dropout(0.5), nn.Linear(30, 5)).train()
    quintil.quantize_(model, quintil.HDQT(accumulator_bits=32, range_fraction=1.0), skip="3")
    found = saturation(model, activations(6, 40))
    assert found == {"0": {"codes": 0.0, "tiles": 0.0}}
    assert model.training and model[2].training and not model[0]._forward_pre_hooks
    assert saturation(nn.Linear(3, 2), activations(1, 3)) == {}
    assert saturation(model, activations(0, 40)) == {}
