"""`quantize_` and `dequantize_`: change the class of a model's layers, keep everything else.

A swapped layer is the very object it was before: `module.__class__` becomes a subclass of its float class that also
derives from `SwappedLayer`. So Parameters, buffers, hooks, names, device, training flag and attributes of user
subclasses stay, and an optimiser made before the swap keeps working. Which class serves which float layer is a
registry that the modules of the schemes fill with `@swaps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from quintil.nn.registry import (
    SwappedLayer,
    find_layer_class,
    is_own_class,
    is_unsupported,
    restore,
    swap_one,
    swaps,
    unsupported,
    with_containers,
)
from quintil.schemes import Scheme

__all__ = ["SwappedLayer", "dequantize_", "quantize_", "swap_layers", "swaps", "unsupported"]

Skip = str | Iterable[str] | Callable[[str, nn.Module], bool]


def quantize_(model: nn.Module, scheme: Scheme, *, skip: Skip = (), paper_init: bool = False) -> nn.Module:
    """Swap the layers of `model` for those of `scheme`, in place, and return `model`.

    Every nn.Linear and nn.Conv2d (and subclasses) becomes the layer of the scheme; under `DoubleRounding` with
    switch_norm also every nn.BatchNorm1d and nn.BatchNorm2d, under `VecQ` also nn.Conv1d, nn.ConvTranspose2d, nn.LSTM,
    nn.LSTMCell, nn.GRU and embeddings, and nn.ReLU and the like with activation_place='before_activation'. Nothing else
    changes: same module objects, Parameters, hooks, names, device and training flag. `HDQT` adds no state_dict key,
    `VecQ`, `LUQ` and `FP134` add buffers, `DoubleRounding` the steps and the BatchNorms of lower widths: make the
    optimiser afterwards. A layer that already has an equal scheme is left as it is; one that has another is swapped
    again and starts anew, or becomes float where the new scheme leaves it out.

    skip: layers to leave as they are: a name or glob pattern, several of them, or a callable (name, module) -> bool.
        A pattern that matches a container covers everything in it. A module with several names is skipped if one of
        them is.
    paper_init: also re-initialise the convolutions swapped by this call as the HDQT authors' code does: PyTorch's
        default initialisation, drawn from the default generator, and a bias where there was none (a new Parameter:
        make the optimiser afterwards) [HDQT 2.6].

    Raises, before anything is changed: TypeError for a wrong model, scheme or skip; ValueError naming all skip
    patterns that match no module and all layers that the scheme cannot take, or if the model has no layer to swap
    (with skip_ends: none between its first and its last).
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"quantize_: expected model to be an nn.Module, got {type(model).__name__}")
    if not isinstance(scheme, Scheme):
        raise TypeError(f"quantize_: expected scheme to be a scheme such as HDQT(), got {scheme!r}")
    names = _names(model)
    skipped, unmatched = _skipped(names, skip)
    bypassed = {child: parent for parent in names for child in parent.children() if _bypasses_children(parent)}
    ends = _ends(names, scheme)
    plan: list[tuple[nn.Module, type[SwappedLayer] | None]] = []
    refused: list[str] = []
    candidates = 0
    for module, aliases in names.items():
        layer_class = None if module in ends else find_layer_class(scheme, module)
        if layer_class is None and (module in ends or not is_unsupported(scheme, module)):
            if isinstance(module, SwappedLayer) and module not in skipped:
                plan.append((module, None))
            continue
        candidates += layer_class is None or layer_class.multiplies
        if module in skipped or (isinstance(module, SwappedLayer) and module.scheme == scheme):
            continue
        reason = _refusal(layer_class, module, scheme, bypassed.get(module))
        if reason is None:
            plan.append((module, layer_class))
        else:
            refused.append(f"{aliases[0]!r} ({reason})" if aliases[0] else f"the model itself ({reason})")
    _raise_problems(scheme, unmatched, refused)
    if candidates == 0:
        reason = " (the first and the last stay in float32)" if ends else ""
        raise ValueError(
            f"quantize_: expected model to hold a layer that {type(scheme).__name__} swaps, got none{reason}"
        )
    for module, layer_class in plan:
        restore(module)
        if layer_class is not None:
            swap_one(module, layer_class, scheme)
            if paper_init:
                module.paper_init()
    return model


def swap_layers(model: nn.Module, schemes: Mapping[str, Scheme]) -> None:
    """Swap exactly the named modules, each for its scheme, in place: those that have an equal one stay as they are, and
    other swapped modules become float.

    ValueError, before anything is changed, for a name that the model does not have or a module that cannot be taken.
    """
    names = {name: module for module, aliases in _names(model).items() for name in aliases}
    plan = []
    for name, scheme in schemes.items():
        module = names.get(name)
        if module is None:
            raise ValueError(f"swap_layers: expected model to hold a module {name!r}, got none")
        layer_class = find_layer_class(scheme, module)
        reason = _refusal(layer_class, module, scheme, None)
        if reason is not None:
            raise ValueError(
                f"swap_layers: expected {name!r} to be a layer that {scheme.summary()} takes, got {reason}"
            )
        if not (isinstance(module, SwappedLayer) and module.scheme == scheme):
            plan.append((module, layer_class, scheme))
    kept = {names[name] for name in schemes}
    for module in set(names.values()) - kept:
        restore(module)
    for module, layer_class, scheme in plan:
        restore(module)
        swap_one(module, layer_class, scheme)


def dequantize_(model: nn.Module) -> nn.Module:
    """Turn every swapped layer of `model` back into its float class, in place, and return `model`.

    The same module objects with the same Parameters; a model without swapped layers is left as it is. Raises
    TypeError if `model` is no nn.Module and ValueError naming the layers that were parametrized after the swap.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"dequantize_: expected model to be an nn.Module, got {type(model).__name__}")
    swapped = {module: names for module, names in _names(model).items() if isinstance(module, SwappedLayer)}
    changed = [repr(names[0]) for module, names in swapped.items() if not is_own_class(type(module))]
    if changed:
        raise ValueError(
            f"dequantize_: expected layers as quantize_ left them, got another class for {', '.join(changed)} "
            "(remove parametrizations that were registered after the swap first)"
        )
    for module in swapped:
        restore(module)
    return model


def _names(model: nn.Module) -> dict[nn.Module, list[str]]:
    """All names of every module but the parts of swapped layers; a module used in several places comes once."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    swapped = [module for module in names if isinstance(module, SwappedLayer)]
    parts = {part for module in swapped for part in module.modules()} - set(swapped)
    return {module: aliases for module, aliases in names.items() if module not in parts}


def _skipped(names: dict[nn.Module, list[str]], skip: Skip) -> tuple[set[nn.Module], list[str]]:
    """Modules to leave alone, and the patterns that match no module."""
    if callable(skip):
        return {m for m, aliases in names.items() if any(skip(name, m) for name in aliases)}, []
    patterns = [skip] if isinstance(skip, str) else list(skip) if isinstance(skip, Iterable) else [skip]
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"quantize_: expected skip to be names, glob patterns or a callable, got {skip!r}")
    skipped: set[nn.Module] = set()
    used: set[str] = set()
    for module, aliases in names.items():
        for part in {part for name in aliases for part in with_containers(name)}:
            matching = {pattern for pattern in patterns if fnmatchcase(part, pattern)}
            if matching:
                skipped.add(module)
                used |= matching
    return skipped, [pattern for pattern in patterns if pattern not in used]


def _ends(names: dict[nn.Module, list[str]], scheme: Scheme) -> set[nn.Module]:
    """The first and the last layer that multiplies, in the order of definition, if the scheme leaves them out."""
    if not getattr(scheme, "skip_ends", False):
        return set()
    kinds = {module: find_layer_class(scheme, module) for module in names}
    layers = [m for m, kind in kinds.items() if (kind is not None and kind.multiplies) or is_unsupported(scheme, m)]
    return {*layers[:1], *layers[-1:]}


def _bypasses_children(parent: nn.Module) -> bool:
    """Whether `parent` hands the weights of its Linear children to a fused function instead of calling them."""
    if isinstance(parent, nn.TransformerEncoderLayer):
        return torch.backends.mha.get_fastpath_enabled()
    return isinstance(parent, nn.MultiheadAttention)


def _refusal(
    layer_class: type[SwappedLayer] | None, module: nn.Module, scheme: Scheme, bypassing: nn.Module | None
) -> str | None:
    """Why `module` cannot be swapped, or None. What holds for every layer is here, the rest in the layer class."""
    if layer_class is None:
        return f"{type(module).__name__} has no version in {type(scheme).__name__}"
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
        return "its lazy parameters are not initialised yet"
    if bypassing is not None:
        return f"{type(bypassing).__name__} may read its weight without calling it"
    if isinstance(module, SwappedLayer):
        if not is_own_class(type(module)):
            return "it was parametrized after an earlier swap"
        float_class = type(module).float_class
    else:
        if hasattr(module, "scheme"):
            return "it has an attribute 'scheme' of its own"
        float_class = type(module)
    for method in layer_class.overridable:
        replaced = getattr(float_class, method) is not getattr(layer_class.float_class, method)
        if replaced or method in module.__dict__:
            return f"it has its own {method}"
    weight = getattr(module, "weight", None)
    if weight is None:  # a BatchNorm without parameters, a layer of several weights
        return layer_class.refusal(module, scheme)
    if weight.device.type not in ("cpu", "meta"):
        return f"its weight is on {weight.device}, expected the CPU"
    if not weight.is_floating_point():
        return f"its weight is {weight.dtype}, expected a floating-point dtype"
    return layer_class.refusal(module, scheme)


def _raise_problems(scheme: Scheme, unmatched: list[str], refused: list[str]) -> None:
    problems = []
    if unmatched:
        problems.append(f"expected every skip pattern to match a module, got {', '.join(map(repr, unmatched))}")
    if refused:
        problems.append(
            f"expected layers that {type(scheme).__name__} can take, got {', '.join(refused)} "
            "(leave them out with skip)"
        )
    if problems:
        raise ValueError("quantize_: " + "; ".join(problems))
