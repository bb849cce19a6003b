"""MNIST: 60,000 + 10,000 grey images of 28x28 bytes, in its publisher's idx files, gzip-compressed or not."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .files import missing, read_hashed
from .registry import Dataset, Request, dataset

CLASSES, SIZE = 10, 28
COUNTS = {"train": 60_000, "t10k": 10_000}
URL = "https://ossci-datasets.s3.amazonaws.com/mnist"
MEAN, STD = 0.1307, 0.3081  # of the training pixels, 0..1


@dataset("mnist")
def load_mnist(request: Request) -> Dataset:
    """x uint8 [N, 1, 28, 28], 10 classes; `transform` gives the training pixels mean 0 and deviation 1."""
    request.refuse("argument", "features_file", "subjects_drop", "classes_drop")
    request.require_split("official")
    if request.normalise not in (None, "none"):
        raise ValueError(f"mnist: expected normalise to be none (transform does it), got {request.normalise!r}")
    folder = _folder(request.root)
    checksums: dict[str, str] = {}
    sides = {}
    for side, count in COUNTS.items():
        images = _read(folder, f"{side}-images-idx3-ubyte", (count, SIZE, SIZE), checksums)
        labels = _read(folder, f"{side}-labels-idx1-ubyte", (count,), checksums)
        if int(labels.max()) >= CLASSES:
            raise ValueError(f"mnist: expected labels of 0..{CLASSES - 1}, got {int(labels.max())} ({side})")
        sides[side] = torch.from_numpy(images.copy()).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))
    return Dataset(
        name="mnist",
        x_train=sides["train"][0],
        y_train=sides["train"][1],
        x_test=sides["t10k"][0],
        y_test=sides["t10k"][1],
        class_names=tuple(str(digit) for digit in range(CLASSES)),
        subject_train=None,
        subject_test=None,
        transform=normalise,
        augment=None,
        checksums=checksums,
    )


def normalise(x: Tensor) -> Tensor:
    """uint8 -> float32 with the training pixels' mean 0 and deviation 1."""
    return (x.float() / 255.0 - MEAN) / STD


def _folder(root: Path) -> Path:
    first = "train-images-idx3-ubyte"
    for folder in (root, root / "mnist", root / "MNIST" / "raw"):
        if (folder / first).is_file() or (folder / f"{first}.gz").is_file():
            return folder
    raise missing("mnist", root / "mnist" / f"{first}.gz", downloadable=False)


def _read(folder: Path, name: str, shape: tuple[int, ...], checksums: dict[str, str]) -> np.ndarray:
    """The array of an idx file of bytes: big-endian magic number, sizes, then the bytes row by row."""
    path = folder / name
    if not path.is_file():
        path = folder / f"{name}.gz"
    if not path.is_file():
        raise missing("mnist", path, downloadable=False)
    raw = read_hashed(path, checksums)
    if path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"mnist: expected {path.name} to be a whole gzip file, got {str(error)!r}") from None
    header = struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)
    if raw[: len(header)] != header or len(raw) != len(header) + int(np.prod(shape)):
        raise ValueError(
            f"mnist: expected {path.name} to hold bytes {list(shape)} in idx format, got {len(raw)} bytes that begin "
            f"with {raw[:4].hex()}"
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=len(header)).reshape(shape)
