"""Users' own .npz and CSV files, and the table of what is refused in them."""

import numpy as np
import pytest
import quintil.data
import torch
from data_trees import rng

X = rng(7).normal(size=(12, 5)).astype(np.float32)
Y = np.tile([10, -3, 7], 4)
GOOD = {"x_train": X, "y_train": Y, "x_test": X[:6] + 1, "y_test": Y[:6]}


def npz(folder, **changes):
    path = folder / "mine.npz"
    np.savez(path, **{key: value for key, value in (GOOD | changes).items() if value is not None})
    return f"custom:{path}"


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.float64])
def test_npz_labels_of_every_number_type_are_mapped_by_sorted_order(dtype, tmp_path):
    y = (Y + 3).astype(dtype)
    data = quintil.data.load(npz(tmp_path, y_train=y, y_test=y[:6]))
    assert data.class_names == ("0", "10", "13") and data.y_train.tolist()[:3] == [2, 0, 1]
    assert data.name == "custom:mine" and data.subject_train is None and list(data.checksums) == ["mine.npz"]
    assert data.x_train.amin(0).tolist() == [-1] * 5 and data.x_train.amax(0).tolist() == [1] * 5


def test_npz_string_labels_and_persons(tmp_path):
    words = np.array(["walk", "sit", "lie"])[np.arange(12) % 3]
    changes = dict(
        y_train=words,
        y_test=words[:6].astype("S"),
        subject_train=np.arange(12) % 4,
        subject_test=np.full(6, 9),
    )
    data = quintil.data.load(npz(tmp_path, **changes), normalise="none")
    assert data.class_names == ("lie", "sit", "walk") and data.y_test.tolist() == [2, 1, 0, 2, 1, 0]
    assert data.subject_train.tolist() == [0, 1, 2, 3] * 3 and data.subject_test.unique().tolist() == [9]
    np.testing.assert_array_equal(data.x_train.numpy(), X)


@pytest.mark.parametrize("shape", [(5,), (2, 8), (3, 4, 4)])
def test_npz_shapes_and_dtypes(shape, tmp_path):
    floats = rng(1).normal(size=(12, *shape))
    data = quintil.data.load(npz(tmp_path, x_train=floats, x_test=floats[:6]))
    assert data.x_train.shape == (12, *shape) and data.x_train.dtype == torch.float32
    whole = rng(1).integers(0, 256, (12, *shape), dtype=np.uint8)
    data = quintil.data.load(npz(tmp_path, x_train=whole, x_test=whole[:6]))
    out = data.transform(data.x_train)
    assert out.dtype == torch.float32 and out.amin() >= -1 and out.amax() <= 1
    assert data.x_train.dtype == (torch.uint8 if len(shape) == 3 else torch.float32)


def csv_file(folder, text):
    path = folder / "mine.csv"
    path.write_text(text)
    return f"custom:{path}"


def csv_text(columns, rows):
    return "\n".join([",".join(columns)] + [",".join(map(str, row)) for row in rows]) + "\n"


def test_csv_with_a_split_column(tmp_path):
    rows = [(i, "b" if i % 2 else "a", "test" if i > 5 else "Train", -i, i // 2) for i in range(8)]
    name = csv_file(tmp_path, csv_text(["f0", "label", "split", "f1", "subject"], rows))
    data = quintil.data.load(name, normalise="none")
    assert data.x_train.tolist() == [[i, -i] for i in range(6)] and data.x_test.tolist() == [[6, -6], [7, -7]]
    assert data.class_names == ("a", "b") and data.y_test.tolist() == [0, 1]


def test_csv_split_by_person_or_by_chance(tmp_path):
    rows = [(i, i % 3, i % 5) for i in range(60)]
    name = csv_file(tmp_path, csv_text(["f0", "Label", "Subject"], rows))
    assert quintil.data.load(name, split="loso:2").subject_test.unique().tolist() == [2]
    assert len(quintil.data.load(name, seed=3).subject_train.unique()) == 4
    name = csv_file(tmp_path, csv_text(["f0", "label"], [row[:2] for row in rows]))
    data = quintil.data.load(name, seed=3)
    assert data.y_test.bincount().tolist() == [4, 4, 4] and data.subject_train is None


def nan_at(row, column):
    x = X.copy()
    x[row, column] = np.nan
    return x


HEAD = ["f0", "f1", "label"]
ROWS = [(i, -i, i % 2) for i in range(8)]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda d: npz(d, y_test=None), "mine.npz: expected keys x_train, y_train, x_test, y_test, got"),
        (
            lambda d: npz(d, x_train=X[0], y_train=Y[:5]),
            "expected x_train of shape [N, F], [N, C, L] or [N, C, H, W], got [5]",
        ),
        (lambda d: npz(d, x_train=X[:0], y_train=Y[:0]), "[N, C, H, W], got [0, 5]"),
        (
            lambda d: npz(d, x_test=X[:6, :4]),
            "x_train and x_test to have equal sample shapes, got [12, 5] and [6, 4]",
        ),
        (
            lambda d: npz(d, x_test=(X[:6] * 9).astype(np.uint8)),
            "x_train and x_test to have one dtype, got float32 and uint8",
        ),
        (
            lambda d: npz(d, x_train=X.astype(complex)),
            "expected x_train to be integers or floats, got complex128",
        ),
        (lambda d: npz(d, x_train=X.astype(str)), "expected x_train to be integers or floats, got <U"),
        (lambda d: npz(d, y_train=Y[:11]), "expected y_train of shape [12], got [11]"),
        (lambda d: npz(d, y_train=Y[:, None]), "expected y_train of shape [12], got [12, 1]"),
        (lambda d: npz(d, y_train=Y + 0.5), "expected y_train to be integers, got 10.5 (row 0)"),
        (
            lambda d: npz(d, y_train=Y.astype(object)),
            "expected a readable .npz of plain arrays, got 'Object arrays",
        ),
        (
            lambda d: npz(d, x_train=nan_at(3, 2)),
            "expected finite features, got NaN or infinity in train (row 3)",
        ),
        (
            lambda d: npz(d, y_test=np.array([10, 7, 8, 8, 9, -3])),
            "expected the labels of test to be seen in train, got [8, 9]",
        ),
        (
            lambda d: npz(d, y_test=np.array([10] * 6)),
            "expected every class on both sides of the split, got none of ['-3', '7'] in test",
        ),
        (lambda d: npz(d, subject_train=np.arange(12)), "expected subject_train and subject_test together"),
        (
            lambda d: npz(d, subject_train=np.arange(11), subject_test=np.arange(6)),
            "expected subject_train of shape [12], got [11]",
        ),
        (
            lambda d: npz(d, subject_train=np.arange(12), subject_test=np.arange(6) + 8),
            "no person on both sides of the split, got [8, 9, 10, 11]",
        ),
        (
            lambda d: csv_file(d, csv_text(["f0", "f1", "f2"], ROWS)),
            "mine.csv: expected a label column (one of label, activity",
        ),
        (
            lambda d: csv_file(d, csv_text(HEAD, [*ROWS, (1, 2)])),
            "expected 3 fields in every line, got 2 in line 10",
        ),
        (
            lambda d: csv_file(d, csv_text(HEAD, [*ROWS, (1, "x", 0)])),
            "expected only numbers in the feature columns, got",
        ),
        (lambda d: csv_file(d, csv_text(HEAD, [*ROWS, (1, "nan", 0)])), "expected finite features, got NaN"),
        (
            lambda d: csv_file(d, csv_text(HEAD, [])),
            "expected rows and feature columns, got 0 rows, 2 features",
        ),
        (
            lambda d: csv_file(d, csv_text(["label"], [(1,)])),
            "expected rows and feature columns, got 1 rows, 0 features",
        ),
        (lambda d: csv_file(d, ""), "expected a label column"),
        (
            lambda d: csv_file(d, csv_text([*HEAD, "split"], [(*r, "val") for r in ROWS])),
            "expected split to be train or test, got ['val']",
        ),
        (
            lambda d: csv_file(d, csv_text([*HEAD, "subject"], [(*r, 1.5) for r in ROWS])),
            "expected column subject to be integers, got 1.5 (row 0)",
        ),
        (lambda d: csv_file(d, csv_text(HEAD, ROWS)).replace("csv", "txt"), "to exist, got nothing there"),
    ],
)
def test_custom_files_that_are_refused(write, message, tmp_path):
    name = write(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        quintil.data.load(name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(split="loso:1"), "expected split of 'custom' to be one of ('official',), got 'loso:1'"),
        (dict(features_file="x.npz"), "expected no features_file for data set 'custom'"),
    ],
)
def test_custom_options_that_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError) as caught:
        quintil.data.load(npz(tmp_path), **options)
    assert message in str(caught.value)


def test_values_beyond_float32(tmp_path):
    """Scaling brings them back into range; as they are they would be infinite, which is refused."""
    name = npz(tmp_path, x_train=X * np.float64(1e307), x_test=X[:6] * np.float64(1e307))
    assert quintil.data.load(name).x_train.amin(0).tolist() == [-1] * 5
    with pytest.raises(ValueError, match="expected finite values in x_train, got NaN or infinity"):
        quintil.data.load(name, normalise="none")


def test_custom_csv_without_persons_cannot_be_split_by_person(tmp_path):
    with pytest.raises(ValueError, match="expected a subject column for split 'hdqt', got none"):
        quintil.data.load(csv_file(tmp_path, csv_text(HEAD, ROWS)), split="hdqt")


@pytest.mark.parametrize("cut", [0, 1, 30, 200, -1])
def test_a_truncated_npz_is_a_value_error(cut, tmp_path):
    name = npz(tmp_path)
    path = tmp_path / "mine.npz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="mine.npz: expected a readable .npz of plain arrays, got"):
        quintil.data.load(name)
