"""`quantize_` and `dequantize_`: change the class of a model's layers, keep everything else.

A swapped layer is the very object it was before: `module.__class__` becomes a subclass of its float class that also
derives from `SwappedLayer`. So Parameters, buffers, hooks, names, device, training flag and attributes of user
subclasses stay, and an optimiser made before the swap keeps working. Which class serves which float layer is a
registry that the modules of the schemes fill with `@swaps`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from quintil.schemes import Scheme

Skip = str | Iterable[str] | Callable[[str, nn.Module], bool]
Layer = TypeVar("Layer", bound="type[SwappedLayer]")

_LAYERS: dict[tuple[type[Scheme], type[nn.Module]], type[SwappedLayer]] = {}
_UNSUPPORTED: dict[type[Scheme], tuple[type[nn.Module], ...]] = {}


class SwappedLayer:
    """Base of all layers that a swap makes; a concrete layer derives from it and from the float class it replaces.

    Attributes are deliberately not annotated here: TorchScript would read the annotations as those of the module.
    """

    float_class = nn.Module  # what `dequantize_` turns the layer back into
    scheme_class = Scheme
    overridable = ("forward",)  # methods of the float class that this layer replaces
    multiplies = True  # has a weight that multiplies an input; the first and last of these are a model's ends

    def __init__(self, *arguments: Any, scheme: Scheme, **keywords: Any):
        super().__init__(*arguments, **keywords)
        kind = self.scheme_class.__name__
        if not isinstance(scheme, self.scheme_class):
            raise TypeError(f"{type(self).__name__}: expected scheme to be of class {kind}, got {scheme!r}")
        reason = self.refusal(self, scheme)
        if reason is not None:
            raise ValueError(f"{type(self).__name__}: expected a layer that {kind} can take, got one where {reason}")
        self.attach(scheme)

    @classmethod
    def wanted(cls, scheme: Scheme) -> bool:
        """Whether the scheme swaps such layers at all."""
        return True

    @classmethod
    def refusal(cls, module: nn.Module, scheme: Scheme) -> str | None:
        """Why this class cannot take the place of `module` under `scheme`, or None."""
        return None

    def attach(self, scheme: Scheme) -> None:
        """Store what the forward needs; called once the class has changed."""
        self.scheme = scheme

    def detach(self) -> None:
        """Remove what `attach` stored; called before the class changes back."""
        del self.scheme

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scheme={self.scheme.summary()}"

    def paper_init(self) -> None:
        """Re-initialise the layer as the authors of the scheme did; most layers are left alone."""


def swaps(scheme_class: type[Scheme], float_class: type[nn.Module]) -> Callable[[Layer], Layer]:
    """Class decorator: the layer replaces `float_class` (and subclasses of it) under schemes of `scheme_class`."""

    def register(layer_class: Layer) -> Layer:
        layer_class.float_class, layer_class.scheme_class = float_class, scheme_class
        _LAYERS[scheme_class, float_class] = layer_class
        return layer_class

    return register


def unsupported(scheme_class: type[Scheme], *float_classes: type[nn.Module]) -> None:
    """Declare layers that multiply, which the scheme has no version of: `quantize_` refuses them unless skipped."""
    _UNSUPPORTED[scheme_class] = float_classes


def quantize_(model: nn.Module, scheme: Scheme, *, skip: Skip = (), paper_init: bool = False) -> nn.Module:
    """Swap the layers of `model` for those of `scheme`, in place, and return `model`.

    Every nn.Linear and nn.Conv2d (and subclasses) becomes the layer of the scheme; under `DoubleRounding` with
    switch_norm also every nn.BatchNorm1d and nn.BatchNorm2d. Nothing else changes: same module objects, Parameters,
    hooks, names, device and training flag. `HDQT` adds no state_dict key; `DoubleRounding` adds those of its steps and
    of the lower widths' BatchNorms: make the optimiser afterwards. A layer that already has an equal scheme is left as
    it is; one that has another is swapped again and starts anew, or becomes float where the new scheme leaves it out.

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
        layer_class = None if module in ends else _layer_class(scheme, module)
        if layer_class is None and (module in ends or not _is_unsupported(scheme, module)):
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
        _restore(module)
        if layer_class is not None:
            module.__class__ = _subclass_for(layer_class, type(module))
            module.attach(scheme)
            if paper_init:
                module.paper_init()
    return model


def dequantize_(model: nn.Module) -> nn.Module:
    """Turn every swapped layer of `model` back into its float class, in place, and return `model`.

    The same module objects with the same Parameters; a model without swapped layers is left as it is. Raises
    TypeError if `model` is no nn.Module and ValueError naming the layers that were parametrized after the swap.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"dequantize_: expected model to be an nn.Module, got {type(model).__name__}")
    swapped = {module: names for module, names in _names(model).items() if isinstance(module, SwappedLayer)}
    changed = [repr(names[0]) for module, names in swapped.items() if not _is_own_class(type(module))]
    if changed:
        raise ValueError(
            f"dequantize_: expected layers as quantize_ left them, got another class for {', '.join(changed)} "
            "(remove parametrizations that were registered after the swap first)"
        )
    for module in swapped:
        _restore(module)
    return model


def _names(model: nn.Module) -> dict[nn.Module, list[str]]:
    """All names of every module but the parts of swapped layers; a module used in several places comes once."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    swapped = [module for module in names if isinstance(module, SwappedLayer)]
    parts = {part for module in swapped for part in module.modules()} - set(swapped)
    return {module: aliases for module, aliases in names.items() if module not in parts}


def _with_containers(name: str) -> Iterator[str]:
    """'a.b.c' -> 'a', 'a.b', 'a.b.c'."""
    parts = name.split(".")
    return (".".join(parts[: i + 1]) for i in range(len(parts)))


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
        for part in {part for name in aliases for part in _with_containers(name)}:
            matching = {pattern for pattern in patterns if fnmatchcase(part, pattern)}
            if matching:
                skipped.add(module)
                used |= matching
    return skipped, [pattern for pattern in patterns if pattern not in used]


def _layer_class(scheme: Scheme, module: nn.Module) -> type[SwappedLayer] | None:
    """The registered layer for the nearest base class of `module`."""
    found = (_LAYERS.get((type(scheme), base)) for base in type(module).__mro__)
    return next((kind for kind in found if kind is not None and kind.wanted(scheme)), None)


def _is_unsupported(scheme: Scheme, module: nn.Module) -> bool:
    return isinstance(module, _UNSUPPORTED.get(type(scheme), ()))


def _ends(names: dict[nn.Module, list[str]], scheme: Scheme) -> set[nn.Module]:
    """The first and the last layer that multiplies, in the order of definition, if the scheme leaves them out."""
    if not getattr(scheme, "skip_ends", False):
        return set()
    kinds = {module: _layer_class(scheme, module) for module in names}
    layers = [m for m, kind in kinds.items() if (kind is not None and kind.multiplies) or _is_unsupported(scheme, m)]
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
        if not _is_own_class(type(module)):
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
    weight = module.weight
    if weight is None:  # a BatchNorm without parameters
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


@functools.cache
def _subclass_for(layer_class: type[SwappedLayer], float_class: type[nn.Module]) -> type[SwappedLayer]:
    """`layer_class` itself for the class it was written for, else one class per user subclass."""
    if float_class is layer_class.float_class:
        return layer_class
    own = {
        "float_class": float_class,
        "__module__": float_class.__module__,
        "__doc__": layer_class.__doc__,
        "__reduce_ex__": _reduce_by_bases,
    }
    return type(f"{layer_class.__name__}Of{float_class.__name__}", (layer_class, float_class), own)


def _reduce_by_bases(module: SwappedLayer, protocol: int) -> tuple:
    """Pickle and copy a layer of a class from `_subclass_for`, which has no name that it could be found by."""
    state = object.__reduce_ex__(module, max(protocol, 2))[2:]
    return (_new_by_bases, type(module).__bases__, *state)


def _new_by_bases(layer_class: type[SwappedLayer], float_class: type[nn.Module]) -> SwappedLayer:
    kind = _subclass_for(layer_class, float_class)
    return kind.__new__(kind)


def _is_own_class(cls: type) -> bool:
    """Whether `cls` came from the registry or `_subclass_for`, and not from something that derived from it since."""
    return "float_class" in cls.__dict__


def _restore(module: nn.Module) -> None:
    if isinstance(module, SwappedLayer):
        module.detach()
        module.__class__ = type(module).float_class
