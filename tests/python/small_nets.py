"""The models that the tests of the swap work on."""

from __future__ import annotations

import quintil
import torch
from quintil import DoubleRounding
from quintil.nn import HadamardConv2d, HadamardLinear
from torch import nn


class OwnLinear(nn.Linear):
    """A user's subclass: keeps its attributes and methods through a swap."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.note = "mine"

    def shout(self) -> str:
        return self.note.upper()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())
        self.body = nn.ModuleDict({"a": nn.Linear(72, 16), "b": OwnLinear(16, 16)})
        self.head = nn.Linear(16, 5, bias=False)

    def forward(self, x):
        x = self.block(self.stem(x)).flatten(1)
        return self.head(self.body["b"](self.body["a"](x).relu()))


SWAPPABLE = {"stem.0", "block.0", "body.a", "body.b", "head"}


def images(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 3, 8, 8)


def swapped(model: nn.Module) -> set[str]:
    return {name for name, m in model.named_modules() if isinstance(m, (HadamardLinear, HadamardConv2d))}


def trained(model: nn.Module, x: torch.Tensor, widths: tuple[int, ...] = (8, 4, 2)) -> nn.Module:
    """After training forwards at all widths, with BatchNorms that do something."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    with torch.no_grad():
        for width in widths:
            quintil.set_bits(model, width)
            for _ in range(3):
                model(x)
    return model.eval()


def trained_with(scheme) -> nn.Module:
    """A swapped Net in evaluation mode, after training forwards at all widths of its scheme."""
    model = quintil.quantize_(Net(), scheme)
    with torch.no_grad():
        for width in getattr(scheme, "bits", ()) if isinstance(scheme, DoubleRounding) else (None,):
            if width is not None:
                quintil.set_bits(model, width)
            for _ in range(2):
                model(images())
    return model.eval()


def descent(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor, steps: int
) -> list[float]:
    """Cross-entropy losses of so many steps on one batch."""
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
