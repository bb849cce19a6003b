"""The 27 statistics against hand-computed windows, a scalar re-statement, and the published reference rows."""

import math

import numpy as np
import pytest
from data_trees import dsads_tree, real_root, rng
from quintil.data import dsads
from quintil.data.features import FEATURE_NAMES, magnitude, window_features

POSITIONS = slice(13, 18)


def feature(row, name):
    return row[FEATURE_NAMES.index(name)]


def scalar_features(r):
    """One window by loops and sums over Python floats, from the definitions, with a DFT by its formula."""
    n = len(r)
    mean = sum(r) / n
    out = [mean, math.sqrt(sum((v - mean) ** 2 for v in r) / (n - 1)), min(r), max(r)]
    out += [min(r, key=lambda v: (-r.count(v), v)), max(r) - min(r)]
    out.append(float(sum((a >= mean) != (b >= mean) for a, b in zip(r, r[1:], strict=False))))
    angle = [2 * math.pi * k / n for k in range(n)]
    spectrum = []
    for k in range(n):
        re = sum(v * math.cos(angle[k * t % n]) for t, v in enumerate(r))
        im = sum(v * math.sin(angle[k * t % n]) for t, v in enumerate(r))
        spectrum.append(math.hypot(re, im))
    top = sorted(range(1, n), key=lambda k: spectrum[k])[-5:]
    out += [spectrum[0], *(spectrum[k] for k in top), *(k + 1.0 for k in top)]
    out.append(sum(a * a for a in spectrum[1:]) / (n - 1))
    p = spectrum[1 : n // 2 + 1]

    def moments(values, weights):
        m = sum(v * w for v, w in zip(values, weights, strict=True))
        central = [sum(w * (v - m) ** e for v, w in zip(values, weights, strict=True)) for e in (2, 3, 4)]
        return [m, math.sqrt(central[0]), central[1] / central[0] ** 1.5, central[2] / central[0] ** 2 - 3]

    out += moments([float(j) for j in range(1, len(p) + 1)], [v / sum(p) for v in p])
    out += moments(p, [1 / len(p)] * len(p))
    return np.array(out)


def assert_features_equal(got, expected, length, rtol):
    """All columns; the members of a mirror pair (bins k and N - k) may change places, their magnitudes being equal."""
    got, expected = np.atleast_2d(got), np.atleast_2d(expected)
    others = np.delete(np.arange(27), np.arange(27)[POSITIONS])
    np.testing.assert_allclose(got[:, others], expected[:, others], rtol=rtol, atol=rtol)
    folded = [np.sort(np.minimum(t[:, POSITIONS], length + 2 - t[:, POSITIONS]), axis=1) for t in (got, expected)]
    np.testing.assert_array_equal(*folded)


def test_a_window_of_eight_samples_by_hand():
    """r = 1 + 2 cos(2 pi t / 8) + (-1)^t: |FFT| = 8 at bin 0, 8 at bins 1 and 7, 8 at bin 4, zero elsewhere."""
    t = np.arange(8)
    row = window_features(1 + 2 * np.cos(2 * np.pi * t / 8) + (-1.0) ** t)
    root = math.sqrt(2)
    values = np.array([4, root, 2, -root, 0, -root, 2, root])
    assert feature(row, "mean") == pytest.approx(1)
    assert feature(row, "std") == pytest.approx(math.sqrt(((values - 1) ** 2).sum() / 7))
    assert (feature(row, "min"), feature(row, "max")) == pytest.approx((-root, 4))
    assert feature(row, "range") == pytest.approx(4 + root)
    assert feature(row, "mean_crossings") == 2  # three above the mean, three below, two above
    assert feature(row, "spectrum_dc") == pytest.approx(8)
    assert [feature(row, f"peak_{k}") for k in (3, 4, 5)] == pytest.approx([8, 8, 8])
    assert {feature(row, f"peak_position_{k}") for k in (3, 4, 5)} == {2, 5, 8}
    assert feature(row, "spectrum_energy") == pytest.approx(3 * 64 / 7)
    # bins 1..4 with magnitudes 8 0 0 8
    assert feature(row, "shape_mean") == pytest.approx(2.5)
    assert feature(row, "shape_sd") == pytest.approx(1.5)
    assert feature(row, "shape_skew") == pytest.approx(0, abs=1e-12)
    assert feature(row, "shape_kurtosis") == pytest.approx(-2)
    assert feature(row, "amplitude_mean") == pytest.approx(4)
    assert feature(row, "amplitude_sd") == pytest.approx(4)
    assert feature(row, "amplitude_kurtosis") == pytest.approx(-2)


@pytest.mark.parametrize(
    ("values", "mode"),
    [([3, 1, 2, 5, 4, 7, 6, 8], 1), ([5, 2, 2, 5, 9, 1, 7, 8], 2), ([4, 9, 9, 1, 9, 4, 0, 3], 9)],
)
def test_mode_is_the_most_frequent_value_and_the_smallest_of_several(values, mode):
    assert feature(window_features(np.array(values, dtype=float)), "mode") == mode


@pytest.mark.parametrize("length", [8, 9, 125, 128])
def test_features_equal_a_scalar_restatement(length):
    windows = rng(length).normal(size=(4, length)) + 3
    for got, r in zip(window_features(windows), windows.tolist(), strict=True):
        assert_features_equal(got, scalar_features(r), length, rtol=1e-9)


@pytest.mark.parametrize("value", [0.0, 9.81, -1e-30])
def test_a_constant_window_gives_finite_numbers(value):
    row = window_features(np.full(125, value))
    assert np.isfinite(row).all()
    assert feature(row, "mode") == value and feature(row, "mean_crossings") == 0 and feature(row, "range") == 0


def test_shapes_chunks_and_names():
    assert len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == 27
    windows = rng().normal(size=(3, 5, 32))
    np.testing.assert_array_equal(window_features(windows)[2, 4], window_features(windows[2, 4]))
    assert window_features(np.empty((0, 5, 32))).shape == (0, 5, 27)
    np.testing.assert_allclose(magnitude(np.array([[3.0, 0], [4, 0], [12, 2]])), [13, 2])


def test_more_windows_than_a_chunk_holds(monkeypatch):
    windows = rng().normal(size=(7, 16))
    whole = window_features(windows)
    monkeypatch.setattr("quintil.data.features._CHUNK", 3)
    np.testing.assert_array_equal(window_features(windows), whole)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: window_features(np.zeros((2, 6))), "windows of at least 7 samples, got [2, 6]"),
        (
            lambda: window_features(np.array([0.0] * 6 + [np.nan] * 2)),
            "got NaN or infinity (first in window 0)",
        ),
        (lambda: magnitude(np.zeros((4, 10))), "expected xyz of shape [..., 3, N], got [4, 10]"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert message in str(caught.value)


def test_dsads_files_give_the_reference_features(tmp_path):
    """Raw files against the reference table where real ones are there, against the scalar restatement elsewhere."""
    root = real_root("dsads/dsads_405.npz", "dsads/data/a01/p1/s01.txt")
    generated = root is None
    folder = (dsads_tree(tmp_path, [1, 2], [1], [1]) if generated else root) / "dsads"
    table = {} if generated else dict(np.load(folder / "dsads_405.npz", allow_pickle=False))
    files = sorted((folder / "data").rglob("s*.txt"))
    got = dsads._features(files, [path.read_bytes() for path in files])
    assert got.dtype == np.float32 and got.shape == (len(files), 405)
    for path, row in zip(files, got, strict=True):
        if generated:
            xyz = np.loadtxt(path, delimiter=",").T.reshape(15, 3, 125)
            expected = np.stack([scalar_features(np.sqrt((part**2).sum(0)).tolist()) for part in xyz])
        else:
            place = [int(part[1:]) for part in (path.parent.parent.name, path.parent.name, path.stem)]
            keys = ("activity", "subject", "segment")
            match = np.all([table[key] == value for key, value in zip(keys, place, strict=True)], axis=0)
            expected = table["X"][match].reshape(15, 27)
        assert_features_equal(row.reshape(15, 27), expected, 125, rtol=5e-6 if generated else 1e-6)
