"""The layers that a swap makes: their base class, and the table of which layer serves which float class.

A swapped layer is the very object it was before: `module.__class__` becomes a subclass of its float class that also
derives from `SwappedLayer`. The modules of the schemes fill the table with `@swaps`; `quintil.nn.swap` reads it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from quintil.schemes import Scheme

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
        self.keep_scheme(scheme)

    def keep_scheme(self, scheme: Scheme) -> None:
        """Store the scheme, and as text, since TorchScript keeps no objects and `load_quantized` in C++ compares it.

        Beside it the defaults, which stand for the fields that a file of an earlier version lacks.
        """
        self.scheme = scheme
        self.scheme_text = json.dumps(scheme.to_dict())
        self.scheme_defaults = json.dumps(type(scheme)().to_dict())

    def detach(self) -> None:
        """Remove what `attach` stored; called before the class changes back."""
        del self.scheme, self.scheme_text, self.scheme_defaults

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scheme={self.scheme.summary()}"

    def pack(self) -> dict[str, Tensor]:
        """Tensors that stand for the weight in a quantised file, by name; empty: the float weight is kept there."""
        return {}

    def unpack(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the weight from what `pack` returned: a float weight that has the same codes."""

    def pack_others(self) -> dict[str, dict[str, Tensor]]:
        """Parameter -> tensors that stand for it in a quantised file, `codes` of int8 among them: beside the weight."""
        return {}

    def unpack_others(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Set parameters from what `pack_others` returned."""

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


def find_layer_class(scheme: Scheme, module: nn.Module) -> type[SwappedLayer] | None:
    """The registered layer for the nearest base class of `module`."""
    found = (_LAYERS.get((type(scheme), base)) for base in type(module).__mro__)
    return next((kind for kind in found if kind is not None and kind.wanted(scheme)), None)


def is_unsupported(scheme: Scheme, module: nn.Module) -> bool:
    return isinstance(module, _UNSUPPORTED.get(type(scheme), ()))


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


def is_own_class(cls: type) -> bool:
    """Whether `cls` came from the registry or `_subclass_for`, and not from something that derived from it since."""
    return "float_class" in cls.__dict__


def swap_one(module: nn.Module, layer_class: type[SwappedLayer], scheme: Scheme) -> None:
    module.__class__ = _subclass_for(layer_class, type(module))
    module.attach(scheme)


def restore(module: nn.Module) -> None:
    if isinstance(module, SwappedLayer):
        module.detach()
        module.__class__ = type(module).float_class


def with_containers(name: str) -> list[str]:
    """'a.b.c' -> 'a', 'a.b', 'a.b.c': the names that a pattern for a module or what holds it may match."""
    parts = name.split(".")
    return [".".join(parts[: place + 1]) for place in range(len(parts))]
