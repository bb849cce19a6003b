"""The 561 features: names, filters, and every formula on signals with known answers."""

import hashlib
import math

import numpy as np
import pytest
import quintil.data
import scipy.signal
import scipy.stats
from data_trees import real_root, rng
from quintil.data import HAR_FEATURE_NAMES, har_features
from quintil.data.har import (
    amplitudes,
    angle,
    band_energies,
    burg,
    correlations,
    entropy,
    features_of_signals,
    scale_table,
)
from quintil.data.har_signals import SIGNALS, har_signals, jerk, low_pass, median_of_three

T = np.arange(128)
# Of the 561 lines of the publisher's features.txt, stripped and joined by line ends.
NAMES_SHA256 = "d8df315cdc1ea1cc41285f510f6a40222e906098df2e4cb5c40d3da6ba66b774"


def sine(bin_number, amplitude=1.0, phase=0.3):
    return amplitude * np.sin(2 * np.pi * bin_number * T / 128 + phase)


def column(table, name, which=0):
    """The `which`-th column of this name (a few names occur more than once)."""
    return table[..., [i for i, n in enumerate(HAR_FEATURE_NAMES) if n == name][which]]


def features_of(**signals):
    """Features of one window whose groups (by name) are given as three axes [3, 128], the others 0."""
    groups = [signals.get(name, np.zeros((3, 128))) for name in SIGNALS]
    return features_of_signals(np.concatenate(groups)[None])[0]


# --- names --------------------------------------------------------------------


def test_names_are_the_publishers_in_his_order():
    assert len(HAR_FEATURE_NAMES) == 561
    assert hashlib.sha256("\n".join(HAR_FEATURE_NAMES).encode()).hexdigest() == NAMES_SHA256
    root = real_root("HAPT Data Set/features.txt")
    if root is not None:
        lines = (root / "HAPT Data Set/features.txt").read_text().split("\n")
        assert [line.strip() for line in lines if line.strip()] == list(HAR_FEATURE_NAMES)


# --- filters ------------------------------------------------------------------


def test_median_of_three_removes_single_spikes():
    signal = np.array([5.0, 1, 2, 90, 3, 4, -70, -70, 5])
    np.testing.assert_array_equal(median_of_three(signal), [5, 2, 2, 3, 4, 3, -70, -70, 5])
    noise = rng(1).normal(size=(2, 50))
    padded = np.pad(noise, [(0, 0), (1, 1)], mode="edge")
    expected = np.median([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], axis=0)
    np.testing.assert_array_equal(median_of_three(noise), expected)


@pytest.mark.parametrize("corner", [20.0, 0.3])
def test_low_pass_has_the_gain_of_a_butterworth_filter(corner):
    """1 at 0 Hz, 1/sqrt(2) at the corner, 1/sqrt(1 + r^6) at the prewarped ratio r above."""
    np.testing.assert_allclose(low_pass(np.full((2, 300), 0.7), corner), 0.7, rtol=1e-12)
    time = np.arange(20000) / 50
    for hertz in (corner / 2, corner, min(2 * corner, 24.0)):
        ratio = math.tan(math.pi * hertz / 50) / math.tan(math.pi * corner / 50)
        out = low_pass(np.sin(2 * math.pi * hertz * time), corner)[10000:]
        assert math.sqrt(2 * (out**2).mean()) == pytest.approx(1 / math.sqrt(1 + ratio**6), rel=2e-3)


def test_filters_do_not_look_ahead():
    signal = rng(1).normal(size=(3, 400))
    later = signal.copy()
    later[:, 300:] += 5
    a, b = (har_signals(s, s) for s in (signal, later))
    np.testing.assert_array_equal(a[:, :299], b[:, :299])  # the median looks one sample ahead


def test_gravity_takes_the_constant_and_leaves_the_motion():
    time = np.arange(3000) / 50
    motion = 0.3 * np.sin(2 * np.pi * 3.0 * time)
    acc = np.array([1.0, -0.2, 0.5])[:, None] + motion
    signals = har_signals(acc, np.zeros_like(acc)).reshape(5, 3, -1)
    body, gravity = signals[0][:, 1000:], signals[1][:, 1000:]
    np.testing.assert_allclose(gravity, np.broadcast_to([[1.0], [-0.2], [0.5]], gravity.shape), atol=1e-3)
    assert abs(body.mean()) < 1e-4 and body.std() == pytest.approx(0.3 / math.sqrt(2), rel=0.02)
    still = har_signals(np.tile([[1.0], [-0.2], [0.5]], 300), np.zeros((3, 300))).reshape(5, 3, -1)
    assert np.abs(still[0]).max() < 1e-12


def test_jerk_of_a_ramp_is_its_slope():
    np.testing.assert_allclose(jerk(0.02 * np.arange(10.0)), np.full(10, 0.02))
    np.testing.assert_array_equal(jerk(np.array([1.0, 3, 2])), [2, 2, -1])


# --- statistics in time -------------------------------------------------------


def test_order_statistics_by_hand():
    """Values 1..128 in any order: median 64.5, quartiles 32.5 and 96.5, mad 32, variance N (N + 1) / 12."""
    x = rng(2).permutation(128) + 1.0
    row = features_of(tBodyGyro=np.stack([x, -x, 0 * x]))

    def value(word, axis):
        return column(row, f"tBodyGyro-{word}-{axis}")

    assert (value("Mean", 1), value("Mean", 2), value("Mean", 3)) == pytest.approx((64.5, -64.5, 0))
    assert value("STD", 1) == pytest.approx(math.sqrt(128 * 129 / 12))
    assert (value("Max", 1), value("Min", 1), value("Max", 2), value("Min", 2)) == (128, 1, -1, -128)
    assert value("Mad", 1) == value("Mad", 2) == 32 and value("IQR", 1) == value("IQR", 2) == 64
    assert value("SMA", 1) == pytest.approx(129) and value("Energy", 2) == pytest.approx(129 * 257 / 6)
    # The magnitude is sqrt(2) x.
    assert column(row, "tBodyGyroMag-Mean-1") == column(row, "tBodyGyroMag-SMA-1") == pytest.approx(64.5 * math.sqrt(2))
    assert column(row, "tBodyGyroMag-IQR-1") == pytest.approx(64 * math.sqrt(2))


def test_energy_of_a_sine_is_half_its_squared_amplitude():
    row = features_of(tBodyAcc=np.stack([sine(5, 0.4), sine(9, 2.0), sine(20)]))
    got = [column(row, f"tBodyAcc-Energy-{axis}") for axis in (1, 2, 3)]
    np.testing.assert_allclose(got, [0.08, 2.0, 0.5])


@pytest.mark.parametrize(
    ("values", "bits"),
    [
        (np.full(128, 0.4), 0),
        (np.full(128, -3.0), 0),
        (T % 2, 1),
        (np.where(T % 2, -1.0, 7.0), 1),  # outside [0, 1]: clipped to its ends
        (T % 4 / 4, 2),
        (T / 255, 7),
        (0.5 + 1e-4 * T / 128, 0),  # within one level of 1/255
        (np.where(T < 32, 0.0, 1.0), 0.25 * 2 + 0.75 * math.log2(4 / 3)),
    ],
)
def test_entropy(values, bits):
    assert entropy(values) == pytest.approx(bits, abs=1e-12)
    assert entropy(np.tile(values, (2, 3, 1)))[1, 2] == pytest.approx(bits, abs=1e-12)


def test_burg_finds_the_coefficients_of_a_known_process():
    a = np.array([-2.2137, 2.9403, -2.1697, 0.9606])  # two resonances near the unit circle
    noise = rng(3).normal(size=(2, 40000))
    signal = scipy.signal.lfilter([1.0], [1.0, *a], noise, axis=-1)
    np.testing.assert_allclose(burg(signal), np.tile(a, (2, 1)), atol=0.01)
    # A sine without noise: x_t = 2 cos(w) x_(t-1) - x_(t-2); the recursion is exact after two steps.
    got = burg(sine(10))
    reference = scalar_burg(sine(10).tolist())
    np.testing.assert_allclose(got, reference, atol=1e-6)
    np.testing.assert_allclose(burg(rng(4).normal(size=128)), scalar_burg(rng(4).normal(size=128).tolist()), rtol=1e-9)
    np.testing.assert_array_equal(burg(np.zeros(128)), np.zeros(4))
    np.testing.assert_allclose(burg(np.full(128, 0.3)), [-1, 0, 0, 0], atol=1e-12)


def scalar_burg(x, order=4):
    """Burg's recursion by loops: reflection k minimises the sum of squared forward and backward errors."""
    f, b, a = list(x), list(x), [1.0]
    for _ in range(order):
        pairs = [(f[i], b[i - 1]) for i in range(1, len(f))]
        k = -2 * sum(p * q for p, q in pairs) / sum(p * p + q * q for p, q in pairs)
        f, b = [p + k * q for p, q in pairs], [q + k * p for p, q in pairs]
        a = [p + k * q for p, q in zip([*a, 0.0], [0.0, *reversed(a)], strict=True)]
    return a[1:]


def test_ar_coefficients_stand_axis_by_axis():
    axes = rng(5).normal(size=(3, 128)).cumsum(axis=1)
    row = features_of(tGravityAcc=axes)
    got = [column(row, f"tGravityAcc-ARCoeff-{i}") for i in range(1, 13)]
    np.testing.assert_allclose(got, burg(axes).ravel())
    magnitude = np.linalg.norm(axes, axis=0)
    got = [column(row, f"tGravityAccMag-ARCoeff-{i}") for i in range(1, 5)]
    np.testing.assert_allclose(got, burg(magnitude))


def test_correlations():
    x, y = sine(4), sine(4, phase=0.3 + np.pi / 3)
    np.testing.assert_allclose(correlations(np.stack([x, -2 * x + 1, y])), [-1, 0.5, -0.5], atol=1e-12)
    np.testing.assert_array_equal(correlations(np.stack([x, np.full(128, 0.1), x]))[[0, 2]], [0, 0])
    axes = rng(6).normal(size=(3, 128))
    row = features_of(tBodyAccJerk=axes)
    got = [column(row, f"tBodyAccJerk-Correlation-{i}") for i in (1, 2, 3)]
    np.testing.assert_allclose(got, np.corrcoef(axes)[[0, 0, 1], [1, 2, 2]])


# --- spectra ------------------------------------------------------------------


def test_a_sine_is_one_bin_of_the_spectrum():
    spectrum = amplitudes(5 + sine(12, 0.7))
    assert spectrum.shape == (64,) and spectrum[11] == pytest.approx(0.7)
    assert np.abs(np.delete(spectrum, 11)).max() < 1e-12
    row = features_of(tBodyAcc=np.stack([sine(12, 0.7), 2 + sine(3) + 4 * sine(5), sine(63)]))
    assert [column(row, f"fBodyAcc-MaxInds-{axis}") for axis in (1, 2, 3)] == [12, 5, 63]
    # Bin 12 is 12 x 50 / 128 Hz; the second axis has amplitude 1 at bin 3 and 4 at bin 5.
    frequencies = [column(row, f"fBodyAcc-MeanFreq-{axis}") for axis in (1, 2, 3)]
    np.testing.assert_allclose(frequencies, [12 * 50 / 128, (3 + 4 * 5) / 5 * 50 / 128, 63 * 50 / 128])
    assert column(row, "fBodyAcc-Energy-1") == pytest.approx(0.49 / 64)
    assert column(row, "fBodyAcc-Mean-1") == pytest.approx(0.7 / 64)
    # The magnitude of a turning vector whose length swings at bin 7.
    length, turn = 1 + 0.1 * sine(7), 2 * np.pi * 3 * T / 128
    row = features_of(tBodyGyro=np.stack([length * np.cos(turn), length * np.sin(turn), 0 * turn]))
    assert column(row, "fBodyGyroMag-MaxInds-1") == 7 and column(row, "fBodyGyro-MaxInds-1") == 3
    assert column(row, "fBodyGyroMag-Max-1") == pytest.approx(0.1)


def test_skewness_and_kurtosis_are_those_of_the_amplitudes():
    axes = rng(7).normal(size=(3, 128))
    row, spectra = features_of(tBodyGyro=axes), amplitudes(axes)
    for axis in range(3):
        skewness, kurtosis = (column(row, f"fBodyGyro-{word}-1", axis) for word in ("Skewness", "Kurtosis"))
        assert skewness == pytest.approx(scipy.stats.skew(spectra[axis]))
        assert kurtosis == pytest.approx(scipy.stats.kurtosis(spectra[axis], fisher=False))
    # One bin of 64: moments of a Bernoulli variable with p = 1/64.
    p = 1 / 64
    row = features_of(tBodyGyro=np.tile(sine(9), (3, 1)))
    assert column(row, "fBodyGyro-Skewness-1") == pytest.approx((1 - 2 * p) / math.sqrt(p * (1 - p)))
    assert column(row, "fBodyGyro-Kurtosis-1") == pytest.approx(3 + (1 - 6 * p * (1 - p)) / (p * (1 - p)))


def test_bands():
    """Bins 1-8 ... 57-64, 1-16 ... 49-64, 1-24, 25-48."""
    widths = [8] * 8 + [16] * 4 + [24] * 2
    for bin_number, bands in ((1, (0, 8, 12)), (8, (0, 8, 12)), (9, (1, 8, 12)), (25, (3, 9, 13)), (64, (7, 11))):
        spectrum = np.zeros(64)
        spectrum[bin_number - 1] = 3.0
        expected = [9.0 / width if band in bands else 0.0 for band, width in enumerate(widths)]
        np.testing.assert_allclose(band_energies(spectrum), expected)
    row = features_of(tBodyAccJerk=np.stack([sine(2), sine(10), sine(50)]))
    got = np.array([column(row, f"fBodyAccJerk-BandsEnergyOld-{i}") for i in range(1, 43)]).reshape(3, 14)
    assert [np.flatnonzero(axis > 1e-9).tolist() for axis in got] == [[0, 8, 12], [1, 8, 12], [6, 11]]


def test_spectra_of_magnitudes():
    axes = rng(8).normal(size=(3, 128))
    row = features_of(tBodyGyroJerk=axes)
    spectrum = amplitudes(np.linalg.norm(axes, axis=0))
    assert column(row, "fBodyGyroJerkMag-Max-1") == pytest.approx(spectrum.max())
    assert column(row, "fBodyGyroJerkMag-Energy-1") == pytest.approx((spectrum**2).mean())
    assert column(row, "fBodyGyroJerkMag-Kurtosis-1") == pytest.approx(scipy.stats.kurtosis(spectrum, fisher=False))


# --- angles -------------------------------------------------------------------


def test_angles():
    x, y, diagonal = np.array([[1.0, 0, 0], [0, 2, 0], [3, 3, 0]])
    assert angle(x, y) == pytest.approx(math.pi / 2) and angle(x, diagonal) == pytest.approx(math.pi / 4)
    assert angle(x, -x) == pytest.approx(math.pi) and angle(diagonal, 5 * diagonal) == pytest.approx(0, abs=1e-7)
    assert angle(0 * x, y) == 0
    constant = np.ones((3, 128)) * np.array([[0.0], [0.0], [1.0]])
    row = features_of(tGravityAcc=constant, tBodyAcc=constant[::-1].copy(), tBodyGyro=-constant)
    names = ("tBodyAcc", "tBodyAccJerk", "tBodyGyro", "tBodyGyroJerk", "tXAxisAcc", "tYAxisAcc", "tZAxisAcc")
    got = [column(row, f"{name}-AngleWRTGravity-1") for name in names]
    np.testing.assert_allclose(got, np.array([0.5, 0, 1, 0, 0.5, 0.5, 0]) * math.pi, atol=1e-7)


# --- har_features -------------------------------------------------------------


def test_a_recording_is_filtered_as_a_whole_and_then_cut():
    acc, gyro = rng(9).normal(size=(2, 400, 3))
    table = har_features(acc, gyro)
    assert table.shape == (5, 561) and table.dtype == np.float64
    signals = har_signals(acc.T, gyro.T)
    np.testing.assert_array_equal(table[3], features_of_signals(signals[None, :, 192:320])[0])
    windows = np.stack([signal[128:256].T for signal in (acc, gyro)])[:, None]
    assert har_features(*windows).shape == (1, 561)
    assert not np.allclose(har_features(*windows)[0], table[2])  # the filters start anew


def test_windows_do_not_depend_on_their_neighbours(monkeypatch):
    acc, gyro = rng(10).normal(size=(2, 7, 3, 128))
    whole = har_features(acc, gyro)
    monkeypatch.setattr("quintil.data.har._CHUNK", 3)
    np.testing.assert_array_equal(har_features(acc, gyro), whole)
    np.testing.assert_array_equal(har_features(acc[2:3], gyro[2:3])[0], whole[2])
    assert har_features(acc[:0], gyro[:0]).shape == (0, 561)


def test_scaling_over_all_windows():
    acc, gyro = rng(11).normal(size=(2, 9, 3, 128))
    scaled = har_features(acc, gyro, normalise="minmax_all")
    plain = har_features(acc, gyro)
    moving = np.ptp(plain, axis=0) > 0  # the entropy of a magnitude that is always above 1 is 0
    assert moving.sum() > 550 and not scaled[:, ~moving].any()
    assert (scaled[:, moving].min(axis=0) == -1).all() and (scaled[:, moving].max(axis=0) == 1).all()
    np.testing.assert_array_equal(scaled, scale_table(plain))
    np.testing.assert_array_equal(scale_table(scaled), scaled)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.33])
def test_constant_signals_give_finite_numbers(value):
    still = np.full((2, 3, 128), value)
    for table in (har_features(still, still), har_features(np.full((300, 3), value), np.zeros((300, 3)))):
        assert np.isfinite(table).all()
        assert (column(table, "tBodyAcc-Correlation-1") == 0).all()
        assert np.abs(column(table, "tBodyAcc-STD-1")).max() < 1e-12
        np.testing.assert_allclose(column(table, "tGravityAcc-Mean-2"), value, atol=1e-12)


@pytest.mark.parametrize(
    ("acc", "gyro", "options", "message"),
    [
        (np.zeros((127, 3)), np.zeros((127, 3)), {}, "expected acc of shape [samples, 3] with 128 samples or more"),
        (np.zeros((2, 128, 3)), np.zeros((2, 128, 3)), {}, "or [windows, 3, 128], got [2, 128, 3]"),
        (np.zeros((2, 3, 128)), np.zeros((1, 3, 128)), {}, "gyro of acc's shape [2, 3, 128], got [1, 3, 128]"),
        (np.zeros((200, 3)), np.full((200, 3), np.nan), {}, "finite gyro, got NaN or infinity (first at [0, 0])"),
        (np.zeros((200, 3)), np.zeros((200, 3)), {"normalise": "zscore"}, "to be none or minmax_all, got 'zscore'"),
    ],
)
def test_bad_input(acc, gyro, options, message):
    with pytest.raises(ValueError) as caught:
        quintil.data.har_features(acc, gyro, **options)
    assert str(caught.value).startswith("har_features: expected ") and message in str(caught.value)
