"""IMDB reviews (Maas et al. 2011): 25,000 + 25,000 texts, negative or positive, as numbers of words.

Words are runs of letters, digits and apostrophes in lower case, markup left out. The vocabulary holds the most
frequent words of the training texts (ties: by the alphabet). Numbers: 0 before a short text, 1 where a text begins, 2 a
word outside the vocabulary, then the words. Of a long text the last words are kept.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from .cache import cached
from .files import missing
from .registry import Dataset, Request, dataset

WORDS, LENGTH = 20_000, 100  # numbers in use, with the three that are no words; words of a text
PADDING, START, UNKNOWN, FIRST_WORD = 0, 1, 2, 3
CLASSES = ("neg", "pos")
URL = "https://ai.stanford.edu/~amaas/data/sentiment"
_VERSION = 1
_WORD = re.compile(r"[a-z0-9']+")
_MARKUP = re.compile(r"<[^>]*>")


@dataset("imdb")
def load_imdb(request: Request) -> Dataset:
    """x int64 [N, 100] of 0 .. 19,999; classes neg and pos; the publisher's split."""
    request.refuse("argument", "features_file", "subjects_drop", "classes_drop")
    request.require_split("official")
    if request.normalise not in (None, "none"):
        raise ValueError(f"imdb: expected normalise to be none, got {request.normalise!r}")
    folder = _folder(request.root)
    paths = {(side, label): _texts(folder, side, label) for side in ("train", "test") for label in CLASSES}
    names = "\n".join(f"{path.relative_to(folder)} {path.stat().st_size}" for group in paths.values() for path in group)
    digest = hashlib.sha256(names.encode()).hexdigest()
    arrays = cached(folder, "imdb", digest, ("train", "test"), lambda: _numbers(paths), _VERSION)
    sides = {}
    for side in ("train", "test"):
        labels = np.repeat(np.arange(2), [len(paths[side, label]) for label in CLASSES])
        sides[side] = torch.from_numpy(arrays[side].astype(np.int64)), torch.from_numpy(labels.astype(np.int64))
    return Dataset(
        name="imdb",
        x_train=sides["train"][0],
        y_train=sides["train"][1],
        x_test=sides["test"][0],
        y_test=sides["test"][1],
        class_names=CLASSES,
        subject_train=None,
        subject_test=None,
        transform=_unchanged,
        augment=None,
        checksums={"names and sizes of all files": digest},
    )


def words_of(text: str) -> list[str]:
    """The words of a text."""
    return _WORD.findall(_MARKUP.sub(" ", text.lower()))


def vocabulary(texts: Iterable[list[str]], size: int = WORDS) -> dict[str, int]:
    """word -> number, for the most frequent words, as many as fit below `size`."""
    counts = Counter(word for text in texts for word in text)
    order = sorted(counts, key=lambda word: (-counts[word], word))[: size - FIRST_WORD]
    return {word: FIRST_WORD + place for place, word in enumerate(order)}


def numbers_of(words: list[str], known: dict[str, int], length: int = LENGTH) -> list[int]:
    """`length` numbers: the last ones of the text with its beginning mark, or all of them behind padding."""
    numbers = [START, *(known.get(word, UNKNOWN) for word in words)][-length:]
    return [PADDING] * (length - len(numbers)) + numbers


def _unchanged(x: torch.Tensor) -> torch.Tensor:
    return x


def _folder(root: Path) -> Path:
    for folder in (root / "aclImdb", root):
        if (folder / "train" / "pos").is_dir() and (folder / "test" / "pos").is_dir():
            return folder
    raise missing("imdb", root / "aclImdb" / "train" / "pos", downloadable=False)


def _texts(folder: Path, side: str, label: str) -> list[Path]:
    """Files <number>_<rating>.txt by number."""
    found = sorted((folder / side / label).glob("*_*.txt"), key=lambda path: int(path.name.split("_")[0]))
    if not found:
        raise missing("imdb", folder / side / label / "0_1.txt", downloadable=False)
    return found


def _numbers(paths: dict[tuple[str, str], list[Path]]) -> dict[str, np.ndarray]:
    words = {
        side: [words_of(path.read_text(encoding="utf-8")) for label in CLASSES for path in paths[side, label]]
        for side in ("train", "test")
    }
    known = vocabulary(words["train"])
    return {
        side: np.array([numbers_of(text, known) for text in texts], dtype=np.uint16) for side, texts in words.items()
    }
