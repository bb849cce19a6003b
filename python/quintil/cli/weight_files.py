"""Weights by name from what a user has: files of this package, of torch, of safetensors, or a network's name."""

from __future__ import annotations

import difflib
import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quintil import models

# Where checkpoints keep the state dict of their network: those of this package, then usual names.
_PLACES = (("learner", "net"), ("state", "model"), ("state_dict",), ("model_state_dict",), ("model",), ("net",))
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def network_names() -> list[str]:
    """Names of quintil.models that need no argument."""
    return [*(name for name in models.__all__ if name.islower()), "CnnLstm"]


def read_weights(source: str, seed: int = 0) -> tuple[dict[str, Tensor], str]:
    """Float tensors of two dimensions or more by name, on the CPU, and where they come from.

    source: a file, or a name of quintil.models, whose weights are drawn from `seed`. Nothing in a file is executed
    but a TorchScript's own code. Raises FileNotFoundError, or ValueError for a file that holds no such tensors.
    """
    path = Path(source)
    if path.is_dir():
        raise ValueError(f"read_weights: expected a file or a network, got the folder {source}")
    if path.is_file():
        tensors, origin = _of_file(path), source
    elif source in network_names():
        drawn = getattr(models, source)(generator=torch.Generator().manual_seed(seed))
        tensors, origin = drawn.state_dict(), f"{source}, freshly drawn weights (seed {seed}), not trained"
    else:
        near = difflib.get_close_matches(source, network_names(), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise FileNotFoundError(
            f"read_weights: expected a file or one of {', '.join(network_names())}, got {source!r}{hint}"
        )
    weights = {
        name: tensor.detach()
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor) and tensor.dtype in _FLOATS and tensor.dim() >= 2
    }
    if not weights:
        raise ValueError(
            f"read_weights: expected float tensors of two dimensions or more, got {len(tensors)} tensors without one "
            f"(in {source})"
        )
    return weights, origin


def _of_file(path: Path) -> Mapping[str, Any]:
    data = path.read_bytes()
    if path.suffix == ".safetensors" or data[8:9] == b"{":
        return _safetensors(path, data)
    try:
        if zipfile.is_zipfile(io.BytesIO(data)) and _is_torchscript(data):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                return torch.jit.load(io.BytesIO(data), map_location="cpu").state_dict()
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the broken bytes lead to
        reason = (str(error).splitlines() or [""])[0][:120]
        raise ValueError(
            f"read_weights: expected {path} to be a checkpoint of tensors, got {type(error).__name__}: {reason}"
        ) from None
    return _state_dict(path, content)


def _is_torchscript(data: bytes) -> bool:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _safetensors(path: Path, data: bytes) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"read_weights: expected {path} to be a whole safetensors file, got {error}") from None
    names = sorted(tensors, key=_natural)  # a file has them in no order of the network's
    codes = next((name for name in names if name.rpartition(".")[2] == "codes"), None)
    if codes is not None:
        raise ValueError(
            f"read_weights: expected float weights, got codes, {codes!r} (in {path}, which save_quantized wrote; "
            "give the network before it)"
        )
    return {name: tensors[name] for name in names}


def _natural(name: str) -> list[str | int]:
    """A key that puts layer 2 before layer 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _state_dict(path: Path, content: Any) -> Mapping[str, Any]:
    """The state dict in a checkpoint's content, which may be one itself."""
    if not isinstance(content, Mapping):
        raise ValueError(f"read_weights: expected {path} to hold tensors by name, got {type(content).__name__}")
    for place in _PLACES:
        found: Any = content
        for key in place:
            found = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(found, Mapping) and any(isinstance(value, Tensor) for value in found.values()):
            return found
    return content
