"""Activation functions whose input is on half-integer levels: `activation_place='before_activation'` [VECQ 2.7].

A quantiser here stands behind the BatchNorm, where numbers of both signs use all levels, and a ReLU makes true zeros of
the lower half. Forwards are spelled out, since TorchScript knows no super().
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quintil.nn.levels import ActivationQuantizer
from quintil.nn.registry import SwappedLayer, swaps
from quintil.schemes import VecQ


class VecQActivation(SwappedLayer):
    """What they share: a quantiser of the input."""

    multiplies = False

    @classmethod
    def wanted(cls, scheme: VecQ) -> bool:
        return scheme.activation_bits is not None and scheme.activation_place == "before_activation"

    def attach(self, scheme: VecQ) -> None:
        super().attach(scheme)
        device = torch.get_default_device()  # there is no weight that could have another one
        self.input_quantizer = ActivationQuantizer(scheme.activation_bits or 0, scheme, device).train(self.training)

    def detach(self) -> None:
        del self.input_quantizer
        super().detach()


@swaps(VecQ, nn.ReLU)
class VecQReLU(VecQActivation, nn.ReLU):
    """nn.ReLU of half-integer levels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(self.input_quantizer(input), self.inplace)


@swaps(VecQ, nn.ReLU6)
class VecQReLU6(VecQActivation, nn.ReLU6):
    """nn.ReLU6 of half-integer levels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu6(self.input_quantizer(input), self.inplace)


@swaps(VecQ, nn.LeakyReLU)
class VecQLeakyReLU(VecQActivation, nn.LeakyReLU):
    """nn.LeakyReLU of half-integer levels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(self.input_quantizer(input), self.negative_slope, self.inplace)


@swaps(VecQ, nn.SiLU)
class VecQSiLU(VecQActivation, nn.SiLU):
    """nn.SiLU of half-integer levels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(self.input_quantizer(input), self.inplace)


@swaps(VecQ, nn.GELU)
class VecQGELU(VecQActivation, nn.GELU):
    """nn.GELU of half-integer levels."""

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(self.input_quantizer(input), approximate=self.approximate)


@swaps(VecQ, nn.Tanh)
class VecQTanh(VecQActivation, nn.Tanh):
    """nn.Tanh of half-integer levels."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.tanh(self.input_quantizer(input))


@swaps(VecQ, nn.Sigmoid)
class VecQSigmoid(VecQActivation, nn.Sigmoid):
    """nn.Sigmoid of half-integer levels."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.sigmoid(self.input_quantizer(input))
