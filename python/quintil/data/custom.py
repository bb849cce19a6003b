"""Users' own data: "custom:<path>" to an .npz file, a CSV file or a folder of images [CIL 4, Custom].

Folder: train/<class>/ and test/<class>/ with PNG or JPEG images (`image_folder.py`). .npz: x_train, y_train,
x_test, y_test [, subject_train, subject_test]. CSV: a header with `label` [, `subject`, `split` (train or test)],
every other column a feature. Labels are integers or strings, mapped by sorted order; their originals are
`class_names`. Without a split in the file: by person where persons are given ("hdqt" unless `split` says otherwise),
else stratified, 20 % of every class test, drawn from `seed`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .files import digest_of, integer_column, missing, read_hashed
from .image_folder import read_image_folder
from .normalise import default_normalisation, normalise
from .persons import to_float, to_tensors
from .registry import Dataset, Request, dataset
from .splits import split_persons, stratified
from .tables import read_npz
from .user_files import npz_labels, npz_samples, read_csv_table

_KEYS = ("x_train", "y_train", "x_test", "y_test")
# x, labels, persons or None
_Side = tuple[np.ndarray, np.ndarray, np.ndarray | None]


@dataset("custom")
def load_custom(request: Request) -> Dataset:
    """x float32 [N, F], [N, C, L], [N, C, H, W], or uint8 [N, C, H, W] (its transform divides by 255)."""
    request.refuse("features_file", "subjects_drop", "classes_drop")
    path = Path(request.argument).expanduser()
    if not request.argument or not (path.exists() or (request.root / path).exists()):
        raise missing(
            "custom",
            path if request.argument else "custom:<path to an .npz file, a .csv file or a folder of images>",
            downloadable=False,
        )
    path = (path if path.exists() else request.root / path).absolute()
    where, checksums = f"custom: {path.name}", {}
    if path.is_dir():
        request.require_split("official")
        sums: dict[str, str] = {}
        train, test = ((*side, None) for side in read_image_folder(where, path, sums))
        return _assemble(where, path.name, train, test, request, {path.name: digest_of(sums)})
    readers = {".npz": _read_npz, ".csv": _read_csv}
    if path.suffix.lower() not in readers:
        raise ValueError(f"custom: expected an .npz file, a .csv file or a folder of images, got {path.name!r}")
    raw = read_hashed(path, checksums)
    train, test = readers[path.suffix.lower()](where, raw, request)
    return _assemble(where, path.stem, train, test, request, checksums)


def images_to_float(batch: torch.Tensor) -> torch.Tensor:
    """Transform of uint8 images: x / 255."""
    return batch.to(torch.float32).div_(255.0)


def _assemble(where: str, name: str, train: _Side, test: _Side, request: Request, checksums: dict[str, str]) -> Dataset:
    (x_train, labels_train, _), (x_test, labels_test, _) = train, test
    classes = np.unique(labels_train)
    unseen = np.setdiff1d(labels_test, classes)
    if unseen.size:
        raise ValueError(f"{where}: expected the labels of test to be seen in train, got {unseen.tolist()[:10]}")
    images = x_train.dtype == np.uint8 and x_train.ndim == 4
    if images:
        if request.normalise not in (None, "none"):
            raise ValueError(f"{where}: expected normalise to be none for uint8 images, got {request.normalise!r}")
    else:
        for side, x in (("train", x_train), ("test", x_test)):
            if not np.isfinite(x).all():
                row = int(np.argwhere(~np.isfinite(x))[0, 0])
                raise ValueError(f"{where}: expected finite features, got NaN or infinity in {side} (row {row})")
        x_train, x_test = normalise(x_train, x_test, request.normalise or default_normalisation(x_train))
    xs_train, y_train = to_tensors(x_train, labels_train, classes)
    xs_test, y_test = to_tensors(x_test, labels_test, classes)
    subjects = [None if s is None else torch.from_numpy(s) for s in (train[2], test[2])]
    return Dataset(
        name=f"custom:{name}",
        x_train=xs_train,
        y_train=y_train,
        x_test=xs_test,
        y_test=y_test,
        class_names=tuple(str(label) for label in classes.tolist()),
        subject_train=subjects[0],
        subject_test=subjects[1],
        transform=images_to_float if images else to_float,
        augment=None,
        checksums=checksums,
    )


def _read_npz(where: str, raw: bytes, request: Request) -> tuple[_Side, _Side]:
    request.require_split("official")
    arrays = read_npz(where, raw)
    absent = [key for key in _KEYS if key not in arrays]
    if absent:
        raise ValueError(f"{where}: expected keys {', '.join(_KEYS)}, got {sorted(arrays)} (absent: {absent[0]})")
    if ("subject_train" in arrays) != ("subject_test" in arrays):
        raise ValueError(f"{where}: expected subject_train and subject_test together, got {sorted(arrays)}")
    sides = tuple(_npz_side(where, arrays, side) for side in ("train", "test"))
    shapes = [side[0].shape[1:] for side in sides]
    if shapes[0] != shapes[1]:
        got = f"{list(sides[0][0].shape)} and {list(sides[1][0].shape)}"
        raise ValueError(f"{where}: expected x_train and x_test to have equal sample shapes, got {got}")
    if (sides[0][0].dtype == np.uint8) != (sides[1][0].dtype == np.uint8):
        got = f"{sides[0][0].dtype} and {sides[1][0].dtype}"
        raise ValueError(f"{where}: expected x_train and x_test to have one dtype, got {got}")
    return sides


def _npz_side(where: str, arrays: dict[str, np.ndarray], side: str) -> _Side:
    x = npz_samples(where, arrays, f"x_{side}")
    y = npz_labels(where, arrays, f"y_{side}", len(x))
    subjects = arrays.get(f"subject_{side}")
    if subjects is not None:
        subjects = integer_column(where, subjects, f"subject_{side}")
        if len(subjects) != len(x):
            raise ValueError(f"{where}: expected subject_{side} of shape [{len(x)}], got {list(subjects.shape)}")
    return x, y, subjects


def _read_csv(where: str, raw: bytes, request: Request) -> tuple[_Side, _Side]:
    table = read_csv_table(where, raw, labelled=True)
    x, labels, persons = table.x, table.labels, table.subjects
    train, test = _csv_split(where, labels, persons, table.sides, request)
    return tuple((x[rows], labels[rows], None if persons is None else persons[rows]) for rows in (train, test))


def _csv_split(
    where: str, labels: np.ndarray, persons: np.ndarray | None, sides: np.ndarray | None, request: Request
) -> tuple[np.ndarray, np.ndarray]:
    if sides is not None and request.split in (None, "official"):
        wrong = sorted(set(sides.tolist()) - {"train", "test"})
        if wrong:
            raise ValueError(f"{where}: expected split to be train or test, got {wrong[:5]}")
        test = sides == "test"
        return ~test, test
    if persons is not None:
        return split_persons(where, request.split or "hdqt", persons, request.seed)
    if request.split is not None:
        raise ValueError(f"{where}: expected a subject column for split {request.split!r}, got none")
    return stratified(labels, request.seed)
