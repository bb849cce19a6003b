"""Loads libquintil.so into torch, once, when `quintil` is imported; says why if that cannot be done.

Order matters: torch is imported first, so that its libraries (and its OpenMP runtime) are the ones that libquintil.so
finds. After loading, `torch.ops.quintil.active_isa()` is called, so that a `QUINTIL_ISA` that cannot run on this
machine is refused at import and never replaced.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

_PACKAGE = Path(__file__).resolve().parent

#: What to add to CMAKE_PREFIX_PATH (beside torch's own) for `find_package(quintil)`.
cmake_prefix_path = str(_PACKAGE / "share" / "cmake")


def _minor(version: str) -> tuple[str, ...]:
    return tuple(version.split("+")[0].split(".")[:2])


def _check_torch(built_with: str, found: str) -> None:
    """Raises ImportError if torch's minor version is not the one that libquintil.so is compiled for."""
    if _minor(built_with) != _minor(found):
        want, have = ".".join(_minor(built_with)), found
        raise ImportError(
            f"quintil: expected torch {want}.*, got {have} (libquintil.so is compiled for one minor version: "
            f"install torch {built_with}, or rebuild quintil here with `pip install --no-build-isolation .`)"
        )


def _load(library: Path) -> None:
    """Loads the ops from `library` and checks the chosen instruction set.

    Raises ImportError with the likely causes if the file is absent or cannot be loaded, and what the C++ side raises
    (ValueError naming the runnable instruction sets) if `QUINTIL_ISA` names one that cannot run here.
    """
    if not library.is_file():
        raise ImportError(
            f"quintil: expected {library}, got no such file (the C++ part is not built: run ./scripts/test or "
            "./scripts/demo in the source tree, or `pip install --no-build-isolation .`)"
        )
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        raise ImportError(
            f"quintil: expected {library} to load, got: {error} (likely causes: torch was changed after quintil was "
            "built, so rebuild; the file is for another machine type or an older C library; an installation was "
            "interrupted, so reinstall)"
        ) from error
    torch.ops.quintil.active_isa()


def _torch_version_of_build() -> str:
    try:
        return importlib.import_module("quintil._build").TORCH_VERSION
    except ModuleNotFoundError:
        return torch.__version__  # not built: _load says so


_check_torch(_torch_version_of_build(), torch.__version__)
_load(_PACKAGE / "libquintil.so")
_bindings = importlib.import_module("quintil._bindings")


def active_isa() -> str:
    """Name of the instruction set in use: 'scalar', 'avx2', 'avx512vnni', 'amx'; `QUINTIL_ISA` forces one."""
    return torch.ops.quintil.active_isa()


def runnable_isas() -> list[str]:
    """Instruction sets that this build holds and this machine runs, slowest first."""
    return _bindings.runnable_isas()
