"""CIFAR-100 in both layouts, folder and archive: every form gives the same tensors."""

import hashlib
import pickle

import numpy as np
import pytest
import quintil.data
import torch
from data_trees import CIFAR_COUNTS, CIFAR_NAMES, cifar_archive, cifar_files, cifar_parts, real_root
from quintil.data import cifar100
from quintil.data.safe_pickle import load_arrays

pytestmark = pytest.mark.usefixtures("small_cifar")


@pytest.mark.parametrize("form", ["folder", "inside", "archive"])
@pytest.mark.parametrize("layout", ["cifar-100-binary", "cifar-100-python"])
def test_every_form_gives_the_same_tensors(layout, form, tmp_path, monkeypatch):
    files = cifar_files(layout)
    if form == "archive":
        cifar_archive(tmp_path, layout, files, monkeypatch)
    else:
        (tmp_path / layout).mkdir()
        for name, raw in files.items():
            (tmp_path / layout / name).write_bytes(raw)
    data = quintil.data.load("cifar100", tmp_path / layout if form == "inside" else tmp_path)
    for side, (pixels, fine, _) in cifar_parts(CIFAR_COUNTS).items():
        x, y = getattr(data, f"x_{side}"), getattr(data, f"y_{side}")
        assert x.dtype == torch.uint8 and y.dtype == torch.int64
        np.testing.assert_array_equal(x.numpy(), pixels.reshape(-1, 3, 32, 32))
        np.testing.assert_array_equal(y.numpy(), fine)
    assert data.class_names == tuple(CIFAR_NAMES) and data.subject_train is None
    assert data.checksums == {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}


def test_classes_may_be_left_out(tmp_path):
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for name, raw in cifar_files("cifar-100-binary").items():
        (folder / name).write_bytes(raw)
    kept = [label for label in range(100) if label not in (0, 7, 99)]
    data = quintil.data.load("cifar100", tmp_path, classes_drop=(7, 0, 99))
    assert data.class_names == tuple(CIFAR_NAMES[label] for label in kept)
    for side, (pixels, fine, _) in cifar_parts(CIFAR_COUNTS).items():
        rows = np.isin(fine, kept)
        np.testing.assert_array_equal(getattr(data, f"x_{side}").numpy(), pixels[rows].reshape(-1, 3, 32, 32))
        assert [kept[label] for label in getattr(data, f"y_{side}").tolist()] == fine[rows].tolist()
    for wrong in ((100,), range(100)):
        with pytest.raises(ValueError, match="cifar100: expected classes_drop to be some of the labels 0..99, got"):
            quintil.data.load("cifar100", tmp_path, classes_drop=wrong)


def test_the_real_files_or_a_full_size_copy(tmp_path, monkeypatch):
    """50,000 + 10,000 images, 500 + 100 per class; generated at that size where the real ones are absent."""
    monkeypatch.undo()
    root = real_root("cifar-100-binary/train.bin")
    if root is None:
        root = tmp_path
        (root / "cifar-100-binary").mkdir()
        for side, count in (("train", 50_000), ("test", 10_000)):
            records = np.zeros((count, 3074), dtype=np.uint8)
            records[:, 1] = np.arange(count) % 100
            records[:, 2:] = records[:, 1:2] + 50
            records.tofile(root / "cifar-100-binary" / f"{side}.bin")
    data = quintil.data.load("cifar100", root)
    assert data.x_train.shape == (50_000, 3, 32, 32) and data.x_test.shape == (10_000, 3, 32, 32)
    assert data.y_train.bincount().tolist() == [500] * 100 and data.y_test.bincount().tolist() == [100] * 100
    mean = data.x_train[:, 0].double().mean() / 255
    assert float(mean) == pytest.approx(0.50707516 if "apple" in data.class_names else 99.5 / 255, abs=1e-7)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_written_by_python_3_are_read_too(protocol):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    got = load_arrays("set", pickle.dumps({b"data": pixels, "fine_labels": [1, 2, 3]}, protocol=protocol))
    np.testing.assert_array_equal(got["data"], pixels)
    assert got["fine_labels"] == [1, 2, 3]
    fortran = load_arrays("set", pickle.dumps({"data": np.asfortranarray(pixels)}, protocol=protocol))
    np.testing.assert_array_equal(fortran["data"], pixels)


def test_the_official_checksums_are_pinned(monkeypatch):
    monkeypatch.undo()
    assert cifar100.ARCHIVE_MD5 == {
        "cifar-100-binary": "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-python": "eb9058c3a382ffc7106e4002c42a8d85",
    }
    assert cifar100.COUNTS == {"train": 50_000, "test": 10_000}
