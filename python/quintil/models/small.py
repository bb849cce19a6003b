"""Small networks of VecQ's studies: LeNet-5, a VGG-like net, a convolution with an LSTM for texts [VecQ 2.9]."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _convolution(inputs: int, outputs: int, size: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, size, padding=size // 2), nn.BatchNorm2d(outputs), nn.ReLU()]


def _classifier(features: int, hidden: int, classes: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(features, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, classes)]


def _drawn(net: nn.Module, generator: torch.Generator | None) -> nn.Module:
    """Kaiming's normal distribution for convolutions and linear layers, biases 0, drawn from `generator`."""
    for module in net.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(module.bias)
    return net


def lenet5(classes: int = 10, *, in_channels: int = 1, generator: torch.Generator | None = None) -> nn.Sequential:
    """Images [N, in_channels, 28, 28] -> logits: 5x5 convolutions of 32 and 64 channels, 512 hidden units.

    1,663,370 parameters for MNIST beside those of BatchNorm.
    """
    layers = [*_convolution(in_channels, 32, 5), nn.MaxPool2d(2), *_convolution(32, 64, 5), nn.MaxPool2d(2)]
    return _drawn(nn.Sequential(*layers, *_classifier(7 * 7 * 64, 512, classes)), generator)


def vgg_like(classes: int = 10, *, in_channels: int = 3, generator: torch.Generator | None = None) -> nn.Sequential:
    """Images [N, in_channels, 32, 32] -> logits: pairs of 3x3 convolutions of 64, 128, 256 channels, 1,024 hidden.

    5,350,986 parameters for 10 classes beside those of BatchNorm.
    """
    layers: list[nn.Module] = []
    inputs = in_channels
    for outputs in (64, 128, 256):
        layers += [*_convolution(inputs, outputs, 3), *_convolution(outputs, outputs, 3), nn.MaxPool2d(2)]
        inputs = outputs
    return _drawn(nn.Sequential(*layers, *_classifier(4 * 4 * 256, 1024, classes)), generator)


class CnnLstm(nn.Module):
    """Words [N, length] int64 -> one logit [N]: embedding, convolution over 5 words, LSTM, linear.

    words: size of the vocabulary. With the defaults 2,638,895 parameters that train: of the LSTM's two biases, whose
    sum alone matters, the recurrent one stays 0.
    """

    def __init__(
        self, words: int = 20_000, width: int = 128, channels: int = 64, hidden: int = 70, *,
        dropout: float = 0.25, generator: torch.Generator | None = None,
    ):  # fmt: skip
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.dropout = nn.Dropout(dropout)
        self.conv = nn.Conv1d(width, channels, 5)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool1d(4)
        self.lstm = nn.LSTM(channels, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, 1)
        _drawn(self, generator)
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05, generator=generator)
        nn.init.xavier_uniform_(self.lstm.weight_ih_l0, generator=generator)
        nn.init.orthogonal_(self.lstm.weight_hh_l0, generator=generator)
        nn.init.zeros_(self.lstm.bias_ih_l0)
        nn.init.ones_(self.lstm.bias_ih_l0[hidden : 2 * hidden])  # the forget gates begin open
        nn.init.zeros_(self.lstm.bias_hh_l0)
        self.lstm.bias_hh_l0.requires_grad_(False)

    def forward(self, words: Tensor) -> Tensor:
        x = self.dropout(self.embedding(words)).transpose(1, 2)
        x = self.pool(self.relu(self.conv(x))).transpose(1, 2)
        _, (state, _) = self.lstm(x)
        return self.fc(state[-1]).squeeze(1)
