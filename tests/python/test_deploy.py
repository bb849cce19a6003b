"""`quintil.nn.deploy`: the model's function with its layers joined, at every width."""

from __future__ import annotations

import copy
import io

import pytest
import quintil
import torch
import torch.nn.functional as F
from conftest import assert_same
from quintil import HDQT, DoubleRounding, VecQ
from quintil.models import PreActResNet, lenet5
from quintil.models.preact import PreActBlock
from quintil.nn import VecQConv2d, deploy, get_bits
from quintil.nn.integer import HalfIntegerConv2d, HalfIntegerLinear, IntegerConv2d, IntegerLinear, ToCodes
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


def check_copies(program, x):
    """Scripted and stored, exported, and copied it computes the same."""
    with torch.no_grad():
        want = program(x)
        stored = io.BytesIO()
        torch.jit.save(torch.jit.script(program), stored)
        stored.seek(0)
        assert_same(torch.jit.load(stored)(x), want)
        assert_same(torch.export.export(program, (x,)).module()(x), want)
        assert_same(copy.deepcopy(program)(x), want)


def test_scripted_exported_and_stored():
    x = images()
    model = trained(quintil.quantize_(small_resnet(), DoubleRounding(bits=(8, 4, 2))), x)
    program = deploy(quintil.set_bits(model, 4), x)
    check_copies(program, x)


# VecQ -------------------------------------------------------------------------------------------------------------


def vecq_net(scheme: VecQ, model: nn.Module | None = None, x: torch.Tensor | None = None) -> nn.Module:
    """In evaluation mode, with BatchNorms that do something."""
    model = Net() if model is None else model
    x = images(8) if x is None else x
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine:
            nn.init.normal_(module.weight)  # of both signs
            nn.init.normal_(module.bias)
    quintil.quantize_(model, scheme)
    with torch.no_grad():
        for _ in range(3):
            model(x)
    return model.eval()


def called(program: torch.fx.GraphModule) -> list[type]:
    """Classes of the modules in the order of their calls."""
    return [type(program.get_submodule(node.target)) for node in program.graph.nodes if node.op == "call_module"]


@pytest.mark.parametrize("options", [{}, {"per_channel": True}, {"ema_debias": True, "quantize_bias": False}], ids=str)
@pytest.mark.parametrize("bits", [(8, 8), (8, 4), (4, 8), (7, 7), (1, 2)], ids=str)
def test_half_integers_equal_the_model(bits, options):
    x = images(6)
    model = vecq_net(VecQ(*bits, **options))
    program = deploy(model, x[:2])
    with torch.no_grad():
        close(program(x), model(x))
        close(program(x[:1]), model(x[:1]))
    layers = [module for module in program.modules() if isinstance(module, (HalfIntegerConv2d, HalfIntegerLinear))]
    assert sorted(module.relu for module in layers) == [False, False, True, True, True]
    assert set(called(program)) == {HalfIntegerConv2d, HalfIntegerLinear}


def test_without_a_batch_norm_the_bits_are_the_models():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(256, 5))
    x = images()
    vecq_net(VecQ(8, 8), model, x)
    program = deploy(model, x)
    assert called(program) == [HalfIntegerConv2d, nn.Flatten, HalfIntegerLinear]
    with torch.no_grad():
        assert_same(program(x), model(x))


def test_lenet_5_is_joined():
    x = torch.randn(4, 1, 28, 28)
    model = vecq_net(VecQ(8, 8), lenet5(), x)
    program = deploy(model, x)
    kinds = [
        HalfIntegerConv2d,
        nn.MaxPool2d,
        HalfIntegerConv2d,
        nn.MaxPool2d,
        nn.Flatten,
        HalfIntegerLinear,
        HalfIntegerLinear,
    ]
    assert called(program) == kinds
    with torch.no_grad():
        close(program(x), model(x))


def test_half_integers_with_other_readers_and_without_integers():
    x = images()
    for scheme in (VecQ(4, 8), VecQ(4), VecQ(4, 8, levels="ul2q"), VecQ(4, 8, activation_place="output")):
        model = vecq_net(scheme, Branches(), x)
        program = deploy(model, x)
        joined = [m for m in program.modules() if isinstance(m, HalfIntegerConv2d)]
        assert len(joined) == (3 if scheme == VecQ(4, 8) else 0)
        assert not any(module.relu for module in joined)
        with torch.no_grad():
            close(program(x), model(x))
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    x = torch.randn(3, 4, 6, 6)
    program = deploy(vecq_net(VecQ(4, 8), grouped, x), x)
    assert sum(isinstance(m, VecQConv2d) for m in program.modules()) == 1
    with torch.no_grad():
        close(program(x), grouped(x))


def test_half_integers_scripted_exported_and_stored():
    x = images()
    program = deploy(vecq_net(VecQ(8, 8)), x)
    check_copies(program, x)


def test_half_integers_need_averages():
    with pytest.raises(RuntimeError, match="expected a training forward or calibrate"):
        deploy(quintil.quantize_(Net(), VecQ(4, 8)).eval(), images())


def test_refusals():
    with pytest.raises(ValueError, match="deploy: expected model to hold layers of Double Rounding or VecQ, got none"):
        deploy(quintil.quantize_(Net(), HDQT()), images())

    class Forks(Net):
        def forward(self, x):
            return super().forward(x if x.sum() > 0 else -x)

    model = trained(quintil.quantize_(Forks(), DoubleRounding(bits=(8, 4, 2))), images())
    with pytest.raises(TypeError, match="to be traceable by torch.fx"):
        deploy(model, images())
