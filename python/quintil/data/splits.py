"""Splits by person: hdqt, official, loso, subjects [CIL 4, Splits]; a stratified one without persons."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Collection
from pathlib import Path

import numpy as np


def split_persons(
    name: str, split: str, subjects: np.ndarray, seed: int, official_test: Collection[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Boolean masks (train, test) over the rows of subjects [N]; no row is in both.

    "hdqt": random.Random(seed).sample(persons in order of first appearance, ceil(0.8 * count)) are the train
    persons. "official": `official_test` are the test persons. "loso:<person>": one test person; "loso":
    persons[seed mod count]. "subjects:<json or file>": the two lists of the JSON; persons in neither list are
    left out.
    Raises ValueError for an unknown split, an unknown person, a person on both sides, or an empty side.
    """
    persons = list(dict.fromkeys(subjects.tolist()))
    kind, _, argument = split.partition(":")
    if kind == "hdqt" and not argument:
        train = random.Random(seed).sample(persons, math.ceil(0.8 * len(persons)))
        test = [p for p in persons if p not in train]
    elif kind == "official" and not argument and official_test is not None:
        train = [p for p in persons if p not in official_test]
        test = [p for p in persons if p in official_test]
    elif kind == "loso":
        left_out = _person(name, argument) if argument else persons[seed % len(persons)]
        train, test = [p for p in persons if p != left_out], [left_out]
    elif kind == "subjects" and argument:
        train, test = _listed(name, argument)
    else:
        known = "hdqt, loso, loso:<person>, subjects:<json>" + (", official" if official_test is not None else "")
        raise ValueError(f"{name}: expected split to be one of {known}, got {split!r}")
    _check_persons(name, split, persons, train, test)
    return np.isin(subjects, train), np.isin(subjects, test)


def split_share(name: str, subjects: np.ndarray, seed: int, test_share: float) -> tuple[np.ndarray, np.ndarray]:
    """Boolean masks (train, test): round(test_share * count) persons, at least one, drawn by random.Random(seed)."""
    persons = sorted(set(subjects.tolist()))
    if len(persons) < 2:
        raise ValueError(f"{name}: expected training persons to hold some back, got {len(persons)}")
    test = random.Random(seed).sample(persons, max(1, round(test_share * len(persons))))
    held = np.isin(subjects, test)
    return ~held, held


def stratified(labels: np.ndarray, seed: int, test_share: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Boolean masks (train, test): of every label, round(test_share * count) rows drawn by RandomState(seed)
    are test.

    At least one row of a label with two rows or more goes to each side. Labels are taken in sorted order.
    """
    generator = np.random.RandomState(seed % 2**32)
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(test_share * len(rows))), len(rows) - 1)
        test[rows[:count]] = True
    return ~test, test


def _person(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name}: expected the person of split loso to be a number, got {text!r}") from None


def _listed(name: str, argument: str) -> tuple[list[int], list[int]]:
    """Train and test lists of the JSON text, or of the file of that name."""
    text = argument.strip()
    if not text.startswith("{"):
        path = Path(text).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"{name}: expected the subjects file {path} to exist, got nothing there")
        text = path.read_text(encoding="utf-8")
    try:
        parsed = json.loads(text)
        lists = [parsed["train"], parsed["test"]]
        valid = all(type(p) is int for side in lists for p in side)
    except (ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise ValueError(f'{name}: expected subjects as JSON like {{"train": [1, 2], "test": [3]}}, got {text[:80]!r}')
    return lists[0], lists[1]


def _check_persons(name: str, split: str, persons: list[int], train: list[int], test: list[int]) -> None:
    unknown = sorted(set(train + test) - set(persons))
    if unknown:
        raise ValueError(f"{name}: expected persons of {sorted(persons)}, got {unknown} (split {split!r})")
    both = sorted(set(train) & set(test))
    if both:
        raise ValueError(f"{name}: expected no person on both sides, got {both} (split {split!r})")
    if not train or not test:
        sizes = f"{len(train)} train and {len(test)} test"
        raise ValueError(f"{name}: expected persons on both sides, got {sizes} (split {split!r})")
