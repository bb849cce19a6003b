"""The layers of Double Rounding that its tests work on."""

from __future__ import annotations

import torch
from quintil import DoubleRounding
from quintil.nn import DoubleRoundingLinear
from torch import nn

WIDTHS = (8, 6, 4, 2)


def linear(scheme: DoubleRounding | None = None, inputs: int = 20, outputs: int = 7) -> DoubleRoundingLinear:
    return DoubleRoundingLinear(inputs, outputs, scheme=scheme or DoubleRounding())


def started(layer: nn.Module, x: torch.Tensor) -> nn.Module:
    """After a training forward at every width."""
    training = layer.training
    layer.train()
    with torch.no_grad():
        for width in layer.widths:
            layer.set_bits(width)
            layer(x)
    layer.set_bits(layer.widths[0])
    return layer.train(training)
