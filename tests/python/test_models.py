"""The networks: sizes, initialisation, and a classifier that grows and keeps what it has [CIL 1, R1]."""

from __future__ import annotations

import math
import re

import pytest
import quintil
import torch
from conftest import same_bits
from quintil import HDQT
from quintil.models import CifarResNet, FCNet, IncrementalNet, resnet20, resnet32
from quintil.nn import HadamardLinear
from torch import nn


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_sizes():
    assert parameters(resnet32()) == 463_504
    assert parameters(resnet20()) == 269_072
    net = IncrementalNet(FCNet(405))
    net.grow(19)
    assert parameters(net) == 335_745


def test_resnet():
    generator = torch.Generator().manual_seed(1)
    net = resnet32(generator=generator)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 31 and all(conv.bias is None for conv in convolutions)
    for conv in convolutions:
        deviation = math.sqrt(2 / (9 * conv.out_channels))
        assert conv.weight.std().item() == pytest.approx(deviation, rel=0.12)
    x = torch.randn(2, 3, 32, 32)
    assert net(x).shape == (2, 64) and bool((net(x) >= 0).all())  # the last ReLU is kept
    again = resnet32(generator=torch.Generator().manual_seed(1))
    assert all(same_bits(a, b) for a, b in zip(net.parameters(), again.parameters()))
    with pytest.raises(ValueError, match="^CifarResNet: expected blocks of at least 1, got 0$"):
        CifarResNet(0)


def test_shortcut_has_no_parameters():
    """Every second pixel, then zero channels: visible where both convolutions give nothing."""
    net = CifarResNet(1).eval()
    block = net.layer2[0]
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 16, 8, 8)
    y = block(x)
    assert same_bits(y[:, :16], nn.functional.avg_pool2d(x, 1, stride=2)) and torch.count_nonzero(y[:, 16:]) == 0


@pytest.mark.parametrize(
    "options, widths",
    [
        ({}, [12, 12, 12]),
        ({"hidden": 30}, [12, 30, 12]),
        ({"hidden": 30, "fc_nr_hid": 2}, [12, 30, 30, 30, 12]),
        ({"hidden": 31, "half_dims": True}, [12, 15, 6]),
    ],
)
@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_fcnet(options, widths, norm):
    net = FCNet(12, norm=norm, **options)
    linears = [m for m in net.modules() if isinstance(m, nn.Linear)]
    assert [linears[0].in_features, *(m.out_features for m in linears)] == widths
    assert net.out_features == widths[-1] and all(m.bias is None for m in linears)
    norms = [m for m in net.modules() if isinstance(m, (nn.LayerNorm, nn.BatchNorm1d))]
    assert len(norms) == (0 if norm == "none" else len(linears))
    assert net(torch.randn(5, 3, 4)).shape == (5, widths[-1])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: FCNet(4, norm="group"), "FCNet: expected norm to be one of none, layer, batch, got 'group'"),
        (lambda: FCNet(4, fc_nr_hid=-1), "FCNet: expected fc_nr_hid of at least 0, got -1"),
        (
            lambda: FCNet(1, half_dims=True),
            "FCNet: expected layer widths of at least 1, got [1, 0, 0] (in_features first)",
        ),
        (lambda: IncrementalNet(FCNet(4)).grow(0), "grow: expected classes of at least 1, got 0"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        call()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scheme", [None, HDQT(), HDQT.paper()], ids=["float32", "HDQT", "paper"])
def test_growing_keeps_old_rows_to_the_bit(scheme, bias):
    net = IncrementalNet(FCNet(24), bias=bias)
    with pytest.raises(RuntimeError, match="^IncrementalNet: expected a head, got none"):
        net(torch.zeros(1, 24))
    generator, sizes = torch.Generator().manual_seed(2), [2, 5, 33, 34]
    for known, classes in zip([0, *sizes], sizes):
        old = [p.detach().clone() for p in net.head.parameters()] if known else []
        net.grow(classes, generator=generator)
        assert type(net.head) is nn.Linear and net.classes == classes == net.head.out_features
        for before, after in zip(old, net.head.parameters()):
            assert same_bits(after[:known], before)
        limit = math.sqrt(3 / 24)  # kaiming-uniform of gain 1
        assert net.head.weight[known:].abs().max().item() <= limit
        assert net.head.weight.numel() < 100 or net.head.weight.abs().max().item() > 0.9 * limit
        assert not bias or torch.count_nonzero(net.head.bias[known:]) == 0
        if scheme is not None:
            quintil.quantize_(net, scheme)
            assert isinstance(net.head, HadamardLinear)
    head = net.head
    net.grow(34)
    assert net.head is head
    with pytest.raises(ValueError, match="^grow: expected classes of at least 34, got 33$"):
        net.grow(33)


@pytest.mark.parametrize("scheme", [None, HDQT(), HDQT.paper()], ids=["float32", "HDQT", "paper"])
def test_growing_keeps_old_logits_to_the_bit(scheme):
    """Where nothing rounds differently: exact sums in float32, the scale set by an old row in HDQT."""
    net = IncrementalNet(FCNet(40), bias=True).eval()
    net.grow(5)
    with torch.no_grad():
        net.head.weight.normal_(std=8.0).round_()
    x = torch.randint(-3, 4, (37, 40)).float()
    net.backbone = nn.Identity()

    def logits() -> torch.Tensor:
        if scheme is not None:
            quintil.quantize_(net, scheme)
        return net(x).detach()

    before = logits()
    net.backbone = FCNet(40)
    net.grow(40)  # across the tile of 32
    net.backbone = nn.Identity()
    assert same_bits(logits()[:, :5].contiguous(), before)


@pytest.mark.parametrize("training", [True, False])
def test_growing_keeps_mode_and_dtype(training):
    net = IncrementalNet(FCNet(8).double()).train(training)
    net.grow(2)
    net.grow(3)
    assert net.head.training is training and net.head.weight.dtype == torch.float64
    assert net.head.weight.requires_grad and net.head.bias is None
