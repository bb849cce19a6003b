"""MNIST's idx files and IMDB's texts: what is read, and what is refused."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import quintil
import torch
from data_trees import real_root, rng
from quintil.data import imdb, mnist
from quintil.data.imdb import numbers_of, vocabulary, words_of

DIGITS = real_root("mnist")
REVIEWS = real_root("aclImdb")


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """A small copy: 30 training and 20 test images, the training side compressed."""
    monkeypatch.setattr(mnist, "COUNTS", {"train": 30, "t10k": 20})
    folder = tmp_path / "mnist"
    folder.mkdir()
    for side, count in mnist.COUNTS.items():
        images = rng(count).integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            name = folder / f"{side}-{kind}-ubyte"
            if side == "train":
                name.with_name(name.name + ".gz").write_bytes(gzip.compress(idx(array)))
            else:
                name.write_bytes(idx(array))
    return tmp_path


def test_mnist(digits):
    found = quintil.data.load("mnist", digits)
    assert found.x_train.shape == (30, 1, 28, 28) and found.x_train.dtype == torch.uint8
    assert torch.equal(found.x_train[:, 0], torch.from_numpy(rng(30).integers(0, 256, (30, 28, 28)).astype(np.uint8)))
    assert found.y_test.tolist() == [i % 10 for i in range(20)] and len(found.checksums) == 4
    black, white = found.transform(torch.tensor([0, 255], dtype=torch.uint8)).tolist()
    assert black == pytest.approx(-0.1307 / 0.3081) and white == pytest.approx(0.8693 / 0.3081)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte.gz", b"\x1f\x8b\x00", "expected train-images-idx3-ubyte.gz to be a whole gzip file"),
        (
            "t10k-images-idx3-ubyte",
            idx(np.zeros((20, 28, 27), np.uint8)),
            r"to hold bytes \[20, 28, 28\] in idx format",
        ),
        ("t10k-labels-idx1-ubyte", idx(np.full(20, 10, np.uint8)), r"expected labels of 0\.\.9, got 10 \(t10k\)"),
        ("t10k-labels-idx1-ubyte", None, "to exist, got nothing there"),
    ],
    ids=str,
)
def test_damaged_mnist(digits, name, content, message):
    path = digits / "mnist" / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        quintil.data.load("mnist", digits)


TEXTS = {
    ("train", "neg"): {"0_2": "Bad, BAD film.<br /><br />It's bad", "10_1": "a bad film"},
    ("train", "pos"): {"2_9": "A good film", "1_7": "good"},
    ("test", "neg"): {"0_3": "an awful film"},
    ("test", "pos"): {"0_8": "Good film " * 80},
}


@pytest.fixture
def reviews(tmp_path):
    for (side, label), texts in TEXTS.items():
        folder = tmp_path / "aclImdb" / side / label
        folder.mkdir(parents=True)
        for name, text in texts.items():
            (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return tmp_path


def test_words_and_numbers():
    assert words_of("Bad, BAD film.<br />It's bad") == ["bad", "bad", "film", "it's", "bad"]
    known = vocabulary([["b", "a", "b"], ["c"]], size=6)
    assert known == {"b": 3, "a": 4, "c": 5} and vocabulary([["b", "a", "b"], ["c"]], size=5) == {"b": 3, "a": 4}
    assert numbers_of(["a", "x"], known, 5) == [0, 0, 1, 4, 2]
    assert numbers_of(["a", "b", "c"], known, 4) == [1, 4, 3, 5] and numbers_of(["a", "b", "c"], known, 2) == [3, 5]


def test_imdb(reviews):
    found = quintil.data.load("imdb", reviews)
    assert (
        found.x_train.shape == (4, 100) and found.x_train.dtype == torch.int64 and found.class_names == ("neg", "pos")
    )
    assert found.y_train.tolist() == [0, 0, 1, 1]
    known = {"bad": 3, "film": 4, "a": 5, "good": 6, "it's": 7}  # 4, 3, 2, 2, 1 times
    texts = [[1, 3, 3, 4, 7, 3], [1, 5, 3, 4], [1, 6], [1, 5, 6, 4]]  # by the number in the file's name
    assert [row[row > 0].tolist() for row in found.x_train] == texts
    assert found.x_test[0][-4:].tolist() == [1, 2, 2, known["film"]]
    assert found.x_test[1].tolist() == [known["good"], known["film"]] * 50
    assert torch.equal(found.transform(found.x_test), found.x_test)


def test_absent_imdb(tmp_path, reviews):
    with pytest.raises(FileNotFoundError, match="imdb: expected .*aclImdb/train/pos to exist"):
        quintil.data.load("imdb", tmp_path / "none")
    for path in (reviews / "aclImdb" / "test" / "neg").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="test/neg/0_1.txt to exist"):
        quintil.data.load("imdb", reviews)


@pytest.mark.parametrize("name", ["mnist", "imdb"])
def test_options_without_use(name, tmp_path):
    with pytest.raises(ValueError, match="expected normalise to be none"):
        quintil.data.load(name, tmp_path, normalise="minmax_all")
    with pytest.raises(ValueError, match="expected split"):
        quintil.data.load(name, tmp_path, split="loso")


if DIGITS is not None:  # on a machine that has the publishers' files

    def test_real_mnist():
        found = quintil.data.load("mnist", DIGITS)
        pixels = found.x_train.double() / 255
        assert pixels.mean().item() == pytest.approx(mnist.MEAN, abs=5e-5)
        assert pixels.std().item() == pytest.approx(mnist.STD, abs=5e-5)
        assert found.y_train.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


if REVIEWS is not None:

    def test_real_imdb():
        found = quintil.data.load("imdb", REVIEWS)
        assert found.x_train.shape == found.x_test.shape == (25_000, imdb.LENGTH)
        assert found.y_train.bincount().tolist() == found.y_test.bincount().tolist() == [12_500] * 2
        assert found.x_train.max() == imdb.WORDS - 1
