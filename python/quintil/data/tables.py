"""Ready feature tables of the person data sets: .npz, .csv, .mat -> features, labels, persons.

Columns are found by name where the file has names (.npz keys, a CSV header), else by position: the features
first, the person last, the label before it (the layout of the HDQT authors' tables [CIL 4]).
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from .files import integer_column, missing, parse_numbers, read_hashed
from .persons import PersonTable

FEATURE_KEYS = ("x", "features", "data")
LABEL_NAMES = ("label", "activity", "aid", "class", "y", "target")
SUBJECT_NAMES = ("subject", "person", "user", "id")
# Columns of the known tables that are neither features, labels nor persons.
_OTHER_NAMES = ("sequence", "segment", "seq")


def read_table(name: str, path: Path, features: int) -> PersonTable:
    """Table of `features` feature columns, float32 [N, features].

    Raises FileNotFoundError, and ValueError for a damaged file, a missing column, another number of features,
    labels or persons that are not whole numbers.
    """
    readers = {".npz": _from_npz, ".csv": _from_csv, ".mat": _from_mat}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{name}: expected features_file to be .npz, .csv or .mat, got {path.name!r}")
    if not path.is_file():
        raise missing(name, path, downloadable=False)
    checksums: dict[str, str] = {}
    raw = read_hashed(path, checksums)
    where = f"{name}: {path.name}"
    x, labels, subjects = reader(where, raw, features)
    if x.ndim != 2 or x.shape[1] != features or x.dtype.kind not in "iuf":
        raise ValueError(f"{where}: expected features of shape [N, {features}], got {x.dtype} {list(x.shape)}")
    if not len(x) == len(labels) == len(subjects):
        rows = f"{len(x)}, {len(labels)} and {len(subjects)}"
        raise ValueError(f"{where}: expected as many labels and persons as rows of features, got {rows}")
    labels, subjects = integer_column(where, labels, "labels"), integer_column(where, subjects, "persons")
    return PersonTable(x.astype(np.float32), labels, subjects, checksums)


def read_npz(where: str, raw: bytes) -> dict[str, np.ndarray]:
    """All arrays of an .npz file by key; never unpickles: ValueError for a damaged file or Python objects."""
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
    ) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{where}: expected a readable .npz of plain arrays, got {reason!r}") from None


def pick(where: str, found: list[str], candidates: tuple[str, ...], what: str) -> str:
    """The one of `found` that is a candidate, upper and lower case alike; ValueError if there is none."""
    for candidate in candidates:
        for name in found:
            if name.strip().lower() == candidate:
                return name
    shown = ", ".join(found[:3] + ["..."] + found[-3:] if len(found) > 8 else found)
    raise ValueError(f"{where}: expected a {what} column (one of {', '.join(candidates)}), got columns {shown}")


def _from_npz(where: str, raw: bytes, features: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    arrays = read_npz(where, raw)
    found = list(arrays)
    keys = (FEATURE_KEYS, "features"), (LABEL_NAMES, "label"), (SUBJECT_NAMES, "person")
    x, labels, subjects = (arrays[pick(where, found, names, what)] for names, what in keys)
    return x, labels, subjects


def _from_csv(where: str, raw: bytes, features: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    header, _, body = raw.partition(b"\n")
    names = [word.strip().strip('"') for word in header.decode("utf-8-sig", "replace").strip().split(",")]
    if not any(is_number(word) for word in names):
        label, subject = pick(where, names, LABEL_NAMES, "label"), pick(where, names, SUBJECT_NAMES, "person")
        table = parse_numbers(where, body, len(names), separator=",")
        chosen = [i for i, n in enumerate(names) if n not in (label, subject) and n.lower() not in _OTHER_NAMES]
        return table[:, chosen], table[:, names.index(label)], table[:, names.index(subject)]
    return _by_position(where, parse_numbers(where, raw, len(names), separator=","), features)


def _from_mat(where: str, raw: bytes, features: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise ImportError(f"{where}: expected scipy to be installed for .mat files, got none") from None
    try:
        variables = loadmat(io.BytesIO(raw))
    except Exception as error:  # loadmat raises whatever a damaged record leads to: struct, zlib, type, memory errors
        raise ValueError(f"{where}: expected a readable MATLAB file before v7.3, got {str(error)!r}") from None
    tables = [v for v in variables.values() if isinstance(v, np.ndarray) and v.ndim == 2 and v.dtype.kind in "iuf"]
    tables = [v for v in tables if v.shape[1] >= features + 2]
    if len(tables) != 1:
        raise ValueError(f"{where}: expected one table of at least {features + 2} columns, got {len(tables)}")
    return _by_position(where, tables[0], features)


def _by_position(where: str, table: np.ndarray, features: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if table.shape[1] < features + 2:
        raise ValueError(
            f"{where}: expected a label and a person column after {features} features, " f"got {table.shape[1]} columns"
        )
    return table[:, :features], table[:, -2], table[:, -1]


def is_number(word: str) -> bool:
    """Whether a word of a table is a number ("nan" is one)."""
    try:
        float(word)
    except ValueError:
        return False
    return True
