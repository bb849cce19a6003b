"""What is made from a layer's tensors and kept until one of them changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


def state_of(tensors: Iterable[Tensor]) -> tuple[int, ...] | None:
    """Numbers that differ once a tensor was written to or replaced.

    None where nothing may be kept: in a compiled graph, and of tensors of inference_mode, which have no version.
    """
    tensors = list(tensors)
    if torch.compiler.is_compiling() or any(t.is_inference() for t in tensors):
        return None
    return tuple(number for t in tensors for number in (t._version, t.data_ptr()))


class Kept:
    """What was made from some tensors, until one of them changes. Copies and pickles of it are empty."""

    def __init__(self) -> None:
        self._state: tuple[int, ...] = ()
        self._value: Any = None

    def __reduce__(self) -> tuple:
        return Kept, ()

    def clear(self) -> None:
        self._state, self._value = (), None

    def get(self, sources: Sequence[Tensor], make: Callable[[], Any]) -> Any:
        state = state_of(sources)
        if state is None:
            return make()
        if self._value is None or state != self._state:
            self._state, self._value = state, make()
        return self._value
