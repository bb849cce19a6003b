"""`activation_place='before_activation'`: what a non-linearity reads is on levels, behind a BatchNorm [VECQ 2.7]."""

from __future__ import annotations

import copy
import pickle

import pytest
import quintil
import torch
import torch.nn.functional as F
from conftest import assert_same, same_bits
from quintil import VecQ
from quintil.nn.levels import ActivationQuantizer
from torch import Tensor, nn

SCHEME = VecQ(4, 3, activation_place="before_activation")
FUNCTIONS = [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(0.3), nn.SiLU(), nn.GELU(approximate="tanh"),
             nn.Tanh(), nn.Sigmoid()]  # fmt: skip


def net(function: nn.Module | None = None) -> nn.Sequential:
    function = nn.ReLU() if function is None else copy.deepcopy(function)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), function, nn.Flatten(), nn.Linear(144, 5))


def levels_of(x: Tensor, bits: int) -> Tensor:
    return quintil.functional.vecq_quantize(x, bits)[0]


@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
def test_what_the_function_reads_is_quantised(function):
    model, x = net(function), torch.randn(6, 3, 8, 8)
    plain = copy.deepcopy(model)
    quintil.quantize_(model, SCHEME)
    for index in (0, 4):
        plain[index].weight.data = model[index].quantized_weight().detach()
        plain[index].bias.data = model[index].quantized_bias().detach()
    before = plain[1](plain[0](x))
    want = plain[4](plain[3](plain[2](levels_of(before, 3))))
    assert_same(model(x), want)
    g = torch.randn(want.shape)
    got = torch.autograd.grad(model(x), model[0].weight, g)[0]
    on_levels = before + (levels_of(before, 3) - before).detach()  # straight through
    want_gradient = torch.autograd.grad(plain[4](plain[3](plain[2](on_levels))), plain[0].weight, g)[0]
    torch.testing.assert_close(got, want_gradient, rtol=1e-4, atol=1e-5)
    scripted = torch.jit.script(copy.deepcopy(model).eval())
    with torch.no_grad():
        assert_same(scripted(x), model.eval()(x))
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert same_bits(other(x), model(x))
    quintil.dequantize_(model)
    assert [type(m) for m in model] == [type(m) for m in plain] and vars(model[2]).keys() == vars(plain[2]).keys()


def test_nothing_else_is_quantised():
    model = quintil.quantize_(net(), SCHEME)
    used = [name for name, m in model.named_modules() if isinstance(m, ActivationQuantizer) and m.bits > 0]
    assert used == ["2.input_quantizer"] and not model[4].integers
    for scheme in (VecQ(4), VecQ(4, 3), VecQ(4, 3, activation_place="output")):
        assert type(quintil.quantize_(net(), scheme)[2]) is nn.ReLU
    with pytest.raises(ValueError, match="^quantize_: expected model to hold a layer that VecQ swaps, got none"):
        quintil.quantize_(nn.Sequential(nn.ReLU(), nn.Tanh()), SCHEME)
    quintil.quantize_(model, VecQ(4, 3))
    assert type(model[2]) is nn.ReLU, "another scheme starts anew"


def test_a_relu_has_true_zeros():
    """Pitfall 7: behind the ReLU every zero would be half a level."""
    x = torch.randn(64, 3, 8, 8)
    zeros = {}
    for place in ("input", "before_activation"):
        model = quintil.quantize_(net(), VecQ(8, 8, activation_place=place))
        model(x)
        inner = model[2](model[1](model[0](x)))
        read = model[4].input_quantizer(inner) if place == "input" else inner
        zeros[place] = (read == 0).float().mean()
    assert zeros["input"] == 0 and 0.4 < zeros["before_activation"] < 0.6


def test_averages_calibration_and_files(tmp_path):
    model, x = quintil.quantize_(net(), SCHEME), torch.randn(6, 3, 8, 8)
    with pytest.raises(RuntimeError, match="^VecQ: expected a training forward or calibrate"):
        model.eval()(x)
    quintil.nn.calibrate(model, [x, x])
    want = model(x)
    assert len(model[2].input_quantizer(model[1](model[0](x))).unique()) <= 8
    torch.testing.assert_close(model(x[:1])[0], want[0])  # the batch does not count
    quintil.save_quantized(model, tmp_path / "net")
    assert_same(quintil.load_quantized(net(), tmp_path / "net")(x), want)


def test_functions_that_a_forward_calls_are_not_seen():
    class Calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.layer(x))

    model = quintil.quantize_(Calls(), SCHEME)
    with pytest.raises(ValueError, match="^calibrate: expected model to have quantised activations, got none"):
        quintil.nn.calibrate(model, [torch.randn(2, 4)])
