"""DSADS, "Daily and Sports Activities" (UCI 256): 19 activities x 8 persons x 60 segments of 5 s, 405
features.

Raw: data/aXX/pY/sZZ.txt, 125 rows (25 Hz) of 45 comma-separated columns = 5 units (torso, right arm, left
arm, right leg, left leg) x (acc, gyro, mag) x (x, y, z). Features: the 27 of `features.py` of each of the 15
magnitudes. A ready table (dsads_405.npz, dsads.mat, dsads.csv) is taken before the raw files; both give the
same numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .cache import cached
from .download import fetch_and_unpack
from .features import magnitude, window_features
from .files import digest_of, find_file, find_folder, missing, parse_numbers, read_hashed
from .persons import PersonTable, Rules, person_dataset
from .progress import progress
from .registry import Dataset, Request, dataset
from .tables import read_table

URL = "https://archive.ics.uci.edu/static/public/256/daily+and+sports+activities.zip"
ACTIVITIES, PERSONS, SEGMENTS = range(1, 20), range(1, 9), range(1, 61)
SAMPLES, COLUMNS, FEATURES = 125, 45, 405
_TABLES = ("dsads_405.npz", "dsads.npz", "dsads.mat", "dsads.csv")


@dataset("dsads")
def load_dsads(request: Request) -> Dataset:
    """x float32 [N, 405], 19 classes, persons 1..8; default split "loso"."""
    request.refuse("argument")
    rules = Rules(labels=ACTIVITIES, subjects=PERSONS, split="loso")
    return person_dataset("dsads", _table(request), rules, request)


def _table(request: Request) -> PersonTable:
    ready = request.features_file or find_file(request.root, _TABLES)
    if ready is not None:
        return read_table("dsads", ready, FEATURES)
    folder = find_folder(request.root, "data/a01/p1/s01.txt")
    if folder is None and request.download:
        fetch_and_unpack(URL, request.root, "dsads")
        folder = find_folder(request.root, "data/a01/p1/s01.txt")
    if folder is None:
        raise missing("dsads", request.root / "dsads" / "data" / "a01" / "p1" / "s01.txt")
    return read_raw(folder / "data")


def read_raw(folder: Path) -> PersonTable:
    """405 features of every segment file, rows in the order activity, person, segment.

    Raises ValueError if a file is absent (all are needed), short, or not made of numbers.
    """
    cells = [(a, p, s) for a in ACTIVITIES for p in PERSONS for s in SEGMENTS]
    paths = [folder / f"a{a:02d}" / f"p{p}" / f"s{s:02d}.txt" for a, p, s in cells]
    absent = [path for path in paths if not path.is_file()]
    if absent:
        have = len(paths) - len(absent)
        raise ValueError(f"dsads: expected {len(paths)} segment files, got {have} (absent: {absent[0]} and others)")
    sums: dict[str, str] = {}
    texts = [read_hashed(p, sums, p.relative_to(folder).as_posix()) for p in progress(paths, len(paths), "dsads: read")]
    digest = digest_of(sums)
    arrays = cached(folder.parent, "dsads", digest, ("x",), lambda: {"x": _features(paths, texts)})
    labels, persons, _ = np.array(cells, dtype=np.int64).T
    return PersonTable(arrays["x"], labels, persons, {"data": digest})


def _features(paths: list[Path], texts: list[bytes]) -> np.ndarray:
    windows = np.empty((len(paths), COLUMNS // 3, SAMPLES))
    pairs = zip(windows, zip(paths, texts, strict=True), strict=True)
    for row, (path, text) in progress(pairs, len(paths), "dsads: features"):
        where = f"dsads: {'/'.join(path.parts[-3:])}"
        values = parse_numbers(where, text, COLUMNS, separator=",")
        if len(values) != SAMPLES:
            raise ValueError(f"{where}: expected {SAMPLES} rows, got {len(values)}")
        if not np.isfinite(values).all():
            raise ValueError(f"{where}: expected finite samples, got NaN or infinity")
        row[:] = magnitude(values.T.reshape(COLUMNS // 3, 3, SAMPLES))
    return window_features(windows).reshape(len(paths), FEATURES).astype(np.float32)
