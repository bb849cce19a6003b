"""Samples and labels in users' own .npz and CSV files, read alike for training (custom:<path>) and predictions."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .files import integer_column
from .tables import LABEL_NAMES, SUBJECT_NAMES, is_number, pick, read_npz

_SAMPLE_KEYS = {"x": "y", "x_test": "y_test"}


@dataclass(frozen=True)
class CsvTable:
    """x float64 [N, F]; of each row the label (integers or texts), person and side ("train"), None without a column."""

    x: np.ndarray
    labels: np.ndarray | None
    subjects: np.ndarray | None
    sides: np.ndarray | None


def read_samples(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples to predict, and their labels where the file has them (else None), all rows in the order of the file.

    .npz: x [, y] or, without those, x_test [, y_test]. .csv: columns as in custom data, whose label, person and
    split are no features; a file without a header has features alone. FileNotFoundError, or ValueError saying what is
    wrong with the file.
    """
    where, suffix = f"predict: {path.name}", path.suffix.lower()
    if suffix not in (".npz", ".csv"):
        raise ValueError(f"predict: expected input to be an .npz or .csv file, got {path.name!r}")
    if not path.is_file():
        raise FileNotFoundError(f"predict: expected input {path} to exist, got nothing there")
    raw = path.read_bytes()
    if suffix == ".csv":
        table = read_csv_table(where, raw, labelled=False)
        return table.x, table.labels
    arrays = read_npz(where, raw)
    key = next((name for name in _SAMPLE_KEYS if name in arrays), None)
    if key is None:
        raise ValueError(f"{where}: expected a key of {', '.join(_SAMPLE_KEYS)}, got {sorted(arrays)}")
    x, labels = npz_samples(where, arrays, key), _SAMPLE_KEYS[key]
    return x, npz_labels(where, arrays, labels, len(x)) if labels in arrays else None


def npz_samples(where: str, arrays: dict[str, np.ndarray], key: str) -> np.ndarray:
    """The numbers [N, F], [N, C, L] or [N, C, H, W] under a key; ValueError for anything else."""
    x = arrays[key]
    if x.dtype.kind not in "iuf":
        raise ValueError(f"{where}: expected {key} to be integers or floats, got {x.dtype}")
    if x.ndim not in (2, 3, 4) or x.size == 0:
        raise ValueError(f"{where}: expected {key} of shape [N, F], [N, C, L] or [N, C, H, W], got {list(x.shape)}")
    return x


def npz_labels(where: str, arrays: dict[str, np.ndarray], key: str, count: int) -> np.ndarray:
    """The `count` labels under a key, int64 or texts."""
    y = arrays[key]
    if y.shape != (count,):
        raise ValueError(f"{where}: expected {key} of shape [{count}], got {list(y.shape)}")
    if y.dtype.kind == "S":
        return np.char.decode(y, "utf-8")
    return y if y.dtype.kind == "U" else integer_column(where, y, key)


def read_csv_table(where: str, raw: bytes, *, labelled: bool) -> CsvTable:
    """A CSV file with a header; every column but label, person and split is a feature.

    labelled: a label column has to be there. Otherwise the header may be absent too: where the first line is numbers
    alone, every column is a feature.
    """
    header, *rows = list(csv.reader(raw.decode("utf-8-sig", "replace").splitlines())) or [[]]
    first_line = 2
    if not labelled and header and all(map(is_number, header)):
        header, rows, first_line = [""] * len(header), [header, *rows], 1
    names = [name.strip() for name in header]
    rows = [row for row in rows if row]
    label = pick(where, names, LABEL_NAMES, "label") if labelled or _first(names, LABEL_NAMES) else None
    subject, split = _first(names, SUBJECT_NAMES), _first(names, ("split",))
    features = [i for i, name in enumerate(names) if name not in (label, subject, split)]
    if not rows or not features:
        raise ValueError(f"{where}: expected rows and feature columns, got {len(rows)} rows, {len(features)} features")
    for number, row in enumerate(rows, start=first_line):
        if len(row) != len(names):
            raise ValueError(f"{where}: expected {len(names)} fields in every line, got {len(row)} in line {number}")

    def column(name: str) -> list[str]:
        return [row[names.index(name)].strip() for row in rows]

    x = _numbers(where, [[row[i] for i in features] for row in rows])
    subjects = None
    if subject is not None:
        persons = _numbers(where, [[text] for text in column(subject)])[:, 0]
        subjects = integer_column(where, persons, f"column {subject}")
    labels = None if label is None else _labels(column(label))
    sides = None if split is None else np.array([side.lower() for side in column(split)])
    return CsvTable(x, labels, subjects, sides)


def _first(names: list[str], candidates: tuple[str, ...]) -> str | None:
    return next((name for name in names if name.lower() in candidates), None)


def _labels(column: list[str]) -> np.ndarray:
    """Integers if every label is one, else the strings themselves."""
    try:
        return np.array([int(word) for word in column], dtype=np.int64)
    except ValueError:
        return np.array(column)


def _numbers(where: str, rows: list[list[str]]) -> np.ndarray:
    try:
        return np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{where}: expected only numbers in the feature columns, got {str(error)!r}") from None
