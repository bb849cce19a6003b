"""Every loader on a small tree of the publisher's form, and on the real files where QUINTIL_DATA_ROOT holds them."""

import math
import random

import numpy as np
import pytest
import quintil.data
import scipy.io
import torch
from data_trees import dsads_tree, hapt_tree, pamap2_rows, pamap2_tree, real_root, rng, write_rows
from quintil.data import cache, dsads, hapt, pamap2
from quintil.data.har import features_of_signals
from quintil.data.har_signals import har_signals
from quintil.data.windows import constant_runs, fill_gaps, sliding


@pytest.fixture
def one_segment(monkeypatch):
    """DSADS trees of one segment per activity and person instead of 60."""
    monkeypatch.setattr(dsads, "SEGMENTS", range(1, 2))


def tables_equal(a, b):
    return all(
        torch.equal(getattr(a, key), getattr(b, key))
        for key in ("x_train", "y_train", "x_test", "y_test", "subject_train", "subject_test")
    )


def test_digits_are_complete_scaled_and_always_split_alike():
    data = quintil.data.load("digits", seed=1)
    assert data.x_train.shape == (1438, 64) and data.x_test.shape == (359, 64)
    assert data.x_train.dtype == torch.float32 and data.y_train.dtype == torch.int64
    assert data.x_train.min() == 0 and data.x_train.max() == 1
    assert data.class_names == tuple("0123456789")
    counts = data.y_train.bincount() + data.y_test.bincount()
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (data.y_test.bincount() - counts / 5).abs().max() <= 0.5
    again = quintil.data.load("digits", seed=2)
    assert torch.equal(again.x_test, data.x_test) and torch.equal(again.y_train, data.y_train)
    assert data.checksums["sklearn digits (pixels, labels)"].startswith("8b3b6ae9")
    assert torch.equal(data.transform(data.x_test[:3]), data.x_test[:3]) and data.augment is None


def test_names_lists_every_data_set():
    assert quintil.data.names() == (
        "cifar100", "custom", "digits", "dsads", "hapt", "hapt_raw", "hapt_windows", "imdb", "mnist", "pamap2", "synthetic",
    )  # fmt: skip


# --- DSADS --------------------------------------------------------------------


def test_dsads_from_raw_files(tmp_path, one_segment):
    data = quintil.data.load("dsads", dsads_tree(tmp_path), split="loso:3", normalise="none")
    assert data.name == "dsads" and data.class_names == tuple(str(label) for label in range(1, 20))
    assert data.x_train.shape == (19 * 7, 405) and data.x_test.shape == (19, 405)
    assert data.subject_test.unique().tolist() == [3] and data.y_test.tolist() == list(range(19))
    # The first column is the mean magnitude of three axes around the activity number.
    assert (data.x_test[:, 0] / math.sqrt(3) - torch.arange(1, 20)).abs().max() < 1.0


def test_dsads_ready_tables_of_every_form_are_alike(tmp_path):
    generator = rng()
    labels, persons = (part.ravel() + 1 for part in np.indices((19, 8)))
    x = generator.normal(size=(152, 405)).astype(np.float32)
    np.savez(tmp_path / "a.npz", X=x, activity=labels.astype(np.uint8), subject=persons, segment=persons)
    sequence = np.arange(152)
    scipy.io.savemat(tmp_path / "b.mat", {"data_dsads": np.column_stack([x, sequence, labels, persons])})
    rows = np.column_stack([x.astype(np.float64), sequence, labels, persons])
    write_rows(tmp_path / "c.csv", rows, ",")
    header = ",".join([f"f{i}" for i in range(405)] + ["sequence", "Label", "Person"])
    (tmp_path / "d.csv").write_text(header + "\n" + (tmp_path / "c.csv").read_text())
    files = [tmp_path / name for name in ("a.npz", "b.mat", "c.csv", "d.csv")]
    named = [quintil.data.load("dsads", features_file=file, split="hdqt", seed=5) for file in files]
    assert all(tables_equal(named[0], other) for other in named[1:])
    assert list(named[2].checksums) == ["c.csv"]
    # Found by its name without features_file, before any raw file.
    (tmp_path / "dsads").mkdir()
    (tmp_path / "a.npz").rename(tmp_path / "dsads" / "dsads_405.npz")
    assert tables_equal(quintil.data.load("dsads", tmp_path, split="hdqt", seed=5), named[0])


def test_dsads_counts_of_the_table(tmp_path, one_segment):
    """19 x 8 x 60 segments, 480 per activity; a generated tree has one segment instead of 60."""
    root = real_root("dsads/dsads_405.npz")
    segments = 1 if root is None else 60
    data = quintil.data.load("dsads", root or dsads_tree(tmp_path), split="hdqt", seed=42467)
    assert len(data.x_train) + len(data.x_test) == 152 * segments
    assert (data.y_train.bincount() + data.y_test.bincount()).tolist() == [8 * segments] * 19
    assert len(data.subject_train.unique()) == 7 and len(data.subject_test.unique()) == 1
    assert data.x_train.amin(0).tolist() == [-1.0] * 405 and data.x_train.amax(0).tolist() == [1.0] * 405


# --- HAPT ---------------------------------------------------------------------

HAPT_KEPT = {
    "all": [1722, 1544, 1407, 1801, 1979, 1958, 70, 33, 107, 85, 139, 84],
    "kept": [1611, 1442, 1314, 1680, 1845, 1829, 66, 99, 84, 135, 79],
}


@pytest.fixture(scope="module")
def hapt_folder(tmp_path_factory):
    """The real HAPT folder, or a generated one; neither has the publisher's feature files taken into account."""
    root = real_root("HAPT Data Set/RawData/labels.txt")
    return (root or hapt_tree(tmp_path_factory.mktemp("hapt"))[0]) / "HAPT Data Set"


@pytest.mark.parametrize(("read", "columns"), [(hapt.read_raw, 216), (hapt.read_computed, 561)])
def test_hapt_windows_are_the_publishers_rows(hapt_folder, read, columns):
    """Labels and persons of our windows equal y and subject files row by row (10,929 rows of the real files)."""
    table = read(hapt_folder)  # the 561 columns of the real files take 4 s on one core
    theirs = []
    for stem in ("y", "subject_id"):
        files = [hapt_folder / side / f"{stem}_{side.lower()}.txt" for side in ("Train", "Test")]
        theirs.append(np.concatenate([np.loadtxt(file, dtype=np.int64) for file in files]))
    np.testing.assert_array_equal(table.labels, theirs[0])
    np.testing.assert_array_equal(table.subjects, theirs[1])
    assert table.x.shape == (len(table.labels), columns) and table.x.dtype == np.float32
    assert np.isfinite(table.x).all()
    real = real_root("HAPT Data Set/RawData/labels.txt") is not None
    # Generated: 30 users x 3 x (1 + 1 + 2 + 2 windows of 128, 160, 192, 224 samples), less one short segment.
    assert len(table.labels) == (10929 if real else 539)
    if real:
        assert np.bincount(table.labels)[1:].tolist() == HAPT_KEPT["all"]


def test_hapt_after_the_removals(hapt_folder):
    real = real_root("HAPT Data Set/RawData/labels.txt") is not None
    for name in ("hapt", "hapt_raw"):
        data = quintil.data.load(name, hapt_folder.parent, split="hdqt", seed=42467)
        assert data.name == name and len(data.class_names) == 11 and "8" not in data.class_names
        assert len(data.subject_train.unique()) == 23 and len(data.subject_test.unique()) == 5
        if real:
            assert (data.y_train.bincount() + data.y_test.bincount()).tolist() == HAPT_KEPT["kept"]


def test_hapt_without_the_publishers_features_computes_them(tmp_path):
    """From the filtered recording, unscaled or scaled over all windows, and the data set says so."""
    root, labels, persons = hapt_tree(tmp_path)
    options = dict(subjects_drop=(), classes_drop=())
    plain = quintil.data.load("hapt", root, normalise="none", **options)
    assert plain.name == "hapt" and plain.features == "561 features computed from the raw signals"
    assert quintil.data.load("hapt_raw", root).features == "216 statistics of the raw signals"
    acc, gyro = (np.loadtxt(root / f"HAPT Data Set/RawData/{k}_exp01_user01.txt") for k in ("acc", "gyro"))
    # The first segment starts at sample 5, counted from 1, and holds one window.
    window = har_signals(acc.T, gyro.T)[None, :, 4 : 4 + 128]
    np.testing.assert_allclose(plain.x_train[0], features_of_signals(window)[0], rtol=1e-6)

    everything = torch.cat([plain.x_train, plain.x_test]).double()
    low, high = everything.amin(0), everything.amax(0)
    kept = quintil.data.load("hapt", root, normalise="minmax_all")
    there = torch.from_numpy(~np.isin(persons, (7, 28)) & (labels != 8))
    scaled = torch.where(high > low, (everything - (low + high) / 2) / ((high - low) / 2).clamp_min(1e-300), 0.0)
    np.testing.assert_allclose(torch.cat([kept.x_train, kept.x_test]), scaled[there], rtol=1e-4, atol=1e-5)
    assert quintil.data.load("hapt", root).x_train.abs().max() == 1  # scaled by the training persons


def test_hapt_raw_columns_are_axes_then_magnitudes(tmp_path):
    table = hapt.read_raw(hapt_tree(tmp_path, users=range(1, 5))[0] / "HAPT Data Set")
    signal = [np.loadtxt(tmp_path / f"HAPT Data Set/RawData/{k}_exp01_user01.txt") for k in ("acc", "gyro")]
    start, end = 4, 4 + 128 + 32
    cut = np.concatenate([s[start:end][:128] for s in signal], axis=1)
    means = [
        *cut.mean(0),
        np.linalg.norm(cut[:, :3], axis=1).mean(),
        np.linalg.norm(cut[:, 3:], axis=1).mean(),
    ]
    np.testing.assert_allclose(table.x[0].reshape(8, 27)[:, 0], means, rtol=1e-6)


def test_hapt_takes_the_official_features_when_they_are_there(tmp_path):
    root, labels, persons = hapt_tree(tmp_path, official=True)
    data = quintil.data.load("hapt", root, subjects_drop=(), classes_drop=())
    assert data.name == "hapt" and data.x_train.shape[1] == 561 and len(data.class_names) == 12
    assert data.features == "561 features of the publisher"
    assert sorted(data.subject_test.unique().tolist()) == [2, 4, 9, 10, 12, 13, 18, 20, 24]
    official = np.loadtxt(root / "HAPT Data Set/Train/X_train.txt", dtype=np.float32)
    np.testing.assert_array_equal(data.x_train.numpy(), official)
    both = torch.cat([data.subject_train, data.subject_test]).numpy()
    np.testing.assert_array_equal(both, persons)
    assert quintil.data.load("hapt_raw", root).x_train.shape[1] == 216
    dropped = quintil.data.load("hapt", root)
    assert not {7, 28} & set(dropped.subject_train.tolist()) and len(dropped.class_names) == 11
    assert len(dropped.x_train) + len(dropped.x_test) == int((~np.isin(persons, (7, 28)) & (labels != 8)).sum())


# --- PAMAP2 -------------------------------------------------------------------


@pytest.fixture(scope="module")
def pamap2_root(tmp_path_factory):
    return pamap2_tree(tmp_path_factory.mktemp("pamap2"))


def test_pamap2_from_dat_files(pamap2_root):
    data = quintil.data.load("pamap2", pamap2_root, split="hdqt", seed=1)
    assert data.class_names == ("1", "2", "3", "4", "5", "6", "7", "12", "13", "16", "17")
    assert data.x_train.shape == (5 * 11 * 2, 243) and data.x_test.shape == (11 * 2, 243)
    assert {*data.subject_train.tolist(), *data.subject_test.tolist()} == {1, 2, 5, 6, 7, 8}
    everything = quintil.data.load("pamap2", pamap2_root, split="loso:9", subjects_drop=(), classes_drop=())
    assert len(everything.class_names) == 12 and everything.subject_test.unique().tolist() == [9]
    assert set(everything.checksums) == {f"subject10{person}.dat" for person in range(1, 10)}


def test_pamap2_windows_of_one_file(tmp_path):
    """Windows start at each label's first row, never cross into another label, and carry the right columns."""
    rows = pamap2_rows(rng(5), activities=(4, 24), length=900)
    write_rows(tmp_path / "subject101.dat", rows, digits=17)
    windows, labels = pamap2.file_windows(tmp_path / "subject101.dat")
    assert windows.shape == (4, 9, 512) and labels.tolist() == [4, 4, 24, 24]
    for window, start in zip(windows, (60, 60 + 256, 1020, 1020 + 256), strict=True):
        # hand acc, gyro, mag; chest; ankle, by the publisher's column numbers counted from 1
        for signal, first in zip(window, (5, 11, 14, 22, 28, 31, 39, 45, 48), strict=True):
            xyz = rows[start : start + 512, first - 1 : first + 2]
            known = ~np.isnan(xyz).any(axis=1)
            np.testing.assert_allclose(signal[known], np.linalg.norm(xyz[known], axis=1))
    gap = 60 + 3
    between = (rows[gap - 1, 4] + rows[gap + 1, 4]) / 2
    np.testing.assert_allclose(windows[0, 0, 3], np.linalg.norm([between, *rows[gap, 5:7]]))


def test_pamap2_leaves_out_a_stretch_without_a_sensor_and_says_so(tmp_path):
    rows = pamap2_rows(rng(5), activities=(4, 5), length=600)
    rows[60:660, 27] = np.nan
    write_rows(tmp_path / "subject101.dat", rows)
    with pytest.warns(UserWarning, match="rows 61 to 660 left out, a sensor has no value there"):
        assert pamap2.file_windows(tmp_path / "subject101.dat")[1].tolist() == [5]


# --- windows ------------------------------------------------------------------


def test_runs_gaps_and_windows():
    assert list(constant_runs(np.array([3, 3, 0, 3]))) == [(0, 2, 3), (2, 3, 0), (3, 4, 3)]
    assert list(constant_runs(np.array([], dtype=int))) == []
    nan = np.nan
    filled = fill_gaps(np.array([[nan, 1], [2, nan], [nan, nan], [8, 7], [nan, 9]]))
    np.testing.assert_array_equal(filled, [[2, 1], [2, 3], [5, 5], [8, 7], [8, 9]])
    assert fill_gaps(np.array([[nan, 1.0], [nan, 2.0]])) is None
    signal = np.arange(20.0).reshape(10, 2)
    np.testing.assert_array_equal(sliding(signal, 4, 3)[:, 1, 0], [1, 7, 13])
    assert sliding(signal, 10, 3).shape == (1, 2, 10) and sliding(signal, 11, 3).shape == (0, 2, 11)


# --- cache --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "compute"), [("hapt_raw", "_compute"), ("hapt", "_compute_har")])
def test_slow_features_are_cached_beside_the_files(tmp_path, monkeypatch, name, compute):
    monkeypatch.setattr(cache, "SLOW_SECONDS", -1.0)
    root = hapt_tree(tmp_path)[0]
    first = quintil.data.load(name, root)
    files = list((root / "HAPT Data Set").glob(f".quintil_{name}_v1_*.npz"))
    assert len(files) == 1
    monkeypatch.setattr(hapt, compute, None)
    assert tables_equal(quintil.data.load(name, root), first)
    # A damaged cache, changed inputs or a folder that refuses writing cost time, nothing else.
    monkeypatch.undo()
    files[0].write_bytes(files[0].read_bytes()[:100])
    assert tables_equal(quintil.data.load(name, root), first)
    signal = root / "HAPT Data Set/RawData/acc_exp01_user01.txt"
    write_rows(signal, 2 * np.loadtxt(signal))
    assert not tables_equal(quintil.data.load(name, root), first)


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SLOW_SECONDS", -1.0)
    values = {"x": np.arange(3)}
    got = cache.cached(tmp_path / "absent", "set", "0" * 64, ("x",), lambda: values)
    assert got is values and not (tmp_path / "absent").exists()


# --- synthetic ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["synthetic", "synthetic:har", "synthetic:cifar"])
def test_synthetic_is_learnable_and_a_function_of_the_seed(name):
    data, same, other = (quintil.data.load(name, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(data.x_train, same.x_train) and not torch.equal(data.x_train, other.x_train)
    x, y = data.transform(data.x_train).flatten(1), data.y_train
    means = torch.stack([x[y == label].mean(0) for label in range(len(data.class_names))])
    nearest = torch.cdist(data.transform(data.x_test).flatten(1), means).argmin(1)
    assert (nearest == data.y_test).float().mean() > 0.9


def test_hdqt_split_of_a_loader_is_the_python_generators(tmp_path):
    data = quintil.data.load("synthetic", seed=42467, split="hdqt")
    assert set(data.subject_train.tolist()) == set(random.Random(42467).sample(list(range(1, 9)), 7))
