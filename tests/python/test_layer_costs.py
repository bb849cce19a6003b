"""Weights and multiplications per layer."""

import torch
from quintil.bits import LayerCost, layer_costs
from quintil.models import mobilenet_v2
from torch import nn


def test_layers():
    shared = nn.Linear(6, 6)
    net = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, stride=2), nn.Conv2d(8, 6, (1, 3), groups=2, bias=False),
                        nn.Flatten(2), nn.Linear(20, 1), nn.Flatten(), shared, nn.ReLU(), shared)  # fmt: skip
    net[6].eval()
    assert layer_costs(net, torch.zeros(3, 4, 10, 12)) == {
        "0": LayerCost(8 * 36, 8 * 36 * 30),
        "1": LayerCost(6 * 12, 6 * 12 * 20),
        "3": LayerCost(20, 20 * 6),
        "5": LayerCost(36, 2 * 36),
    }
    assert net.training and not net[6].training and not any(m._forward_hooks for m in net.modules())
    assert layer_costs(nn.ModuleList([nn.Linear(2, 2), nn.Identity()])[1], torch.zeros(1, 2)) == {}


def test_a_known_network():
    """300 million multiplications, as published for MobileNetV2."""
    costs = layer_costs(mobilenet_v2(), torch.zeros(1, 3, 224, 224))
    assert len(costs) == 53 and sum(c.macs for c in costs.values()) == 300_774_272
    assert sum(c.parameters for c in costs.values()) == 3_469_760
