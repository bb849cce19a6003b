"""Sizes of a model's layers: weights and multiplications of one sample, measured by running it once."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerCost:
    """parameters: weights without bias. macs: multiplications for one sample."""

    parameters: int
    macs: int


@torch.no_grad()
def layer_costs(model: nn.Module, x: Tensor) -> dict[str, LayerCost]:
    """Costs of every nn.Linear and nn.Conv2d that runs on a batch `x`, in the order of definition.

    The model runs in evaluation mode, which is set back. A layer that runs several times counts all of its runs.
    """
    runs: dict[str, int] = {}
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    hooks = [m.register_forward_hook(functools.partial(_count, runs, name)) for name, m in layers.items()]
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()(x)
    finally:
        for module, mode in training.items():
            module.training = mode
        for hook in hooks:
            hook.remove()
    return {name: LayerCost(layers[name].weight.numel(), runs[name] // len(x)) for name in layers if name in runs}


def _count(runs: dict[str, int], name: str, layer: nn.Module, arguments: tuple, output: Tensor) -> None:
    """Every output element is a sum over one row of the weight."""
    runs[name] = runs.get(name, 0) + output.numel() * math.prod(layer.weight.shape[1:])
