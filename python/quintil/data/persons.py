"""From a table of features, labels and persons to a `Dataset`: removals, split, scaling, class numbers.

Shared by every data set whose samples belong to persons (DSADS, PAMAP2, HAPT, custom and synthetic sensor
data).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import torch

from .normalise import default_normalisation, normalise
from .registry import Dataset, Request
from .splits import split_persons


@dataclass(frozen=True)
class PersonTable:
    """x [N, F] or [N, C, L], labels [N] (original numbers), subjects [N], what was read for them, what x is."""

    x: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray
    checksums: dict[str, str] = field(default_factory=dict)
    features: str = ""


@dataclass(frozen=True)
class Rules:
    """What a data set allows and does by default."""

    labels: Collection[int]
    subjects: Collection[int]
    split: str
    official_test: Collection[int] | None = None
    subjects_drop: tuple[int, ...] = ()
    classes_drop: tuple[int, ...] = ()


def to_float(batch: torch.Tensor) -> torch.Tensor:
    """Transform of data that is stored as the network takes it: a float32 batch as it is."""
    return batch.to(torch.float32)


def to_tensors(x: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """x as it is and, int64, the position of each label in the sorted `classes`."""
    return torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(
        np.searchsorted(classes, labels).astype(np.int64)
    )


def person_dataset(name: str, table: PersonTable, rules: Rules, request: Request) -> Dataset:
    """Removals, split by person, scaling; ValueError for values, labels or persons outside `rules`."""
    x, labels, subjects = table.x, table.labels, table.subjects
    _check_rows(name, x, labels, subjects)
    _check_known(name, "labels", labels, rules.labels)
    _check_known(name, "persons", subjects, rules.subjects)
    drop_subjects = rules.subjects_drop if request.subjects_drop is None else request.subjects_drop
    drop_classes = rules.classes_drop if request.classes_drop is None else request.classes_drop
    _check_known(name, "subjects_drop", np.array(drop_subjects, dtype=np.int64), rules.subjects)
    _check_known(name, "classes_drop", np.array(drop_classes, dtype=np.int64), rules.labels)
    keep = ~np.isin(subjects, drop_subjects) & ~np.isin(labels, drop_classes)
    x, labels, subjects = x[keep], labels[keep], subjects[keep]
    if len(x) == 0:
        raise ValueError(f"{name}: expected samples after the removals, got none ({drop_subjects}, {drop_classes})")

    train, test = split_persons(name, request.split or rules.split, subjects, request.seed, rules.official_test)
    how = request.normalise or default_normalisation(x)
    scaled_train, scaled_test = normalise(x[train], x[test], how)
    classes = np.unique(labels)
    x_train, y_train = to_tensors(scaled_train, labels[train], classes)
    x_test, y_test = to_tensors(scaled_test, labels[test], classes)
    return Dataset(
        name=name,
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=tuple(str(label) for label in classes.tolist()),
        subject_train=torch.from_numpy(subjects[train].astype(np.int64)),
        subject_test=torch.from_numpy(subjects[test].astype(np.int64)),
        transform=to_float,
        augment=None,
        checksums=dict(table.checksums),
        features=table.features,
    )


def _check_rows(name: str, x: np.ndarray, labels: np.ndarray, subjects: np.ndarray) -> None:
    if not len(x) == len(labels) == len(subjects):
        rows = f"{len(x)}, {len(labels)} and {len(subjects)}"
        raise ValueError(f"{name}: expected as many labels and persons as rows of features, got {rows}")
    finite = np.isfinite(x)
    if not finite.all():
        row, column = np.argwhere(~finite)[0][:2]
        raise ValueError(f"{name}: expected finite features, got {x[row, column]} (row {row}, column {column})")


def _check_known(name: str, what: str, values: np.ndarray, allowed: Collection[int]) -> None:
    unknown = np.setdiff1d(values, np.fromiter(allowed, dtype=np.int64))
    if unknown.size:
        raise ValueError(f"{name}: expected {what} of {sorted(allowed)}, got {unknown.tolist()[:10]}")
