"""The table of damaged, incomplete and inconsistent files of the publishers, and what is said about each."""

import numpy as np
import pytest
import quintil.data
from data_trees import dsads_tree, hapt_tree, pamap2_rows, rng, write_rows
from quintil.data import dsads, pamap2


def table(folder, **changes):
    labels, persons = (part.ravel() + 1 for part in np.indices((19, 8)))
    arrays = {"X": rng().normal(size=(152, 405)), "activity": labels, "subject": persons} | changes
    np.savez(folder / "t.npz", **{key: value for key, value in arrays.items() if value is not None})
    return dict(name="dsads", features_file=folder / "t.npz")


def broken_table(folder, suffix, raw):
    (folder / f"t{suffix}").write_bytes(raw)
    return dict(name="dsads", features_file=folder / f"t{suffix}")


def broken_dsads(folder, raw):
    dsads_tree(folder)
    (folder / "dsads/data/a02/p3/s01.txt").write_bytes(raw)
    return dict(name="dsads", root=folder)


def broken_hapt(folder, file, change, official=False):
    hapt_tree(folder, official=official)
    path = folder / "HAPT Data Set" / file
    path.write_text(change(path.read_text()))
    return dict(name="hapt", root=folder)


def absent_hapt(folder, file):
    hapt_tree(folder)
    (folder / "HAPT Data Set" / file).unlink()
    return dict(name="hapt", root=folder)


LINE = ",".join(["1.5"] * 45) + "\n"
RAW = "RawData/acc_exp02_user02.txt"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda d: table(d, activity=None), "dsads: t.npz: expected a label column (one of label,"),
        (lambda d: table(d, subject=None), "dsads: t.npz: expected a person column (one of subject,"),
        (
            lambda d: table(d, X=np.zeros((152, 404))),
            "expected features of shape [N, 405], got float64 [152, 404]",
        ),
        (
            lambda d: table(d, X=np.zeros((151, 405))),
            "expected as many labels and persons as rows of features, got 151, 152 and 152",
        ),
        (
            lambda d: table(d, X=np.full((152, 405), np.inf)),
            "dsads: expected finite features, got inf (row 0, column 0)",
        ),
        (lambda d: table(d, activity=np.arange(152) // 8), "dsads: expected labels of [1, 2,"),
        (
            lambda d: table(d, subject=np.arange(152) % 8 + 2),
            "dsads: expected persons of [1, 2, 3, 4, 5, 6, 7, 8], got [9]",
        ),
        (
            lambda d: table(d, activity=np.full((152, 2), 1)),
            "expected labels to be a column of integers, got int64 of shape [152, 2]",
        ),
        (lambda d: broken_table(d, ".npz", b"PK"), "t.npz: expected a readable .npz of plain arrays"),
        (
            lambda d: broken_table(d, ".mat", b"MATLAB 5.0" * 30),
            "t.mat: expected a readable MATLAB file before v7.3",
        ),
        (
            lambda d: broken_table(d, ".csv", b"1,2,3\n"),
            "expected a label and a person column after 405 features, got 3 columns",
        ),
        (lambda d: broken_table(d, ".csv", b"a,label\n1,2\n"), "expected a person column"),
        (
            lambda d: broken_table(d, ".xls", b""),
            "dsads: expected features_file to be .npz, .csv or .mat, got 't.xls'",
        ),
        (
            lambda d: broken_dsads(d, (LINE * 124).encode()),
            "dsads: a02/p3/s01.txt: expected 125 rows, got 124",
        ),
        (
            lambda d: broken_dsads(d, (LINE * 124 + LINE[4:]).encode()),
            "expected 45 numbers in every line, got 44 in line 125",
        ),
        (
            lambda d: broken_dsads(d, (LINE * 124 + LINE.replace("1.5", "1.5x", 1)).encode()),
            "expected only numbers, got '1.5x'",
        ),
        (
            lambda d: broken_dsads(d, (LINE * 124 + LINE.replace("1.5", "nan", 1)).encode()),
            "expected finite samples, got NaN or infinity",
        ),
        (lambda d: broken_dsads(d, b""), "expected rows of 45 numbers, got an empty file"),
        (lambda d: broken_dsads(d, bytes(range(256)) * 9), "dsads: a02/p3/s01.txt: expected"),
        (
            lambda d: broken_hapt(d, RAW, lambda t: t[: len(t) // 2].rsplit("\n", 1)[0]),
            "expected equally long acc and gyro of experiment 2, got",
        ),
        (
            lambda d: broken_hapt(d, RAW, lambda t: "1 2\n" + t),
            "hapt_raw: acc_exp02_user02.txt: expected 3 numbers in every line, got 2 in line 1",
        ),
        (
            lambda d: broken_hapt(d, "RawData/labels.txt", lambda t: t + "1 1 3 4 99999\n"),
            "expected segments inside the",
        ),
        (
            lambda d: broken_hapt(d, "RawData/labels.txt", lambda t: t + "1 1 3 9 8\n"),
            "expected 1 <= start <= end, got [9, 8] (line 361)",
        ),
        (
            lambda d: broken_hapt(d, "RawData/labels.txt", lambda t: t + "1 1 3.5 9 18\n"),
            "expected every column to be integers, got 3.5 (row 360)",
        ),
        (
            lambda d: broken_hapt(d, "Train/y_train.txt", lambda t: "2\n" + t[2:]),
            "hapt_raw: expected 2 as in y_*.txt, got 1 (row 0)",
        ),
        (
            lambda d: broken_hapt(d, "Test/subject_id_test.txt", lambda t: t + "2\n"),
            "hapt_raw: expected 540 windows as in subject_id_*.txt, got 539",
        ),
        (lambda d: absent_hapt(d, RAW), "acc_exp02_user02.txt to exist, got nothing there"),
        (
            lambda d: broken_hapt(d, "Train/X_train.txt", lambda t: t.split("\n", 1)[1], official=True),
            "expected equal row counts of X, y and subject_id in Train, got",
        ),
        (
            lambda d: broken_hapt(d, "Test/X_test.txt", lambda t: "NaN" + t[t.index(" ") :], official=True),
            "hapt: expected finite features, got nan (row",
        ),
        (
            lambda d: broken_hapt(d, "Train/y_train.txt", lambda t: "13\n" + t.split("\n", 1)[1], official=True),
            "hapt: expected labels of [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], got [13]",
        ),
    ],
)
def test_publishers_files_that_are_refused(write, message, tmp_path, monkeypatch):
    monkeypatch.setattr(dsads, "SEGMENTS", range(1, 2))
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        quintil.data.load(**write(tmp_path))
    assert message in str(caught.value)


def test_an_incomplete_dsads_tree_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dsads: expected 9120 segment files, got 152 .absent: .*s02.txt and others."):
        quintil.data.load("dsads", dsads_tree(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows[:, :53],
            "pamap2: subject101.dat: expected 54 numbers in every line, got 53 in line 1",
        ),
        (
            lambda rows: np.where(np.arange(54) == 1, 8, rows),
            "expected activities of [0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 16, 17, 24], got [8]",
        ),
        (
            lambda rows: np.where(np.arange(54) == 1, np.nan, rows),
            "expected activities to be integers, got nan (row 0)",
        ),
        (
            lambda rows: np.where(np.arange(54) == 5, np.inf, rows),
            "expected finite samples or NaN, got infinity",
        ),
    ],
)
def test_pamap2_files_that_are_refused(change, message, tmp_path):
    write_rows(tmp_path / "subject101.dat", change(pamap2_rows(rng(), activities=(4,), length=520)))
    with pytest.raises(ValueError) as caught:
        pamap2.file_windows(tmp_path / "subject101.dat")
    assert message in str(caught.value)


def test_a_pamap2_folder_without_all_files(tmp_path):
    write_rows(tmp_path / "Protocol" / "subject101.dat", pamap2_rows(rng(), activities=(4,), length=520))
    with pytest.raises(FileNotFoundError, match="subject102.dat to exist"):
        quintil.data.load("pamap2", tmp_path)
