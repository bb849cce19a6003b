"""HAPT, "Smartphone-Based Recognition of Human Activities and Postural Transitions" (UCI 341): 30 persons, 12
classes.

Three forms. `hapt`: the publisher's 561 features, from Train/X_train.txt and Test/X_test.txt (already in [-1, 1]) or,
where those are absent, computed from the raw 50 Hz signals (`har.py`). `hapt_raw`: 27 statistics
(`features.py`) of the 8 signals acc x y z, gyro x y z, |acc|, |gyro| = 216 columns. `hapt_windows`: the signals
themselves, acc and gyro [6, 128]. All cut windows of 128 samples, step 64, inside each segment of labels.txt;
segments in file order, train persons before test persons: the rows are then those of the publisher's y and subject
files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .cache import cached
from .download import fetch_and_unpack
from .features import FEATURE_NAMES, FEATURE_VERSION, magnitude, window_features
from .files import digest_of, find_file, find_folder, integer_column, missing, parse_numbers, read_hashed
from .har import HAR_FEATURES, HAR_VERSION, STEP, WINDOW, features_of_signals, scale_table
from .har_signals import har_signals
from .persons import PersonTable, Rules, person_dataset
from .progress import progress
from .registry import Dataset, Request, dataset
from .tables import read_table
from .windows import sliding

URL = (
    "https://archive.ics.uci.edu/static/public/341/"
    "smartphone+based+recognition+of+human+activities+and+postural+transitions.zip"
)
ACTIVITIES, PERSONS = range(1, 13), range(1, 31)
TEST_PERSONS = (2, 4, 9, 10, 12, 13, 18, 20, 24)
_FOLDER = "HAPT Data Set"
WINDOW_VERSION = 1  # of the cached windows
_TABLES = ("hapt_combined.csv", "hapt.csv", "hapt.npz", "hapt.mat")
# Persons 7 and 28 lack classes; class 8 (sit to stand) is missing for eight persons. HDQT leaves all three
# out.
_RULES = Rules(
    labels=ACTIVITIES,
    subjects=PERSONS,
    split="official",
    official_test=TEST_PERSONS,
    subjects_drop=(7, 28),
    classes_drop=(8,),
)


@dataset("hapt")
def load_hapt(request: Request) -> Dataset:
    """x float32 [N, 561]: a ready table, else the publisher's features, else ours of the raw signals.

    normalise "minmax_all" scales over all windows, those that are then left out included, as the publisher did: his
    own table stays as it is.
    """
    request.refuse("argument")
    table = _table(request)
    if request.normalise == "minmax_all":
        table = dataclasses.replace(table, x=scale_table(table.x))
        request = dataclasses.replace(request, normalise="none")
    return person_dataset("hapt", table, _RULES, request)


@dataset("hapt_raw")
def load_hapt_raw(request: Request) -> Dataset:
    """x float32 [N, 216] computed from the raw signals."""
    request.refuse("argument", "features_file")
    return person_dataset("hapt_raw", read_raw(_folder(request, "RawData/labels.txt")), _RULES, request)


@dataset("hapt_windows")
def load_hapt_windows(request: Request) -> Dataset:
    """x float32 [N, 6, 128]: windows of the raw signals, scaled by channel."""
    request.refuse("argument", "features_file")
    return person_dataset("hapt_windows", read_windows(_folder(request, "RawData/labels.txt")), _RULES, request)


def _table(request: Request) -> PersonTable:
    ready = request.features_file or find_file(request.root, _TABLES)
    if ready is not None:
        features = f"{HAR_FEATURES} features of {ready.name}"
        return dataclasses.replace(read_table("hapt", ready, HAR_FEATURES), features=features)
    folder = _folder(request, "Train/X_train.txt", "RawData/labels.txt")
    return read_official(folder) if (folder / "Train" / "X_train.txt").is_file() else read_computed(folder)


def _folder(request: Request, *anchors: str) -> Path:
    """The folder that holds the first anchor found; downloads the archive if need be and allowed."""
    for attempt in ("local", "downloaded"):
        for anchor in anchors:
            folder = find_folder(request.root, anchor)
            if folder is not None:
                return folder
        if attempt == "local" and request.download:
            fetch_and_unpack(URL, request.root, _FOLDER)
    raise missing(request.name, request.root / _FOLDER / anchors[-1])


def read_official(folder: Path) -> PersonTable:
    """The 561 published features, rows of Train then Test."""
    checksums: dict[str, str] = {}
    parts = []
    for side in ("Train", "Test"):
        lower = side.lower()
        path = folder / side / f"X_{lower}.txt"
        x = parse_numbers(f"hapt: {path.name}", read_hashed(path, checksums), HAR_FEATURES)
        labels = _column(folder / side / f"y_{lower}.txt", checksums)
        persons = _column(folder / side / f"subject_id_{lower}.txt", checksums)
        if not len(x) == len(labels) == len(persons):
            rows = f"{len(x)}, {len(labels)} and {len(persons)}"
            raise ValueError(f"hapt: expected equal row counts of X, y and subject_id in {side}, got {rows}")
        parts.append((x.astype(np.float32), labels, persons))
    x, labels, persons = (np.concatenate(column) for column in zip(*parts, strict=True))
    return PersonTable(x, labels, persons, checksums, f"{HAR_FEATURES} features of the publisher")


def read_computed(folder: Path) -> PersonTable:
    """The 561 features of every window computed from the raw signals, not scaled; errors as `read_raw`."""
    table = _read_windows(folder, "hapt", _compute_har, HAR_VERSION)
    return dataclasses.replace(table, features=f"{HAR_FEATURES} features computed from the raw signals")


def read_raw(folder: Path) -> PersonTable:
    """216 features of every window.

    Raises ValueError if files are damaged or the publisher's y and subject files, where present, disagree.
    """
    table = _read_windows(folder, "hapt_raw", _compute, FEATURE_VERSION)
    return dataclasses.replace(table, features="216 statistics of the raw signals")


def read_windows(folder: Path) -> PersonTable:
    """The windows themselves, in units of g and rad/s; errors as `read_raw`."""
    table = _read_windows(folder, "hapt_windows", _compute_windows, WINDOW_VERSION)
    return dataclasses.replace(table, features=f"windows of {WINDOW} samples of the raw signals")


def _read_windows(folder: Path, name: str, compute: Callable, version: int) -> PersonTable:
    """Rows of `compute(segments, texts)`, cached; errors of damaged files."""
    checksums: dict[str, str] = {}
    raw = folder / "RawData"
    segments = read_segments(raw / "labels.txt", checksums)
    signals = sorted({(experiment, person) for experiment, person, *_ in segments.tolist()})
    texts, sums = {}, {}
    for experiment, person in progress(signals, len(signals), f"{name}: read"):
        files = [f"{kind}_exp{experiment:02d}_user{person:02d}.txt" for kind in ("acc", "gyro")]
        texts[experiment, person] = {file: read_hashed(raw / file, sums) for file in files}
    digest = digest_of(sums | checksums)
    keys = ("x", "labels", "persons")
    arrays = cached(folder, name, digest, keys, lambda: compute(segments, texts), version)
    _compare_with_publisher(folder, arrays["labels"], arrays["persons"], checksums)
    return PersonTable(*(arrays[key] for key in keys), checksums | {"RawData": digest})


def read_segments(path: Path, checksums: dict[str, str]) -> np.ndarray:
    """int64 [S, 5] of labels.txt: experiment, person, activity, first and last sample (from 1, inclusive)."""
    where = f"hapt_raw: {path.name}"
    table = parse_numbers(where, read_hashed(path, checksums), 5)
    segments = np.stack([integer_column(where, column, "every column") for column in table.T], axis=1)
    wrong = (segments[:, 3] < 1) | (segments[:, 4] < segments[:, 3])
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        bounds = segments[row, 3:].tolist()
        raise ValueError(f"{where}: expected 1 <= start <= end, got {bounds} (line {row + 1})")
    return segments


def cut_windows(segments: np.ndarray, signals: dict[tuple[int, int], np.ndarray]) -> tuple[np.ndarray, ...]:
    """Windows float64 [n, C, 128], labels [n], persons [n]; train persons first, segments in file order.

    signals: (experiment, person) -> [T, C]. Raises ValueError for a segment that ends after its signal.
    """
    is_test = np.isin(segments[:, 1], TEST_PERSONS)
    channels = next(iter(signals.values())).shape[1]
    windows, labels, persons = [np.empty((0, channels, WINDOW))], [], []
    for experiment, person, activity, start, end in np.concatenate([segments[~is_test], segments[is_test]]).tolist():
        signal = signals[experiment, person]
        if end > len(signal):
            raise ValueError(
                f"hapt_raw: expected segments inside the {len(signal)} samples of experiment {experiment}, "
                f"got end {end}"
            )
        cut = sliding(signal[start - 1 : end], WINDOW, STEP)
        windows.append(cut)
        labels += [activity] * len(cut)
        persons += [person] * len(cut)
    return np.concatenate(windows), np.array(labels, dtype=np.int64), np.array(persons, dtype=np.int64)


Texts = dict[tuple[int, int], dict[str, bytes]]


def _parse(texts: Texts) -> dict[tuple[int, int], np.ndarray]:
    """(experiment, person) -> acc and gyro [T, 6]."""
    signals = {}
    for key, pair in progress(texts.items(), len(texts), "hapt: signals"):
        acc, gyro = (parse_numbers(f"hapt_raw: {name}", text, 3) for name, text in pair.items())
        if len(acc) != len(gyro):
            rows = f"{len(acc)} and {len(gyro)}"
            raise ValueError(f"hapt_raw: expected equally long acc and gyro of experiment {key[0]}, got {rows} rows")
        signals[key] = np.concatenate([acc, gyro], axis=1)
        if not np.isfinite(signals[key]).all():
            raise ValueError(f"hapt_raw: expected finite samples in experiment {key[0]}, got NaN or infinity")
    return signals


def _compute(segments: np.ndarray, texts: Texts) -> dict[str, np.ndarray]:
    windows, labels, persons = cut_windows(segments, _parse(texts))
    lengths = [magnitude(windows[:, :3])[:, None], magnitude(windows[:, 3:])[:, None]]
    features = window_features(np.concatenate([windows, *lengths], axis=1))
    x = features.reshape(len(windows), 8 * len(FEATURE_NAMES)).astype(np.float32)
    return {"x": x, "labels": labels, "persons": persons}


def _compute_windows(segments: np.ndarray, texts: Texts) -> dict[str, np.ndarray]:
    windows, labels, persons = cut_windows(segments, _parse(texts))
    return {"x": windows.astype(np.float32), "labels": labels, "persons": persons}


def _compute_har(segments: np.ndarray, texts: Texts) -> dict[str, np.ndarray]:
    signals = {key: har_signals(s[:, :3].T, s[:, 3:].T).T for key, s in _parse(texts).items()}
    windows, labels, persons = cut_windows(segments, signals)
    return {
        "x": features_of_signals(windows, "hapt: features").astype(np.float32),
        "labels": labels,
        "persons": persons,
    }


def _compare_with_publisher(folder: Path, labels: np.ndarray, persons: np.ndarray, checksums: dict[str, str]) -> None:
    """Our rows must be the publisher's rows wherever his y and subject files are there."""
    for ours, stem in ((labels, "y"), (persons, "subject_id")):
        paths = [folder / side / f"{stem}_{side.lower()}.txt" for side in ("Train", "Test")]
        if not all(path.is_file() for path in paths):
            continue
        theirs = np.concatenate([_column(path, checksums) for path in paths])
        if len(theirs) != len(ours):
            raise ValueError(f"hapt_raw: expected {len(theirs)} windows as in {stem}_*.txt, got {len(ours)}")
        wrong = np.flatnonzero(theirs != ours)
        if wrong.size:
            row = int(wrong[0])
            raise ValueError(f"hapt_raw: expected {theirs[row]} as in {stem}_*.txt, got {ours[row]} (row {row})")


def _column(path: Path, checksums: dict[str, str]) -> np.ndarray:
    where = f"hapt: {path.name}"
    return integer_column(where, parse_numbers(where, read_hashed(path, checksums), 1)[:, 0], "every line")
