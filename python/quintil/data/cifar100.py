"""CIFAR-100: 50,000 + 10,000 images of 3x32x32 bytes, 100 classes, in both layouts of its publisher.

Binary: {train,test}.bin, records of one coarse and one fine label byte and 3,072 planar RGB bytes. Python:
pickles {train,test,meta}, read by `safe_pickle`. Either may be a folder or the official .tar.gz, whose md5 is
checked and which is read in place. Labels are the fine ones; the split is the publisher's.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .download import fetch
from .files import missing
from .images import augment_images, normalise_images
from .registry import Dataset, Request, dataset
from .safe_pickle import load_arrays

CLASSES, COARSE_CLASSES, PIXELS = 100, 20, 3 * 32 * 32
COUNTS = {"train": 50_000, "test": 10_000}
URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
ARCHIVE_MD5 = {
    "cifar-100-binary": "03b5dce01913d631647c71ecec9e9cb8",
    "cifar-100-python": "eb9058c3a382ffc7106e4002c42a8d85",
}
# File whose presence tells the layout of a folder, and all files that are read.
_MEMBERS = {
    "cifar-100-binary": ("train.bin", "test.bin", "fine_label_names.txt"),
    "cifar-100-python": ("train", "test", "meta"),
}
_MEMBER_BYTES_MAX = 512 << 20


@dataclass(frozen=True)
class _Part:
    """Images uint8 [N, 3072] of one side with both labels."""

    pixels: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray


@dataset("cifar100")
def load_cifar100(request: Request) -> Dataset:
    """x uint8 [N, 3, 32, 32], 100 classes by fine label name, less classes_drop (fine labels); no persons."""
    request.refuse("argument", "features_file", "subjects_drop")
    request.require_split("official")
    if request.normalise not in (None, "none"):
        raise ValueError(f"cifar100: expected normalise to be none (transform does it), got {request.normalise!r}")
    layout, files = _find(request)
    checksums = {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}
    parse = _parse_binary if layout == "cifar-100-binary" else _parse_python
    sides = {}
    for side in COUNTS:
        member = _MEMBERS[layout][0 if side == "train" else 1]
        part = parse(f"cifar100: {member}", files.pop(member), COUNTS[side])
        _check_labels(f"cifar100: {member}", part, COUNTS[side])
        kept = np.setdiff1d(np.arange(CLASSES), _dropped(request))
        rows = np.isin(part.fine, kept)
        images = torch.from_numpy(np.array(part.pixels[rows], order="C")).view(-1, 3, 32, 32)
        sides[side] = images, torch.from_numpy(np.searchsorted(kept, part.fine[rows]).astype(np.int64))
    names = _class_names(layout, files)
    return Dataset(
        name="cifar100",
        x_train=sides["train"][0],
        y_train=sides["train"][1],
        x_test=sides["test"][0],
        y_test=sides["test"][1],
        class_names=tuple(names[label] for label in kept),
        subject_train=None,
        subject_test=None,
        transform=normalise_images,
        augment=augment_images,
        checksums=checksums,
    )


def _dropped(request: Request) -> tuple[int, ...]:
    """classes_drop; ValueError for a number that is no fine label, or if nothing would be left."""
    dropped = request.classes_drop or ()
    if not set(dropped) < set(range(CLASSES)):
        raise ValueError(
            f"cifar100: expected classes_drop to be some of the labels 0..{CLASSES - 1}, got {list(dropped)[:8]}"
        )
    return dropped


def _find(request: Request) -> tuple[str, dict[str, bytes]]:
    """Layout name and the bytes of its files: from a folder, else an archive, else a download."""
    for layout, (first, *_) in _MEMBERS.items():
        for folder in (request.root / layout, request.root):
            # "train" alone may be any folder; the python layout is taken from a folder that holds the file
            # "meta".
            if (folder / first).is_file() and (first != "train" or (folder / "meta").is_file()):
                return layout, _read_folder(folder, layout)
    for layout in _MEMBERS:
        archive = request.root / f"{layout}.tar.gz"
        if archive.is_file():
            return layout, read_archive(archive, layout)
    if not request.download:
        raise missing("cifar100", request.root / "cifar-100-binary" / "train.bin")
    layout = "cifar-100-binary"
    archive = fetch(URL, request.root / f"{layout}.tar.gz", md5=ARCHIVE_MD5[layout])
    return layout, read_archive(archive, layout)


def _read_folder(folder: Path, layout: str) -> dict[str, bytes]:
    files = {name: (folder / name).read_bytes() for name in _MEMBERS[layout] if (folder / name).is_file()}
    for name in _MEMBERS[layout][:2]:
        if name not in files:
            raise missing("cifar100", folder / name)
    return files


def read_archive(archive: Path, layout: str) -> dict[str, bytes]:
    """The layout's files out of its .tar.gz, read into memory: nothing is unpacked, so no member can escape.

    Raises ValueError if the md5 is not the publisher's, the archive is damaged, or a file is absent or not a
    file.
    """
    with open(archive, "rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != ARCHIVE_MD5[layout]:
        raise ValueError(
            f"cifar100: expected md5 {ARCHIVE_MD5[layout]} of {archive.name}, got {found} (fetch it again)"
        )
    wanted = {f"{layout}/{name}": name for name in _MEMBERS[layout]}
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as members:
            for member in members:
                name = wanted.get(member.name.removeprefix("./"))
                if name is None:
                    continue
                if not member.isfile() or member.size > _MEMBER_BYTES_MAX:
                    raise ValueError(f"cifar100: expected {member.name} to be a plain file, got {member.size} bytes")
                files[name] = members.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"cifar100: expected {archive.name} to be a whole archive, got {str(error)!r}") from None
    for name in _MEMBERS[layout][:2]:
        if name not in files:
            raise ValueError(f"cifar100: expected {layout}/{name} in {archive.name}, got {sorted(files)}")
    return files


def _parse_binary(where: str, raw: bytes, count: int) -> _Part:
    record = 2 + PIXELS
    if len(raw) != count * record:
        raise ValueError(f"{where}: expected {count} records of {record} bytes, got {len(raw)} bytes")
    records = np.frombuffer(raw, dtype=np.uint8).reshape(count, record)
    return _Part(pixels=records[:, 2:], fine=records[:, 1], coarse=records[:, 0])


def _parse_python(where: str, raw: bytes, count: int) -> _Part:
    content = load_arrays(where, raw)
    for key in ("data", "fine_labels", "coarse_labels"):
        if key not in content:
            raise ValueError(f"{where}: expected key {key!r}, got keys {sorted(content)}")
    pixels = content["data"]
    if not isinstance(pixels, np.ndarray) or pixels.shape != (count, PIXELS):
        got = list(pixels.shape) if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise ValueError(f"{where}: expected data to be uint8 [{count}, {PIXELS}], got {got}")
    labels = []
    for key in ("fine_labels", "coarse_labels"):
        values = content[key]
        if not isinstance(values, list) or len(values) != count or not all(type(v) is int for v in values):
            raise ValueError(f"{where}: expected {key} to be {count} integers, got {str(values)[:60]}")
        if not all(0 <= v < 256 for v in values):
            raise ValueError(f"{where}: expected {key} of 0..255, got {min(values)}..{max(values)}")
        labels.append(np.array(values, dtype=np.uint8))
    return _Part(pixels=pixels, fine=labels[0], coarse=labels[1])


def _check_labels(where: str, part: _Part, count: int) -> None:
    for values, limit, what in ((part.fine, CLASSES, "fine"), (part.coarse, COARSE_CLASSES, "coarse")):
        if int(values.max()) >= limit:
            row = int(np.flatnonzero(values >= limit)[0])
            raise ValueError(f"{where}: expected {what} labels of 0..{limit - 1}, got {values[row]} (record {row})")
    per_class = np.bincount(part.fine, minlength=CLASSES)
    if (per_class != count // CLASSES).any():
        label = int(np.flatnonzero(per_class != count // CLASSES)[0])
        raise ValueError(
            f"{where}: expected {count // CLASSES} images per class, got {per_class[label]} (class {label})"
        )


def _class_names(layout: str, files: dict[str, bytes]) -> tuple[str, ...]:
    """The 100 fine label names where the publisher's file of names is there, else the numbers."""
    readers: dict[str, Callable[[bytes], list]] = {
        "fine_label_names.txt": lambda raw: raw.decode("utf-8", "replace").split(),
        "meta": lambda raw: load_arrays("cifar100: meta", raw).get("fine_label_names", []),
    }
    source = _MEMBERS[layout][2]
    if source not in files:
        return tuple(str(label) for label in range(CLASSES))
    listed = readers[source](files[source])
    if not isinstance(listed, list) or len(listed) != CLASSES or len(set(map(str, listed))) != CLASSES:
        raise ValueError(f"cifar100: expected {CLASSES} different class names in {source}, got {str(listed)[:60]}")
    return tuple(str(name) for name in listed)
