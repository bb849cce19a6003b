"""Files of named tensors in the safetensors format, read and written without a dependency.

    8 bytes: length of the header, little endian    header: JSON {name: {dtype, shape, data_offsets}, "__metadata__"}
    the tensors' bytes, one after the other, little endian, row by row

The metadata, texts by name, are the caller's; `sha256` among them is the checksum of the tensors' bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_LONGEST_HEADER = 100_000_000


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a whole file or nothing; TypeError for a dtype that the format does not have."""
    header: dict[str, dict] = {}
    parts, start = [], 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise TypeError(f"write_tensors: expected a dtype of safetensors, got {tensor.dtype} ({name!r})")
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        place = [start, start + len(data)]
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
        parts.append(data)
        start += len(data)
    body = b"".join(parts)
    header["__metadata__"] = {**metadata, "sha256": hashlib.sha256(body).hexdigest()}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text + body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata; FileNotFoundError if there is no file, ValueError saying what is wrong with it."""
    if not path.is_file():
        raise FileNotFoundError(f"read_tensors: expected {path} to be a file, got none")
    data = path.read_bytes()
    try:
        header, body = _split(data)
        metadata = header.pop("__metadata__", {})
        tensors = {name: _tensor(entry, body) for name, entry in header.items()}
    except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise ValueError(f"read_tensors: expected {path} to be a whole safetensors file, got {error}") from None
    if metadata.get("sha256", hashlib.sha256(body).hexdigest()) != hashlib.sha256(body).hexdigest():
        raise ValueError(f"read_tensors: expected {path} to have the checksum in its header, got changed contents")
    return tensors, metadata


def _split(data: bytes) -> tuple[dict, bytes]:
    (length,) = struct.unpack_from("<Q", data)
    if length > min(_LONGEST_HEADER, len(data) - 8):
        raise ValueError(f"a header of {length} bytes in {len(data)}")
    header = json.loads(data[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("a header that is no object")
    return header, data[8 + length :]


def _tensor(entry: dict, body: bytes) -> Tensor:
    dtype, shape = _TYPES[entry["dtype"]], tuple(entry["shape"])
    start, stop = entry["data_offsets"]
    size = torch.Size(shape).numel() * dtype.itemsize
    if not 0 <= start <= stop <= len(body) or stop - start != size:
        raise ValueError(f"bytes {start} to {stop} of {len(body)} for {size}")
    if size == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(body[start:stop]), dtype=dtype).reshape(shape)
