"""`set_bits`: the widths of a model's layers, changed at run time without moving data."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import nn

from quintil.nn.registry import with_containers

#: Parts of a name that mark a branch beside the main path; see `set_bits`.
SIDE_BRANCHES = ("shortcut", "downsample")


def set_bits(model: nn.Module, bits: int | Mapping[str, int]) -> nn.Module:
    """Set the width of layers swapped under `DoubleRounding`, in place, and return `model`.

    bits: one width for all, or layer name or glob pattern -> width; a pattern that matches a container covers
        everything in it, and of several that match the last counts. Layers not named keep their width.
    Nothing is moved or rounded here: the next forward rounds to the new widths. They are no part of the state dict: a
    model starts at its highest width. A BatchNorm per width takes the width of the nearest layer defined before it (of
    the first layer after it, if there is none); a transitional one also that of the layer before that. A layer in a
    module called "shortcut" or "downsample" stands beside the main path and counts only for BatchNorms in there.
    Scripted models can be set too, in C++ by `quintil::set_bits`; `quintil.nn.script` gives a scripted model a method
    `set_bits`. `layer.set_bits(4)` sets a single layer.

    Raises, before anything is changed: ValueError for a width that the layer's scheme does not have or a model without
    such layers, KeyError with the nearest names for a name that matches no layer, TypeError for other types.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"set_bits: expected model to be an nn.Module, got {type(model).__name__}")
    layers = switchable_layers(model)
    if not layers:
        raise ValueError("set_bits: expected model to hold layers of several widths, got none")
    wanted = {name: layer.bits for name, layer in layers.items()}
    if isinstance(bits, Mapping):
        for pattern, width in bits.items():
            matched = [name for name in layers if any(fnmatchcase(part, pattern) for part in with_containers(name))]
            if not matched:
                near = difflib.get_close_matches(pattern, layers, n=3, cutoff=0.0)
                raise KeyError(f"set_bits: expected names of layers, got {pattern!r} (nearest: {', '.join(near)})")
            wanted.update(dict.fromkeys(matched, width))
    else:
        wanted = dict.fromkeys(layers, bits)
    for name, width in wanted.items():
        if not isinstance(width, int) or isinstance(width, bool):
            raise TypeError(f"set_bits: expected bits to be an int, got {width!r} (layer {name!r})")
        if width not in layers[name].widths:
            listed = ", ".join(map(str, layers[name].widths))
            raise ValueError(f"set_bits: expected bits to be one of {listed}, got {width} (layer {name!r})")
    for name, width in wanted.items():
        layers[name].set_bits(width)
    _set_norms(model)
    return model


def get_bits(model: nn.Module) -> dict[str, int]:
    """layer -> width of all layers swapped under `DoubleRounding`, in the order of definition."""
    return {name: layer.bits for name, layer in switchable_layers(model).items()}


def switchable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of several widths by name, scripted ones too."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "input_quantizers")}


def norm_sources(model: nn.Module) -> dict[str, tuple[str, str | None]]:
    """BatchNorm per width -> names of the layer before it and, if there is one, of the layer before that.

    By duck typing, since scripted modules have lost their class. csrc/storage/set_bits.cpp does the same.
    """
    sources: dict[str, tuple[str, str | None]] = {}
    passed: dict[str, list[str]] = {}  # layers by branch, "" is the main path; newest last
    waiting: list[str] = []
    for name, module in model.named_modules():
        branch = _branch(name)
        before = passed.setdefault(branch, list(passed.get("", [])))
        if hasattr(module, "input_quantizers"):
            before.append(name)
            sources.update((norm, (name, None)) for norm in waiting)
            waiting.clear()
        elif hasattr(module, "own_key"):
            if before:
                sources[name] = (before[-1], before[-2] if len(before) > 1 else None)
            else:
                waiting.append(name)
    return sources


def _set_norms(model: nn.Module) -> None:
    """Tell every BatchNorm the widths before it."""
    modules = dict(model.named_modules())
    for norm, (layer, before) in norm_sources(model).items():
        modules[norm].set_bits(modules[layer].bits, 0 if before is None else modules[before].bits)


def _branch(name: str) -> str:
    """The name up to its side branch, "" on the main path."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part in SIDE_BRANCHES:
            return ".".join(parts[: place + 1])
    return ""
