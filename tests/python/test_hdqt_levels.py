"""HDQT with VecQ's weights: all three products take odd integers, twice the half-integers [HDQT 2.2, VECQ V10]."""

from __future__ import annotations

import copy
import pickle

import pytest
import quintil
import reference
import reference_vecq
import torch
from conftest import assert_same, same_bits
from quintil import HDQT
from quintil.nn import HadamardConv2d, HadamardLinear, fuse_, saturation
from quintil.nn.hdqt import level_weight
from small_nets import Net, descent, images
from torch import Tensor, nn

SCHEME = HDQT(weight_quantizer="vecq")
SHAPES = {
    "normal": torch.randn,
    "uniform": lambda *shape: 2 * torch.rand(*shape) - 1,
    "heavy": lambda *shape: torch.randn(*shape) ** 3,
    "two values": lambda *shape: torch.randint(0, 2, shape) * 2.0 - 1.0,
    "with zeros": lambda *shape: torch.randn(*shape).clamp(max=0),
}


def odd_integers(weight: Tensor, bits: int) -> tuple[Tensor, float]:
    """Twice VecQ's half-integers of bits - 1 bits and half their length, from the reference of VecQ."""
    closest = weight.abs().max() / (2 ** (bits - 2) - 0.5)  # the outermost level is taken
    step = torch.minimum(reference_vecq.step(weight, bits - 1), closest)
    _, codes, alpha, _ = reference_vecq.quantize(weight, bits - 1, step)
    return 2 * codes + 1, float(alpha) / 2


@pytest.mark.parametrize("fraction", [0.5, 0.975, 1.0])
@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("kind", SHAPES)
def test_codes_are_odd_integers(kind, bits, fraction):
    weight = SHAPES[kind](24, 50)
    want, step = odd_integers(weight, bits)
    operand = level_weight(weight, bits, fraction)
    codes, scale = quintil.functional.quantize(operand, bits, range_fraction=fraction)
    assert_same(codes, want)
    assert bool((codes % 2 != 0).all()) and int(codes.abs().max()) == 2 ** (bits - 1) - 1
    assert scale.item() == pytest.approx(step, rel=1e-6)


@pytest.mark.parametrize("accumulator_bits, bits", [(8, 4), (32, 4), (12, 6)])
def test_linear_multiplies_them(accumulator_bits, bits):
    layer = HadamardLinear(50, 7, scheme=HDQT(bits, accumulator_bits, weight_quantizer="vecq"))
    x = torch.randn(9, 50)
    weight, step = odd_integers(layer.weight.detach(), bits)
    codes, x_step = reference.quantize(x, bits, signed=None, range_fraction=0.975)
    sums = reference.tiled_int_mm(codes, weight.t(), tile_size=32, accumulator_bits=accumulator_bits)
    want = sums.double() * step * float(x_step) + layer.bias.double()
    torch.testing.assert_close(layer(x).double(), want, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert_same(layer.eval()(x), layer(x))


def gradients(layer: nn.Module, x: Tensor, g: Tensor) -> list[Tensor]:
    torch.manual_seed(3)
    return list(torch.autograd.grad(layer(x), (x, layer.weight, layer.bias), g))


@pytest.mark.parametrize("ste", ["identity", "raw"])
@pytest.mark.parametrize("kind", ["linear", "conv2d"])
def test_gradients_are_those_at_the_levels(kind, ste):
    """Of the input through VecQ's codes; of the weight as if it were on its levels, without a factor."""
    scheme = HDQT(weight_quantizer="vecq", ste=ste)
    if kind == "linear":
        layer, x = HadamardLinear(40, 9, scheme=scheme), torch.randn(6, 40, requires_grad=True)
    else:
        layer, x = HadamardConv2d(3, 5, 3, padding=1, scheme=scheme), torch.randn(2, 3, 6, 6, requires_grad=True)
    plain = copy.deepcopy(layer)
    plain.weight.data = layer.operand_weight().detach()
    quintil.quantize_(plain, HDQT(ste=ste))
    g = torch.randn(layer(x).shape)
    for got, want in zip(gradients(layer, x, g), gradients(plain, x, g)):
        assert_same(got, want)


def test_numbers_without_levels():
    """Zeros stay zeros, a batch of nothing is one, NaN is passed on, unsigned codes are the nearest ones."""
    x = torch.randn(4, 10)
    for value in (0.0, 0.25, -0.25):
        layer = HadamardLinear(10, 3, scheme=HDQT(accumulator_bits=32, weight_quantizer="vecq"))
        layer.weight.data.fill_(value)
        assert torch.isfinite(layer(x)).all() and layer(x[:0]).shape == (0, 3)
        codes, step = reference.quantize(x, 4, signed=None, range_fraction=0.975)
        want = (codes.double() * float(step)).sum(1, keepdim=True) * value + layer.bias.double()
        torch.testing.assert_close(layer(x).double(), want, rtol=1e-5, atol=1e-6)
    layer.weight.data[0, 0] = torch.nan
    assert layer(x).isnan().all()
    positive = torch.rand(30, 10) + 0.1
    values, step = level_weight(positive, 4, 0.975), odd_integers(positive, 4)[1]
    codes, scale = quintil.functional.quantize(values, 4, signed=None, range_fraction=0.975)
    assert codes.dtype == torch.uint8 and (codes * scale - odd_integers(positive, 4)[0] * step).abs().max() <= scale / 2
    assert level_weight(torch.zeros(3, 0), 4, 0.975).shape == (3, 0)


def test_a_model_swaps_scripts_fuses_and_is_stored(tmp_path):
    model, x = quintil.quantize_(Net(), SCHEME), images()
    attributes = {name: set(vars(m)) for name, m in Net().named_modules()}
    with torch.no_grad():
        model.eval()
        want = model(x)
        assert (want - quintil.quantize_(copy.deepcopy(model), HDQT())(x)).abs().max() > 0
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert same_bits(other(x), want)
        quintil.save_quantized(model, tmp_path / "net")
        loaded = quintil.load_quantized(Net(), tmp_path / "net")
        assert same_bits(loaded(x), want) and same_bits(loaded.head.weight, model.head.weight)
        flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        quintil.quantize_(flat, SCHEME).eval()
        assert same_bits(torch.jit.script(flat)(x), flat(x))
    assert set(saturation(model, x)["head"]) == {"codes", "tiles"}
    quintil.dequantize_(model)
    assert {name: set(vars(m)) for name, m in model.named_modules()} == attributes


def test_a_fused_block_takes_the_same_codes():
    block = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU())
    quintil.quantize_(block, HDQT(weight_quantizer="vecq", stochastic=()))
    fused, x = fuse_(copy.deepcopy(block)), images()
    torch.testing.assert_close(fused(x), block(x), rtol=1e-4, atol=1e-4)
    plain = fuse_(quintil.quantize_(copy.deepcopy(block), HDQT(stochastic=())))
    assert (fused(x) - plain(x)).abs().max() > 1e-2
    for model in (block, fused):
        model.zero_grad()
        model(x).square().sum().backward()
    a, b = fused[0].weight.grad, block[0].weight.grad
    assert (a - b).norm() < 0.1 * b.norm() + 1e-6


def test_a_net_learns():
    model = quintil.quantize_(Net(), SCHEME)
    y = torch.arange(40) % 5
    x = images(5)[y] + 0.1 * images(40)
    losses = descent(model, torch.optim.Adam(model.parameters(), lr=0.01), x, y, 40)
    assert losses[-1] < 0.2 * losses[0]
