"""`set_bits`: the widths of a model's layers, changed at run time without moving data."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
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
    switched = list(switched_modules(model))
    layers = {name: module for name, module, is_layer in switched if is_layer}
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
    _set_norms(switched)
    return model


def get_bits(model: nn.Module) -> dict[str, int]:
    """layer -> width of all layers swapped under `DoubleRounding`, in the order of definition."""
    return {name: module.bits for name, module, is_layer in switched_modules(model) if is_layer}


def switched_modules(
    model: nn.Module, name: str = "", seen: set[nn.Module] | None = None
) -> Iterator[tuple[str, nn.Module, bool]]:
    """(name, module, whether it is a layer) of layers and BatchNorms of several widths, in the order of definition.

    What is inside of one is left out: that is most of a model's modules, and a switch takes no longer than it must.
    """
    seen = set() if seen is None else seen
    if model in seen:
        return
    seen.add(model)
    is_layer = hasattr(model, "input_quantizers")
    if is_layer or hasattr(model, "own_key"):
        yield name, model, is_layer
        return
    for part, child in model.named_children():
        yield from switched_modules(child, f"{name}.{part}" if name else part, seen)


def _set_norms(switched: Iterable[tuple[str, nn.Module, bool]]) -> None:
    """Tell every BatchNorm the widths before it; by duck typing, since scripted modules have lost their class.

    csrc/storage/set_bits.cpp does the same.
    """
    widths: dict[str, list[int]] = {}  # by branch, "" is the main path; newest last
    waiting = []
    for name, module, is_layer in switched:
        branch = _branch(name)
        passed = widths.setdefault(branch, list(widths.get("", [])))
        if is_layer:
            passed.append(module.bits)
            for norm in waiting:
                norm.set_bits(module.bits)
            waiting.clear()
        elif passed:
            module.set_bits(passed[-1], passed[-2] if len(passed) > 1 else 0)
        else:
            waiting.append(module)


def _branch(name: str) -> str:
    """The name up to its side branch, "" on the main path."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part in SIDE_BRANCHES:
            return ".".join(parts[: place + 1])
    return ""
