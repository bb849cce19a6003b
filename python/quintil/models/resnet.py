"""ResNet-20/32 for 32x32 images, three stages of 16, 32 and 64 channels [CIL 1, Networks].

Option-A shortcuts: where a stage halves the resolution, the identity is every second pixel (a 1x1 average pool of
stride 2) followed by zero channels; no shortcut has parameters. The classifier is not part of it: `forward` returns
64 features, with their last ReLU unless `last_relu` is false.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def start_convolutions(net: nn.Module, generator: torch.Generator | None) -> None:
    """Draw the weight of every Conv2d from N(0, sqrt(2 / (k^2 C_out))): Kaiming's normal distribution, fan out."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            deviation = math.sqrt(2.0 / (module.kernel_size[0] * module.kernel_size[1] * module.out_channels))
            nn.init.normal_(module.weight, 0.0, deviation, generator=generator)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, added to the option-A shortcut; `last_relu`: a ReLU on the sum."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, last_relu: bool = True):
        super().__init__()
        self.last_relu = last_relu
        self.stride = stride
        self.extra_channels = channels - in_channels
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride != 1 or self.extra_channels != 0:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra_channels))
        return F.relu(x + y) if self.last_relu else x + y


class CifarResNet(nn.Module):
    """ResNet of depth 6 * `blocks` + 2: images [N, 3, H, W] -> features [N, 64].

    Convolutions start from N(0, sqrt(2 / (k^2 C_out))) drawn from `generator`; they have no bias.
    """

    out_features = 64

    def __init__(self, blocks: int, *, last_relu: bool = True, generator: torch.Generator | None = None):
        super().__init__()
        if blocks < 1:
            raise ValueError(f"CifarResNet: expected blocks of at least 1, got {blocks}")
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, 1, blocks)
        self.layer2 = self._stage(16, 32, 2, blocks)
        self.layer3 = self._stage(32, 64, 2, blocks)
        self.layer3[-1].last_relu = last_relu
        start_convolutions(self, generator)

    @staticmethod
    def _stage(in_channels: int, channels: int, stride: int, blocks: int) -> nn.Sequential:
        first = BasicBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return x.mean(dim=(2, 3))

    def split(self) -> tuple[ResNetBase, ResNetTop]:
        """The same modules in two parts, `top(base(x))` = `self(x)`: the third stage is the top [CIL 2.8]."""
        return ResNetBase(self), ResNetTop(self)


class ResNetBase(nn.Module):
    """First convolution and first two stages of a CifarResNet: images [N, 3, H, W] -> maps [N, 32, H/2, W/2]."""

    def __init__(self, net: CifarResNet):
        super().__init__()
        self.conv1, self.bn1, self.layer1, self.layer2 = net.conv1, net.bn1, net.layer1, net.layer2

    def forward(self, x: Tensor) -> Tensor:
        return self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))


class ResNetTop(nn.Module):
    """Third stage and average pool of a CifarResNet: maps [N, 32, H, W] -> features [N, 64]."""

    out_features = CifarResNet.out_features

    def __init__(self, net: CifarResNet):
        super().__init__()
        self.layer3 = net.layer3

    def forward(self, x: Tensor) -> Tensor:
        return self.layer3(x).mean(dim=(2, 3))


def resnet20(*, last_relu: bool = True, generator: torch.Generator | None = None) -> CifarResNet:
    """Three blocks per stage, 269,072 parameters without a head."""
    return CifarResNet(3, last_relu=last_relu, generator=generator)


def resnet32(*, last_relu: bool = True, generator: torch.Generator | None = None) -> CifarResNet:
    """Five blocks per stage, 463,504 parameters without a head."""
    return CifarResNet(5, last_relu=last_relu, generator=generator)
