"""Reading the publishers' files: finding them, digests of what was read, number tables, and errors."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def find_folder(root: Path, anchor: str) -> Path | None:
    """The folder that holds `anchor` (a relative path): root or at most two levels below it, else None."""
    for pattern in (anchor, f"*/{anchor}", f"*/*/{anchor}"):
        for hit in sorted(root.glob(pattern)):
            return hit.parents[len(Path(anchor).parts) - 1]
    return None


def find_file(root: Path, names: Iterable[str]) -> Path | None:
    """The first of `names` that is a file in root or in a folder directly below it."""
    for name in names:
        for pattern in (name, f"*/{name}"):
            for hit in sorted(root.glob(pattern)):
                if hit.is_file():
                    return hit
    return None


def missing(name: str, expected: Path | str, *, downloadable: bool = True) -> FileNotFoundError:
    """The error for absent files: what was expected where, and the two ways on."""
    download = "download=True, on the command line --download, fetches it; else " if downloadable else ""
    return FileNotFoundError(
        f"{name}: expected {expected} to exist, got nothing there "
        f"({download}put the publisher's files there, or use the generated data set 'synthetic')"
    )


def read_hashed(path: Path, checksums: dict[str, str], key: str | None = None) -> bytes:
    """Bytes of the file; its sha256 is noted in `checksums` under `key` (default: the file's name)."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"read: expected file {path} to exist, got nothing there") from None
    checksums[key or path.name] = hashlib.sha256(raw).hexdigest()
    return raw


def digest_of(checksums: dict[str, str]) -> str:
    """One sha256 for many files: that of the sorted lines "<name> <sha256>"."""
    lines = "".join(f"{name} {checksums[name]}\n" for name in sorted(checksums))
    return hashlib.sha256(lines.encode()).hexdigest()


def parse_numbers(where: str, raw: bytes, columns: int, *, separator: str = " ") -> np.ndarray:
    """Rows of numbers in text ("nan" allowed) -> float64 [rows, columns].

    `where` names data set and file in errors. `separator` is " " (any white space) or ",". Raises ValueError
    for text that is not numbers and for any line with another number of columns, naming the first such line.
    """
    text = raw.replace(b",", b" ") if separator == "," else raw
    counts = _tokens_per_line(text)
    wrong = np.flatnonzero(counts != columns)
    wrong = wrong[counts[wrong] != 0]
    if wrong.size:
        line = int(wrong[0])
        raise ValueError(f"{where}: expected {columns} numbers in every line, got {counts[line]} in line {line + 1}")
    rows = int((counts != 0).sum())
    if rows == 0:
        raise ValueError(f"{where}: expected rows of {columns} numbers, got an empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            values = np.fromstring(text, dtype=np.float64, sep=" ")
    except (ValueError, DeprecationWarning):
        values = np.empty(0)
    if values.size != rows * columns:
        raise ValueError(f"{where}: expected only numbers, got {_first_word(text)!r}")
    return values.reshape(rows, columns)


def _tokens_per_line(text: bytes) -> np.ndarray:
    """Number of words in each line of text."""
    codes = np.frombuffer(text, dtype=np.uint8)
    space = codes <= 32
    word_starts = ~space
    word_starts[1:] &= space[:-1]
    ends = np.flatnonzero(codes == 10)
    if codes.size and codes[-1] != 10:
        ends = np.append(ends, codes.size)
    return np.diff(np.searchsorted(np.flatnonzero(word_starts), ends), prepend=0)


def _first_word(text: bytes) -> str:
    """The first word of text that is not a number (only called once one is known to be there)."""
    for word in text.split():
        try:
            float(word)
        except ValueError:
            return word[:40].decode("ascii", "replace")
    return "an unreadable number"


def integer_column(where: str, column: np.ndarray, what: str) -> np.ndarray:
    """A float or integer column as int64; ValueError unless every value is a whole number."""
    column = np.asarray(column)
    if column.ndim != 1:
        column = column.reshape(-1) if column.size == max(column.shape, default=0) else column
    if column.dtype.kind not in "iuf" or column.ndim != 1:
        got = f"{column.dtype} of shape {list(column.shape)}"
        raise ValueError(f"{where}: expected {what} to be a column of integers, got {got}")
    whole = (
        np.isfinite(column) & (column == np.rint(column)) if column.dtype.kind == "f" else np.ones(len(column), bool)
    )
    if not whole.all():
        row = int(np.flatnonzero(~whole)[0])
        raise ValueError(f"{where}: expected {what} to be integers, got {column[row]} (row {row})")
    return column.astype(np.int64)
