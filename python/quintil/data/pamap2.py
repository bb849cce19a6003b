"""PAMAP2, "Physical Activity Monitoring" (UCI 231): 9 persons, 12 protocol activities, three sensor units.

Raw: Protocol/subject10{1..9}.dat, 54 space-separated columns at 100 Hz. Column 1 is the activity (0 =
transient, left out); each unit (hand, chest, ankle) has 17 columns: temperature, acc 16 g (3), acc 6 g (3),
gyro (3), mag (3), orientation (4, invalid). Here acc 16 g, gyro and mag; gaps (NaN) filled by straight lines
inside a stretch of constant activity; windows of 512 samples, step 256, inside such a stretch; 27 statistics
of the 9 magnitudes = 243 columns.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from .cache import cached
from .download import fetch_and_unpack
from .features import magnitude, window_features
from .files import digest_of, find_file, find_folder, integer_column, missing, parse_numbers, read_hashed
from .persons import PersonTable, Rules, person_dataset
from .progress import progress
from .registry import Dataset, Request, dataset
from .tables import read_table
from .windows import constant_runs, fill_gaps, sliding

URL = "https://archive.ics.uci.edu/static/public/231/pamap2+physical+activity+monitoring.zip"
ACTIVITIES = (1, 2, 3, 4, 5, 6, 7, 12, 13, 16, 17, 24)
PERSONS = range(1, 10)
COLUMNS, WINDOW, STEP, FEATURES = 54, 512, 256, 243
_TABLES = ("pamap2.npz", "pamap2.mat", "pamap2.csv", "pamap.mat", "pamap.csv")
_UNIT_STARTS = (3, 20, 37)
# Offsets inside a unit of acc 16 g, gyro, mag; three axes each.
_SENSOR_OFFSETS = (1, 7, 10)
SENSOR_COLUMNS = tuple(unit + offset + axis for unit in _UNIT_STARTS for offset in _SENSOR_OFFSETS for axis in range(3))


@dataset("pamap2")
def load_pamap2(request: Request) -> Dataset:
    """x float32 [N, 243]; persons 3, 4, 9 (few activities) and class 24 (rope jumping) dropped by default."""
    request.refuse("argument")
    rules = Rules(labels=ACTIVITIES, subjects=PERSONS, split="loso", subjects_drop=(3, 4, 9), classes_drop=(24,))
    return person_dataset("pamap2", _table(request), rules, request)


def _table(request: Request) -> PersonTable:
    ready = request.features_file or find_file(request.root, _TABLES)
    if ready is not None:
        return read_table("pamap2", ready, FEATURES)
    anchor = "Protocol/subject101.dat"
    folder = find_folder(request.root, anchor)
    if folder is None and request.download:
        fetch_and_unpack(URL, request.root, "PAMAP2_Dataset")
        folder = find_folder(request.root, anchor)
    if folder is None:
        raise missing("pamap2", request.root / "PAMAP2_Dataset" / anchor)
    return read_raw(folder / "Protocol")


def read_raw(folder: Path) -> PersonTable:
    """243 features of every window of the nine files; rows by person, then by time."""
    paths = [folder / f"subject10{person}.dat" for person in PERSONS]
    for path in paths:
        if not path.is_file():
            raise missing("pamap2", path)
    sums: dict[str, str] = {}
    for path in progress(paths, len(paths), "pamap2: read"):
        read_hashed(path, sums)
    keys = ("x", "labels", "persons")
    arrays = cached(folder, "pamap2", digest_of(sums), keys, lambda: _compute(paths))
    return PersonTable(*(arrays[key] for key in keys), sums)


def _compute(paths: list[Path]) -> dict[str, np.ndarray]:
    parts = []
    # One file at a time: the largest is 450,000 rows, 190 MB as numbers.
    for person, path in progress(zip(PERSONS, paths, strict=True), len(paths), "pamap2: features"):
        magnitudes, labels = file_windows(path)
        x = window_features(magnitudes).reshape(len(labels), FEATURES).astype(np.float32)
        parts.append((x, labels, np.full(len(labels), person, dtype=np.int64)))
    return dict(
        zip(
            ("x", "labels", "persons"),
            (np.concatenate(column) for column in zip(*parts, strict=True)),
            strict=True,
        )
    )


def file_windows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Windows of the 9 magnitudes, float64 [n, 9, 512], and their activities int64 [n], of one .dat file.

    A stretch in which a sensor has no value at all is left out with a warning. Raises ValueError for text
    that is not 54 numbers per line and for activities that are not of the protocol.
    """
    where = f"pamap2: {path.name}"
    rows = parse_numbers(where, path.read_bytes(), COLUMNS)
    activity = integer_column(where, rows[:, 1], "activities")
    unknown = np.setdiff1d(activity, (0, *ACTIVITIES))
    if unknown.size:
        raise ValueError(f"{where}: expected activities of {[0, *ACTIVITIES]}, got {unknown.tolist()[:10]}")
    sensors = rows[:, SENSOR_COLUMNS]
    if np.isinf(sensors).any():
        raise ValueError(f"{where}: expected finite samples or NaN, got infinity")
    windows, labels = [np.empty((0, FEATURES // 27, WINDOW))], []
    for start, stop, label in constant_runs(activity):
        if label == 0 or stop - start < WINDOW:
            continue
        filled = fill_gaps(sensors[start:stop])
        if filled is None:
            warnings.warn(f"{where}: rows {start + 1} to {stop} left out, a sensor has no value there", stacklevel=2)
            continue
        lengths = magnitude(filled.reshape(len(filled), FEATURES // 27, 3).swapaxes(1, 2)).copy()
        cut = sliding(lengths, WINDOW, STEP)
        windows.append(cut)
        labels += [label] * len(cut)
    return np.concatenate(windows), np.array(labels, dtype=np.int64)
