"""Pre-activation ResNets: BatchNorm and ReLU stand before every convolution [DR 2.4].

A convolution's input is so always the output of a ReLU, which unsigned codes suit. Where a block changes the shape,
its shortcut is a 1x1 convolution of the first ReLU's output. A block defines its modules in the order in which they
run, the shortcut before the convolution beside it: `quintil.set_bits` reads that order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .resnet import start_convolutions


def _shortcut(in_channels: int, channels: int, stride: int) -> nn.Conv2d | None:
    if stride == 1 and in_channels == channels:
        return None
    return nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)


class PreActBlock(nn.Module):
    """Two 3x3 convolutions: [N, in_channels, H, W] -> [N, channels, H / stride, W / stride]."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.shortcut = _shortcut(in_channels, channels, stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x))
        if self.shortcut is not None:
            x = self.shortcut(y)
        y = self.conv1(y)
        return x + self.conv2(F.relu(self.bn2(y)))


class PreActBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; the last one widens to 4 x `channels`. The 3x3 one carries the stride."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.shortcut = _shortcut(in_channels, 4 * channels, stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x))
        if self.shortcut is not None:
            x = self.shortcut(y)
        y = self.conv2(F.relu(self.bn2(self.conv1(y))))
        return x + self.conv3(F.relu(self.bn3(y)))


class PreActResNet(nn.Module):
    """Images [N, in_channels, H, W] -> logits [N, classes].

    block: PreActBlock or PreActBottleneck. blocks: of every stage; each stage after the first halves the resolution
        and doubles the channels, which are `channels` in the first.
    large: the stem of photographs, a 7x7 convolution of stride 2 and a max pool, instead of a 3x3 convolution.
    Convolutions start from Kaiming's normal distribution (fan out), the classifier from his uniform one with gain 1,
    both drawn from `generator`.
    """

    def __init__(
        self,
        block: type[PreActBlock] | type[PreActBottleneck],
        blocks: Sequence[int],
        channels: int,
        classes: int,
        *,
        in_channels: int = 3,
        large: bool = False,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if not blocks or min(blocks) < 1:
            raise ValueError(f"PreActResNet: expected blocks of at least 1 per stage, got {list(blocks)}")
        if large:
            self.conv1 = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if large else nn.Identity()
        stages, width = [], channels
        for number, count in enumerate(blocks):
            stage = []
            for position in range(count):
                stride = 2 if number > 0 and position == 0 else 1
                stage.append(block(width, channels << number, stride))
                width = (channels << number) * block.expansion
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, classes)
        start_convolutions(self, generator)
        start_classifier(self.fc, generator)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.pool(self.conv1(x)))
        return self.fc(F.relu(self.bn(x)).mean(dim=(2, 3)))


def start_classifier(fc: nn.Linear, generator: torch.Generator | None) -> None:
    """Kaiming's uniform distribution with gain 1; no bias at first."""
    nn.init.kaiming_uniform_(fc.weight, nonlinearity="linear", generator=generator)
    nn.init.zeros_(fc.bias)


def preact_resnet20(
    classes: int = 10, *, in_channels: int = 3, generator: torch.Generator | None = None
) -> PreActResNet:
    """For images of about 32x32: three stages of 16, 32 and 64 channels, 272,282 parameters for CIFAR-10."""
    return PreActResNet(PreActBlock, (3, 3, 3), 16, classes, in_channels=in_channels, generator=generator)


def preact_resnet18(
    classes: int = 1000, *, in_channels: int = 3, generator: torch.Generator | None = None
) -> PreActResNet:
    """For images of about 224x224: 11,687,720 parameters for ImageNet."""
    options = {"in_channels": in_channels, "large": True, "generator": generator}
    return PreActResNet(PreActBlock, (2, 2, 2, 2), 64, classes, **options)


def preact_resnet50(
    classes: int = 1000, *, in_channels: int = 3, generator: torch.Generator | None = None
) -> PreActResNet:
    """For images of about 224x224: 25,549,352 parameters for ImageNet."""
    options = {"in_channels": in_channels, "large": True, "generator": generator}
    return PreActResNet(PreActBottleneck, (3, 4, 6, 3), 64, classes, **options)
