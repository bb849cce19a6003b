"""BatchNorms folded into the layers before them, for inference at the widths that a model has now [DR 2.6]."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from quintil.nn.double_rounding import DoubleRoundingConv2d, DoubleRoundingLinear
from quintil.nn.norm import SwitchableBatchNorm1d, SwitchableBatchNorm2d
from quintil.nn.swap import SwappedLayer

_SWITCHABLE = (SwitchableBatchNorm1d, SwitchableBatchNorm2d)
QUANTISED = (DoubleRoundingLinear, DoubleRoundingConv2d)


class FoldedNorm(nn.Identity):
    """What stands in the place of a BatchNorm that was folded into the layer before it."""


def fold_norms_(model: nn.Module) -> list[str]:
    """Fold every BatchNorm that directly follows a layer into it, in place; names of the BatchNorms, now nn.Identity.

    Layers: nn.Linear and nn.Conv2d in float, whose weight and bias change, and those of Double Rounding, whose integers
    stay: an output gain and the bias take the BatchNorm in, for the current widths. Such a layer has no other width
    from then on, so this is for a copy of the model that is to run. What has another user too stays as it is (the first
    BatchNorm of a pre-activation block), and so do BatchNorms without statistics. The model is in evaluation mode
    afterwards. TypeError if torch.fx cannot trace it.
    """
    model.eval()
    try:
        graph = LeafTracer().trace(model)
    except Exception as error:  # whatever the model's own code raises on proxies
        raise TypeError(f"fold_norms_: expected model to be traceable by torch.fx, got {error}") from error
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    modules = dict(model.named_modules(remove_duplicate=False))
    folded = []
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        layer, norm = modules[before.target], modules[node.target]
        once = calls[node.target] == calls[before.target] == 1
        if once and _takes(layer) and isinstance(norm, _BatchNorm) and norm.running_mean is not None:
            _fold(layer, norm)
            parent, _, name = node.target.rpartition(".")
            setattr(modules[parent], name, FoldedNorm().eval())
            folded.append(node.target)
    return folded


class LeafTracer(fx.Tracer):
    """Swapped layers are leaves, as torch's own layers are."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, SwappedLayer) or super().is_leaf_module(module, name)


def _takes(layer: nn.Module) -> bool:
    if isinstance(layer, SwappedLayer):
        return isinstance(layer, QUANTISED)
    return isinstance(layer, (nn.Linear, nn.Conv2d))


@torch.no_grad()
def _fold(layer: nn.Module, norm: _BatchNorm) -> None:
    gain, shift = affine_of(norm)
    if isinstance(layer, QUANTISED):
        layer.fold(gain, shift)
        return
    bias = shift if layer.bias is None else layer.bias * gain + shift
    layer.weight.mul_(gain.reshape(-1, *[1] * (layer.weight.dim() - 1)))
    layer.bias = nn.Parameter(bias.to(layer.weight.dtype), requires_grad=layer.weight.requires_grad)


def affine_of(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """gain, shift with norm(x) = x gain + shift per channel, at the widths of now; computed in double, float32."""
    norm = norm.active() if isinstance(norm, _SWITCHABLE) else norm
    gain = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        gain = gain * norm.weight.double()
    shift = -norm.running_mean.double() * gain
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    return gain.float(), shift.float()
