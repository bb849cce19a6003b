"""Files of named tensors in the safetensors format, with a manifest and a checksum; csrc/storage reads them too.

The metadata have one entry, `quintil`: the manifest, a JSON object whose last member `sha256` is the checksum of all
the rest. Digested are, each as its length in decimal digits, a colon and its bytes: the manifest's text up to the
checksum, then of every tensor, in the order of their names, name, dtype, sizes joined by commas, and data.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_KEY = "quintil"
_END = '"}'  # of the manifest, behind the checksum


def write_tensors(path: Path, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
    """Write a whole file or nothing; TypeError for dtypes of no such file, ValueError for a device or pipe."""
    from safetensors.torch import save

    if path.exists() and not (path.is_file() or path.is_dir()):  # which the new file would take the place of
        raise ValueError(f"write_tensors: expected {path} to be a file or nothing, got a device or pipe")
    copies = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    text = json.dumps({**manifest, "sha256": ""}).removesuffix(_END)
    try:
        checksum = _checksum(text, save(copies))
    except KeyError as error:
        raise TypeError(f"write_tensors: expected dtypes of safetensors, got {error.args[0]}") from None
    data = save(copies, {_KEY: text + checksum + _END})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and manifest; FileNotFoundError if there is no file, ValueError saying what is wrong with it."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load

    if not path.is_file():
        raise FileNotFoundError(f"read_tensors: expected {path} to be a file, got none")
    data = path.read_bytes()
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
        tensors = load(data)
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"read_tensors: expected {path} to be a whole safetensors file, got {error}") from None
    if text is None:
        raise ValueError(f"read_tensors: expected {path} to be a file of quintil, got one without its manifest")
    checksum = text[-64 - len(_END) :].removesuffix(_END)
    if checksum != _checksum(text.removesuffix(checksum + _END), data):
        raise ValueError(f"read_tensors: expected {path} to have the checksum in its header, got changed contents")
    return tensors, json.loads(text)


def _checksum(text: str, data: bytes) -> str:
    """Of a manifest's text and the tensors in the safetensors file `data`, in hexadecimal digits."""
    from safetensors import deserialize

    digest = hashlib.sha256()

    def add(part: bytes) -> None:
        digest.update(b"%d:" % len(part))
        digest.update(part)

    add(text.encode())
    for name, entry in sorted(deserialize(data), key=lambda item: item[0]):
        sizes = ",".join(map(str, entry["shape"]))
        for part in (name.encode(), entry["dtype"].encode(), sizes.encode(), entry["data"]):
            add(part)
    return digest.hexdigest()
