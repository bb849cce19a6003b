"""The data set type, the table of loaders and `load`, the one door to all of them.

A loader is a function `Request -> Dataset` decorated `@dataset("<name>")`; a name may carry an argument after
a colon ("custom:<path>", "synthetic:cifar"), which arrives as `Request.argument`. Every result passes `check`
here, so that a learner never sees a class without samples, a person on both sides of the split, or a value
that is not finite.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .splits import split_share, stratified

NORMALISATIONS = ("none", "minmax_all", "minmax_train", "zscore_train")


@dataclass(frozen=True)
class Dataset:
    """Train and test tensors of one data set, already split and normalised.

    x_*: uint8 [N, C, H, W] images, float32 [N, F], [N, C, L] or [N, C, H, W], or int64 [N, L] words; y_*: int64 [N],
    the position of the sample's label in `class_names` (original labels in sorted order); subject_*: int64 [N] or
    None. `transform` maps a batch of x to the float32 input of a network in evaluation; `augment(batch,
    generator)` does so in training, None where training uses `transform` as well. `checksums`: file name ->
    sha256 of what was read (a tree of many small files is one entry, the digest of its sorted list).
    `features`: what the columns of x are, where a data set has several forms; else empty.
    """

    name: str
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    class_names: tuple[str, ...]
    subject_train: torch.Tensor | None
    subject_test: torch.Tensor | None
    transform: Callable[[torch.Tensor], torch.Tensor]
    augment: Callable[[torch.Tensor, torch.Generator], torch.Tensor] | None
    checksums: dict[str, str]
    features: str = ""


@dataclass(frozen=True)
class Request:
    """What a caller of `load` asked for; None means the data set's own default."""

    name: str
    argument: str
    root: Path
    split: str | None
    normalise: str | None
    seed: int
    download: bool
    features_file: Path | None
    subjects_drop: tuple[int, ...] | None
    classes_drop: tuple[int, ...] | None

    def refuse(self, *options: str) -> None:
        """Raise ValueError if one of these options was given: the data set has no use for it."""
        for option in options:
            value = getattr(self, option)
            if value is not None and value != "":
                raise ValueError(f"load: expected no {option} for data set {self.name!r}, got {str(value)!r}")

    def require_split(self, *allowed: str) -> None:
        """Raise ValueError unless split is None or one of the allowed names."""
        if self.split is not None and self.split not in allowed:
            raise ValueError(f"load: expected split of {self.name!r} to be one of {allowed}, got {self.split!r}")


Loader = Callable[[Request], Dataset]
_LOADERS: dict[str, Loader] = {}


def dataset(name: str) -> Callable[[Loader], Loader]:
    """Decorator that registers a loader under `name`; ValueError if the name is taken."""

    def register(loader: Loader) -> Loader:
        if name in _LOADERS:
            raise ValueError(f"dataset: expected a new name, got {name!r} (already registered)")
        _LOADERS[name] = loader
        return loader

    return register


def names() -> tuple[str, ...]:
    """Names of all registered data sets, sorted."""
    return tuple(sorted(_LOADERS))


def load(
    name: str,
    root: str | Path | None = None,
    *,
    split: str | None = None,
    normalise: str | None = None,
    seed: int = 0,
    download: bool = False,
    features_file: str | Path | None = None,
    subjects_drop: Sequence[int] | None = None,
    classes_drop: Sequence[int] | None = None,
    validation: bool = False,
) -> Dataset:
    """Load a data set by name [CIL 4].

    root: folder that holds the publishers' files, or a folder above it (default: the environment variable
        QUINTIL_DATA_ROOT, else "data").
    split: "official", "hdqt" (80 % of the persons, drawn from seed), "loso:<person>", "loso" (the person
        number seed mod count), or "subjects:<json>" with {"train": [...], "test": [...]} inline or in a file.
    normalise: "none", "minmax_all", "minmax_train" or "zscore_train", per feature column. Default:
        "minmax_train" for features in their natural units, "none" for tables that already lie in [-1, 1].
    seed: draws the "hdqt" split, a random split of custom data, and synthetic data; nothing else.
    download: fetch absent files into root.
    features_file: a ready feature table (.npz, .csv, .mat) instead of the files under root.
    subjects_drop, classes_drop: original numbers to leave out; None is the data set's default, () leaves none
    out.
    validation: for choosing settings without a look at the test side: a fifth of the training persons (of the training
        samples of every class, where there are no persons), drawn from seed, takes its place.

    Raises FileNotFoundError for absent files, ValueError for options, files or splits that are not usable.
    """
    base, _, argument = str(name).partition(":")
    if base not in _LOADERS:
        near = difflib.get_close_matches(base, _LOADERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see quintil.data.names()"
        raise ValueError(f"load: expected name to be one of {', '.join(names())}, got {name!r} ({hint})")
    if normalise is not None and normalise not in NORMALISATIONS:
        raise ValueError(f"load: expected normalise to be one of {', '.join(NORMALISATIONS)}, got {normalise!r}")
    request = Request(
        name=base,
        argument=argument,
        root=Path(root if root is not None else os.environ.get("QUINTIL_DATA_ROOT") or "data").expanduser(),
        split=split,
        normalise=normalise,
        seed=int(seed),
        download=bool(download),
        features_file=None if features_file is None else Path(features_file).expanduser(),
        subjects_drop=None if subjects_drop is None else tuple(int(s) for s in subjects_drop),
        classes_drop=None if classes_drop is None else tuple(int(c) for c in classes_drop),
    )
    loaded = _LOADERS[base](request)
    if validation:
        loaded = held_out(loaded, request.seed)
    check(loaded)
    return loaded


def held_out(data: Dataset, seed: int, share: float = 0.2) -> Dataset:
    """The training side alone, split again: whole persons, or every class alike; ValueError for a single person."""
    if data.subject_train is None:
        masks = stratified(data.y_train.numpy(), seed, share)
    else:
        masks = split_share(data.name, data.subject_train.numpy(), seed, share)
    train, test = (torch.from_numpy(mask) for mask in masks)
    persons = (None, None) if data.subject_train is None else (data.subject_train[train], data.subject_train[test])
    return dataclasses.replace(
        data, x_train=data.x_train[train], y_train=data.y_train[train], x_test=data.x_train[test],
        y_test=data.y_train[test], subject_train=persons[0], subject_test=persons[1],
    )  # fmt: skip


def check(data: Dataset) -> None:
    """Raise ValueError (TypeError for dtypes) unless the tensors of a data set fit together."""
    for side in ("train", "test"):
        x, y, subject = (getattr(data, f"{part}_{side}") for part in ("x", "y", "subject"))
        where = f"{data.name}: expected"
        if x.dtype not in (torch.uint8, torch.float32, torch.int64):
            raise TypeError(f"{where} x_{side} to be uint8, float32 or int64, got {x.dtype}")
        if len(x) == 0:
            raise ValueError(f"{where} samples on both sides of the split, got none in {side}")
        if y.dtype != torch.int64 or y.shape != (len(x),):
            raise ValueError(f"{where} y_{side} to be int64 [{len(x)}], got {y.dtype} {list(y.shape)}")
        if subject is not None and subject.shape != (len(x),):
            raise ValueError(f"{where} subject_{side} to be [{len(x)}], got {list(subject.shape)}")
        if x.is_floating_point() and not torch.isfinite(x).all():
            row = int((~torch.isfinite(x)).flatten(1).any(1).nonzero()[0])
            raise ValueError(f"{where} finite values in x_{side}, got NaN or infinity (first in row {row})")
        counts = torch.bincount(y, minlength=len(data.class_names))
        absent = [name for name, count in zip(data.class_names, counts.tolist(), strict=True) if count == 0]
        if absent or len(counts) > len(data.class_names):
            raise ValueError(f"{where} every class on both sides of the split, got none of {absent} in {side}")
    if data.x_train.shape[1:] != data.x_test.shape[1:]:
        shapes = f"{list(data.x_train.shape)} and {list(data.x_test.shape)}"
        raise ValueError(f"{data.name}: expected x_train and x_test to have equal sample shapes, got {shapes}")
    if data.subject_train is not None and data.subject_test is not None:
        both = sorted(set(data.subject_train.tolist()) & set(data.subject_test.tolist()))
        if both:
            raise ValueError(f"{data.name}: expected no person on both sides of the split, got {both}")
