"""TorchScript models that switch their bits by themselves, in processes without Python too."""

from __future__ import annotations

import copy
import json

import torch
from torch import nn

from quintil.nn.widths import switched_modules


def script(model: nn.Module, *, values: bool = True) -> torch.jit.ScriptModule:
    """`torch.jit.script(model)` with a method `set_bits(bits: int)` that sets all layers, and BatchNorms per width.

    The method is saved with the module: in C++ `module.run_method("set_bits", 4)`. It refuses, before anything is
    changed, a width that a layer does not have. Widths per layer are for `quintil.set_bits`, in Python and C++.
    values: False leaves all numbers of parameters and buffers out. Saved, it is the architecture alone, which
        `quintil::load_quantized` in C++ fills from a file of `save_quantized`; until then it computes nothing of use. A
        model without layers of several widths has its architecture too, without the method.
    ValueError for a model without such layers, where values are kept, or with a method `set_bits` of its own.
    """
    switched = list(switched_modules(model))
    layers = {name: module for name, module, is_layer in switched if is_layer}
    if not layers and values:
        raise ValueError("script: expected model to hold layers of several widths, got none")
    if not values:
        model = _without_values(model)
    if not layers or "" in layers:  # nothing to switch, or a single layer, which has the method
        return torch.jit.script(model)
    if hasattr(model, "set_bits"):
        raise ValueError("script: expected model to have no attribute 'set_bits', got one")
    scripted = torch.jit.script(model)
    if not hasattr(scripted, "set_bits"):  # else an equal architecture was scripted before: the two share their class
        scripted.define(_method(list(layers), [name for name, _, is_layer in switched if not is_layer]))
    return scripted


def _without_values(model: nn.Module) -> nn.Module:
    """A copy whose tensors are one zero each, expanded to their sizes; so every buffer `ready` says no."""
    model = copy.deepcopy(model)
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.new_zeros(()).expand(tensor.shape)
    return model


def _method(layers: list[str], norms: list[str]) -> str:
    lines = ["def set_bits(self, bits: int) -> None:"]
    for name in layers:
        lines.append(f"    widths = {_path(name)}.widths")
        lines.append("    if bits not in widths:")
        lines.append('        listed = ", ".join([str(width) for width in widths])')
        lines.append('        expected = "set_bits: expected bits to be one of " + listed + ", got " + str(bits)')
        lines.append(f"        raise ValueError(expected + {_text(f' (layer {name!r})')})")
    lines += [f"    {_path(name)}.set_bits(bits)" for name in layers]
    lines += [f"    {_path(name)}.set_bits(bits, bits)" for name in norms]
    return "\n".join([*lines, ""])


def _path(name: str) -> str:
    """An expression for the submodule; names may be numbers, so that dots would not do."""
    expression = "self"
    for part in name.split("."):
        expression = f"getattr({expression}, {_text(part)})"
    return expression


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
