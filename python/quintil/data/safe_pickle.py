"""Reading the CIFAR python files, which are pickles, without running anything that they ask for.

A pickle names callables to import and call. Here the few names that these files need (numpy's array and dtype
constructors, and the byte-string helper of old protocols) are bound to inert records of this module; every
other name is refused. Arrays are built afterwards from the recorded bytes, so not even numpy's own unpickling
runs.
"""

from __future__ import annotations

import io
import pickle

import numpy as np


class _Dtype:
    """Stands for numpy.dtype(code, align, copy)."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """The byte order; one-byte elements have none."""


class _Array:
    """Stands for numpy.ndarray; its state is (version, shape, dtype, fortran order, bytes)."""

    def __init__(self, *_: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def build(self) -> np.ndarray:
        """The uint8 array; ValueError for any other kind."""
        state = self.state if isinstance(self.state, tuple) and len(self.state) == 5 else (None,) * 5
        _, shape, dtype, fortran, raw = state
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        plain = isinstance(dtype, _Dtype) and dtype.code in ("u1", "uint8", "|u1") and isinstance(raw, bytes)
        if not plain or not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("an array that is not uint8")
        return np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")


class _Text:
    """Stands for _codecs.encode(text, "latin1"), how protocol 2 of Python 3 writes bytes."""

    def __new__(cls, text: object = "", encoding: object = "") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError("a text encoding other than latin-1")
        return text.encode("latin-1")

    def __setstate__(self, state: object) -> None:
        """Present so that a pickle cannot write attributes of this class."""


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Text,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"a reference to {module}.{name}, which no data file needs") from None

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError("a persistent reference, which no data file needs")


def load_arrays(where: str, raw: bytes) -> dict[str, object]:
    """The dict in a pickle of plain values and uint8 arrays; byte-string keys come back as text.

    `where` names data set and file in errors. Raises ValueError for anything else, before anything is
    executed.
    """
    try:
        loaded = _Unpickler(io.BytesIO(raw), encoding="latin-1").load()
        if not isinstance(loaded, dict):
            raise ValueError(f"a {type(loaded).__name__}")
        return {
            key.decode("latin-1") if isinstance(key, bytes) else str(key): (v.build() if isinstance(v, _Array) else v)
            for key, v in loaded.items()
        }
    # A damaged pickle fails in whatever opcode it reaches: any of these, and nothing was called but the
    # records above.
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        ImportError,
        LookupError,
    ) as error:
        reason = error
    except (MemoryError, RecursionError, TypeError, ValueError) as error:
        reason = error
    raise ValueError(f"{where}: expected a pickled dict of plain values and uint8 arrays, got {str(reason)[:200]!r}")
