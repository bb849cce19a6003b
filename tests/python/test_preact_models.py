"""Pre-activation ResNets and MobileNetV2: sizes, shapes, initialisation, order of definition [DR 2.4]."""

from __future__ import annotations

import math
import re

import pytest
import torch
from conftest import same_bits
from quintil.models import PreActResNet, mobilenet_v2, preact_resnet18, preact_resnet20, preact_resnet50
from quintil.models.preact import PreActBlock, PreActBottleneck
from torch import nn

NETS = {
    "resnet20": (preact_resnet20, 32),
    "resnet18": (preact_resnet18, 64),
    "resnet50": (preact_resnet50, 64),
    "mobilenet_v2": (mobilenet_v2, 64),
}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def counted(kind: type[nn.Module], model: nn.Module) -> int:
    return sum(isinstance(m, kind) for m in model.modules())


def test_sizes():
    """Convolutions and classifiers of the known nets; BatchNorms have the channels before each convolution."""
    convolutions = 432 + 6 * 2304 + 4608 + 5 * 9216 + 18432 + 5 * 36864 + 512 + 2048
    assert parameters(preact_resnet20()) == convolutions + 2 * (96 + 176 + 352 + 64) + 650 == 272_282
    assert parameters(preact_resnet18()) == 11_166_912 + 2 * (256 + 448 + 896 + 1792 + 512) + 513_000 == 11_687_720
    norms = 2 * (960 + 2816 + 8704 + 8192 + 2048)
    assert parameters(preact_resnet50()) == 23_454_912 + norms + 2_049_000 == 25_549_352
    assert parameters(mobilenet_v2()) == 3_504_872
    net = preact_resnet20()
    assert counted(nn.Conv2d, net) == 19 + 2 and counted(nn.BatchNorm2d, net) == 19
    assert [counted(nn.Conv2d, make()) for make in (preact_resnet18, preact_resnet50)] == [20, 53]


@pytest.mark.parametrize("make, size", NETS.values(), ids=NETS)
def test_runs_and_repeats(make, size):
    net = make(7, in_channels=1, generator=torch.Generator().manual_seed(1)).eval()
    again = make(7, in_channels=1, generator=torch.Generator().manual_seed(1)).eval()
    x = torch.randn(2, 1, size, size)
    y = net(x)
    assert y.shape == (2, 7) and y.isfinite().all() and same_bits(again(x), y)
    for conv in (m for m in net.modules() if isinstance(m, nn.Conv2d)):
        deviation = math.sqrt(2 / (conv.kernel_size[0] ** 2 * conv.out_channels))
        error = 5 * deviation / math.sqrt(2 * conv.weight.numel())
        assert conv.bias is None and abs(conv.weight.std(unbiased=False).item() - deviation) < error
    assert net.fc.weight.abs().max().item() <= math.sqrt(3 / net.fc.in_features)
    assert torch.count_nonzero(net.fc.bias) == 0


@pytest.mark.parametrize("block, channels", [(PreActBlock, 6), (PreActBottleneck, 24)])
@pytest.mark.parametrize("stride", [1, 2])
def test_block(block, channels, stride):
    """What a block adds: the shortcut sees the first ReLU, the identity the input itself."""
    x = torch.randn(2, channels, 8, 8)
    made = block(channels, 6, stride).eval()
    last = made.conv3 if block is PreActBottleneck else made.conv2
    nn.init.zeros_(last.weight)
    if stride == 1:
        assert made.shortcut is None and same_bits(made(x), x)
    else:
        assert same_bits(made(x), made.shortcut(made.bn1(x).relu()) + 0.0)


@pytest.mark.parametrize("make, size", NETS.values(), ids=NETS)
def test_order_of_definition_is_the_order_of_execution(make, size):
    net, ran = make(3).eval(), []
    layers = {n: m for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d, nn.Linear))}
    for name, module in layers.items():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    net(torch.zeros(1, 3, size, size))
    assert ran == list(layers)


def test_refused():
    with pytest.raises(
        ValueError, match=re.escape("PreActResNet: expected blocks of at least 1 per stage, got [3, 0]")
    ):
        PreActResNet(PreActBlock, (3, 0), 16, 10)
