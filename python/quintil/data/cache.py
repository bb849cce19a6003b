"""A file beside the raw data that saves computing slow features twice."""

from __future__ import annotations

import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .features import FEATURE_VERSION
from .progress import SLOW_SECONDS

Arrays = dict[str, np.ndarray]


def cached(
    folder: Path,
    name: str,
    inputs_digest: str,
    keys: tuple[str, ...],
    compute: Callable[[], Arrays],
    version: int = FEATURE_VERSION,
) -> Arrays:
    """The arrays of `compute()`, from a cache file in `folder` if it was left there by the same inputs and
    version (of the features, by default those of `features.py`).

    A cache file that is damaged or lacks a key is ignored; a folder that cannot be written costs only the
    time.
    """
    path = folder / f".quintil_{name}_v{version}_{inputs_digest[:16]}.npz"
    stored = _read(path, keys)
    if stored is not None:
        return stored
    started = time.monotonic()
    arrays = compute()
    if time.monotonic() - started > SLOW_SECONDS:
        _write(path, arrays)
    return arrays


def _read(path: Path, keys: tuple[str, ...]) -> Arrays | None:
    try:
        # Opened here and not by np.load, which leaves a damaged file open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in keys}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, arrays: Arrays) -> None:
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
