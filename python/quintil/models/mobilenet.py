"""MobileNetV2 for images of about 224x224: inverted residuals with linear bottlenecks.

Seen from the next convolution every ReLU6 stands before it, as in the pre-activation nets. The input of an expansion
is the sum of linear bottlenecks, which has both signs: quantise with an offset there [DR D13].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .preact import start_classifier
from .resnet import start_convolutions

# (expansion, channels, blocks, stride of the first block)
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_LAST = 1280


def _layer(in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = (kernel - 1) // 2
    conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(channels), nn.ReLU6()]


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; added to the input where the shape allows."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int):
        super().__init__()
        hidden = in_channels * expansion
        layers = [] if expansion == 1 else _layer(in_channels, hidden, 1)
        layers += _layer(hidden, hidden, 3, stride, groups=hidden)
        layers += [nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels)]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):
    """Images [N, in_channels, H, W] -> logits [N, classes].

    dropout: before the classifier. Initialised as PreActResNet, drawn from `generator`.
    """

    def __init__(
        self,
        classes: int,
        *,
        in_channels: int = 3,
        dropout: float = 0.2,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        width = 32
        layers = _layer(in_channels, width, 3, stride=2)
        for expansion, channels, blocks, first_stride in _STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(width, channels, first_stride if block == 0 else 1, expansion))
                width = channels
        self.features = nn.Sequential(*layers, *_layer(width, _LAST, 1))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(_LAST, classes)
        start_convolutions(self, generator)
        start_classifier(self.fc, generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(self.features(x).mean(dim=(2, 3))))


def mobilenet_v2(classes: int = 1000, *, in_channels: int = 3, generator: torch.Generator | None = None) -> MobileNetV2:
    """3,504,872 parameters for ImageNet."""
    return MobileNetV2(classes, in_channels=in_channels, generator=generator)
