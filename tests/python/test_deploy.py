"""`quintil.nn.deploy`: the model's function with its layers joined, at every width."""

from __future__ import annotations

import copy
import io

import pytest
import quintil
import torch
import torch.nn.functional as F
from conftest import assert_same
from quintil import HDQT, DoubleRounding
from quintil.models import PreActResNet
from quintil.models.preact import PreActBlock
from quintil.nn import deploy, get_bits
from quintil.nn.integer import IntegerConv2d, IntegerLinear, ToCodes
from small_nets import Net, images, trained
from torch import nn


def small_resnet() -> PreActResNet:
    return PreActResNet(PreActBlock, (2, 2), 8, 5).to(memory_format=torch.channels_last)


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    """Equal but for codes that float32's rounding in a BatchNorm moved by one step, which are few."""
    assert got.shape == want.shape
    assert (got - want).abs().mean() <= 2e-3 * want.abs().mean()


@pytest.mark.parametrize("width", [8, 4, 2])
@pytest.mark.parametrize("make", [small_resnet, Net], ids=["resnet", "net"])
@pytest.mark.parametrize("options", [{}, {"activation_signed": True}, {"per_channel": False}], ids=str)
def test_equals_the_model(make, width, options):
    x = images(6)
    model = trained(quintil.quantize_(make(), DoubleRounding(bits=(8, 4, 2), skip_ends=False, **options)), x)
    quintil.set_bits(model, width)
    program = deploy(model, x[:2])
    with torch.no_grad():
        close(program(x), model(x))
        close(program(x[:1]), model(x[:1]))
    assert get_bits(model) and not get_bits(program)


def test_layers_are_joined():
    x = images()
    model = trained(quintil.quantize_(small_resnet(), DoubleRounding(bits=(8, 4, 2))), x)
    program = deploy(model, x)
    modules = [program.get_submodule(node.target) for node in program.graph.nodes if node.op == "call_module"]
    kinds = [type(module) for module in modules]
    convolutions = [module for module in modules if isinstance(module, IntegerConv2d)]
    assert len(convolutions) == 9  # eight of the blocks and a shortcut; the ends are float
    assert sum(module.out_step is not None for module in convolutions) == 4  # the first of every block
    assert kinds.count(ToCodes) == 5  # one per block, two where a shortcut has a step of its own
    assert kinds.count(nn.BatchNorm2d) + kinds.count(quintil.nn.SwitchableBatchNorm2d) == 1  # before the classifier
    sums = [node for node in program.graph.nodes if "add" in str(node.target)]
    assert sums == [] and sum(F.relu is node.target for node in program.graph.nodes) == 1


class Branches(nn.Module):
    """What must not be joined: sums of unequal sizes, outputs with two readers, ReLUs in place that others see."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout(0.5)

    def forward(self, x):
        y = self.a(x)
        z = self.b(self.drop(y).relu())
        z = z + y.mean((2, 3), keepdim=True)
        n = self.norm(z)
        w = self.c(F.relu(n, inplace=True))
        return torch.relu(torch.add(w, n)) + y


def test_what_has_other_readers_stays():
    x = images()
    model = trained(quintil.quantize_(Branches(), DoubleRounding(bits=(8, 4, 2), skip_ends=False)), x)
    with torch.no_grad():
        close(deploy(model, x)(x), model(x))


@pytest.mark.parametrize("options", [{"activation_offset": True}, {"bits": (2, 1)}], ids=str)
def test_layers_without_integers_stay(options):
    x = images()
    scheme = DoubleRounding(skip_ends=False, **{"bits": (8, 2), **options})
    model = trained(quintil.quantize_(Net(), scheme), x, scheme.bits)
    quintil.set_bits(model, scheme.bits[-1])
    program = deploy(model, x)
    assert not any(isinstance(m, (IntegerConv2d, IntegerLinear)) for m in program.modules())
    with torch.no_grad():
        close(program(x), model(x))


def test_scripted_exported_and_stored():
    x = images()
    model = trained(quintil.quantize_(small_resnet(), DoubleRounding(bits=(8, 4, 2))), x)
    program = deploy(quintil.set_bits(model, 4), x)
    with torch.no_grad():
        want = program(x)
        stored = io.BytesIO()
        torch.jit.save(torch.jit.script(program), stored)
        stored.seek(0)
        assert_same(torch.jit.load(stored)(x), want)
        assert_same(torch.export.export(program, (x,)).module()(x), want)
        assert_same(copy.deepcopy(program)(x), want)


def test_refusals():
    with pytest.raises(ValueError, match="deploy: expected model to hold layers of Double Rounding, got none"):
        deploy(quintil.quantize_(Net(), HDQT()), images())

    class Forks(Net):
        def forward(self, x):
            return super().forward(x if x.sum() > 0 else -x)

    model = trained(quintil.quantize_(Forks(), DoubleRounding(bits=(8, 4, 2))), images())
    with pytest.raises(TypeError, match="to be traceable by torch.fx"):
        deploy(model, images())
