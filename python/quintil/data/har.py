"""The 561 features of a 2.56 s window of a phone's acceleration and angular velocity, as HAPT and UCI-HAR name them.

Statistics of 20 signals in time and 13 amplitude spectra [features_info.txt]; `har_signals.py` makes the signals.
The description gives words, not formulas. Decided here, the choices that the words leave open:
* std divides by N - 1; mad is the median distance from the median; iqr interpolates between order statistics at
  (i - 1/2) / N. sma is the mean over the window of |x| + |y| + |z|, of a magnitude the mean of its absolute values.
* entropy is that of an image, in bits: Shannon entropy of the values clipped to [0, 1] and rounded to 256 levels.
* arCoeff are a_1..a_4 of x_t + a_1 x_(t-1) + ... + a_4 x_(t-4) = e_t by Burg's recursion, the mean not removed; four of
  x, then of y, then of z. Correlations are of xy, xz, yz; 0 where a signal is constant.
* The spectrum is 2 |FFT| / 128 of the window as it is (no taper), its 64 bins are those of 1 to 64 periods per window.
  The mean (bin 0) is left out: in the spectrum of a magnitude it would always be the largest, maxInds always the same.
* maxInds is the bin number, from 1; meanFreq the mean of the bins' frequencies in Hz, weighted by the amplitudes.
* skewness and kurtosis are moments of the 64 amplitudes (divisor N, a Gaussian's kurtosis is 3); 0 for equal ones.
* bandsEnergy is the mean squared amplitude of bins 1-8, 9-16, ..., 57-64, 1-16, ..., 49-64, 1-24 and 25-48 of x, then
  of y, then of z.
* angle is in radians, 0 if a vector is 0; the last three are of the axes x, y, z to the mean of gravity.
* tGravityAccMag is the magnitude of gravity.
"""

from __future__ import annotations

import numpy as np

from .har_signals import RATE_HZ, SIGNALS, har_signals
from .normalise import normalise as scale_columns
from .progress import progress
from .windows import sliding

# Bump when any number below or in har_signals.py changes: cached features of an older version are then recomputed.
HAR_VERSION = 1

WINDOW, STEP, BINS = 128, 64, 64
_AR_ORDER, _LEVELS = 4, 256
_BANDS = tuple((i, i + width) for width in (8, 16) for i in range(0, BINS, width)) + ((0, 24), (24, 48))
_PAIRS = ((0, 1), (0, 2), (1, 2))
# A deviation below this, in g or rad/s, is rounding: the signal counts as constant.
_CONSTANT = 1e-12
# Share of the signal's power below which the prediction error of an AR model is rounding.
_PREDICTED = 1e-26
# Windows handled at once: about 11 MB of float64 per temporary.
_CHUNK = 512

_SPECTRA = ("tBodyAcc", "tBodyAccJerk", "tBodyGyro")
_MAGNITUDE_SPECTRA = ("tBodyAcc", "tBodyAccJerk", "tBodyGyro", "tBodyGyroJerk")
_ANGLES = ("tBodyAcc", "tBodyAccJerk", "tBodyGyro", "tBodyGyroJerk", "tXAxisAcc", "tYAxisAcc", "tZAxisAcc")


def _names() -> tuple[str, ...]:
    """The lines of HAPT's features.txt, with its spellings ("ropy" is the entropy) and its repeated names."""

    def numbered(signal: str, *counts: tuple[str, int]) -> list[str]:
        return [f"{signal}-{word}-{i}" for word, count in counts for i in range(1, count + 1)]

    def common(signal: str, axes: int) -> list[str]:
        spread = [(word, axes) for word in ("Mean", "STD", "Mad", "Max", "Min")]
        names = numbered(signal, *spread, ("SMA", 1), ("Energy", axes), ("IQR", axes))
        return names + [f"{signal}-ropy-1"] * axes

    def frequency(signal: str, axes: int) -> list[str]:
        moments = [f"{signal}-Skewness-1", f"{signal}-Kurtosis-1"] * axes
        return common(signal, axes) + numbered(signal, ("MaxInds", axes), ("MeanFreq", axes)) + moments

    names = []
    for signal in SIGNALS:
        names += common(signal, 3) + numbered(signal, ("ARCoeff", 3 * _AR_ORDER), ("Correlation", 3))
    for signal in SIGNALS:
        names += common(f"{signal}Mag", 1) + numbered(f"{signal}Mag", ("ARCoeff", _AR_ORDER))
    for signal in _SPECTRA:
        name = "f" + signal[1:]
        names += frequency(name, 3) + numbered(name, ("BandsEnergyOld", 3 * len(_BANDS)))
    for signal in _MAGNITUDE_SPECTRA:
        names += frequency(f"f{signal[1:]}Mag", 1)
    return tuple(names + [f"{signal}-AngleWRTGravity-1" for signal in _ANGLES])


HAR_FEATURE_NAMES = _names()
HAR_FEATURES = len(HAR_FEATURE_NAMES)


def har_features(acc: np.ndarray, gyro: np.ndarray, *, normalise: str = "none") -> np.ndarray:
    """561 features of every window, float64 [windows, 561], columns as in `HAR_FEATURE_NAMES`.

    acc: acceleration in g with gravity, as measured, at 50 Hz; gyro: angular velocity in rad/s. Both either a
        recording [samples, 3], which is filtered as a whole and then cut into windows of 128 samples every 64, or
        windows [windows, 3, 128], which are filtered one by one (the split of gravity is coarser: a window is shorter
        than one period of its corner frequency).
    normalise: "none", or "minmax_all": every column to [-1, 1] over all windows given, as the publishers did.

    Choices that the publishers' description leaves open: see the heads of this module and of `har_signals`.
    Raises ValueError for other shapes, for values that are not finite, and for another `normalise`.
    """
    acc, gyro = (np.asarray(signal, dtype=np.float64) for signal in (acc, gyro))
    recording = acc.ndim == 2 and acc.shape[1] == 3 and len(acc) >= WINDOW
    if not recording and (acc.ndim != 3 or acc.shape[1:] != (3, WINDOW)):
        raise ValueError(
            f"har_features: expected acc of shape [samples, 3] with {WINDOW} samples or more, or "
            f"[windows, 3, {WINDOW}], got {list(acc.shape)}"
        )
    if gyro.shape != acc.shape:
        raise ValueError(f"har_features: expected gyro of acc's shape {list(acc.shape)}, got {list(gyro.shape)}")
    for name, signal in (("acc", acc), ("gyro", gyro)):
        if not np.isfinite(signal).all():
            place = np.argwhere(~np.isfinite(signal))[0].tolist()
            raise ValueError(f"har_features: expected finite {name}, got NaN or infinity (first at {place})")
    if normalise not in ("none", "minmax_all"):
        raise ValueError(f"har_features: expected normalise to be none or minmax_all, got {normalise!r}")
    if recording:
        windows = sliding(har_signals(acc.T, gyro.T).T, WINDOW, STEP)
    else:
        windows = har_signals(acc, gyro)
    table = features_of_signals(windows)
    return table if normalise == "none" else scale_table(table)


def scale_table(table: np.ndarray) -> np.ndarray:
    """Every column of [N, F] to [-1, 1] over all rows, float32 precision; a table that lies so is left as it is."""
    return scale_columns(table, table[:0], "minmax_all")[0].astype(table.dtype)


def features_of_signals(windows: np.ndarray, text: str = "har_features") -> np.ndarray:
    """Features of windows [N, 15, 128] cut from `har_signals`; `text` labels the progress bar."""
    starts = range(0, len(windows), _CHUNK)
    parts = [_features_of(windows[start : start + _CHUNK]) for start in progress(starts, len(starts), text)]
    return np.concatenate(parts) if parts else np.empty((0, HAR_FEATURES))


def _features_of(axes: np.ndarray) -> np.ndarray:
    groups = axes.reshape(len(axes), len(SIGNALS), 3, WINDOW)
    magnitudes = np.sqrt((groups * groups).sum(axis=2))
    time = np.concatenate([axes, magnitudes], axis=1)
    statistics, ar = _statistics(time), burg(time)
    first = {signal: 3 * i for i, signal in enumerate(SIGNALS)}
    magnitude = {signal: 15 + i for i, signal in enumerate(SIGNALS)}
    columns: list[np.ndarray] = []
    for i in first.values():
        columns += _common(statistics, i, 3)
        columns += [ar[:, i : i + 3].reshape(len(axes), -1), correlations(groups[:, i // 3])]
    for i in magnitude.values():
        columns += [*_common(statistics, i, 1), ar[:, i]]

    rows = [first[signal] + axis for signal in _SPECTRA for axis in range(3)]
    spectra = amplitudes(time[:, rows + [magnitude[signal] for signal in _MAGNITUDE_SPECTRA]])
    statistics, shape = _statistics(spectra), _shape(spectra)
    bands = band_energies(spectra)
    for i in range(0, len(rows), 3):
        columns += [*_common(statistics, i, 3), *_frequency(shape, i, 3), bands[:, i : i + 3].reshape(len(axes), -1)]
    for i in range(len(rows), spectra.shape[1]):
        columns += [*_common(statistics, i, 1), *_frequency(shape, i, 1)]

    means = groups.mean(axis=3)
    gravity = means[:, SIGNALS.index("tGravityAcc")]
    unit = dict(zip(_ANGLES[4:], np.eye(3)))
    vectors = [unit[name] if name in unit else means[:, SIGNALS.index(name)] for name in _ANGLES]
    columns.append(np.stack([angle(vector, gravity) for vector in vectors], axis=1))
    return np.concatenate(columns, axis=1)


def _common(statistics: dict[str, np.ndarray], i: int, axes: int) -> list[np.ndarray]:
    """The columns that every signal has, for `axes` signals from the i-th on."""
    here = {name: values[:, i : i + axes] for name, values in statistics.items()}
    sma = here.pop("sma").sum(axis=1, keepdims=True)
    order = ("mean", "std", "mad", "max", "min", "sma", "energy", "iqr", "entropy")
    return [sma if name == "sma" else here[name] for name in order]


def _frequency(shape: dict[str, np.ndarray], i: int, axes: int) -> list[np.ndarray]:
    """maxInds, meanFreq, and skewness and kurtosis axis by axis."""
    here = {name: values[:, i : i + axes] for name, values in shape.items()}
    pairs = np.stack([here["skewness"], here["kurtosis"]], axis=2)
    return [here["max_index"], here["mean_frequency"], pairs.reshape(len(pairs), -1)]


def _statistics(s: np.ndarray) -> dict[str, np.ndarray]:
    """Per signal of s [..., N]: the statistics that time and frequency share."""
    ordered = np.sort(s, axis=-1)
    median = _quantile(ordered, 0.5)
    distances = np.sort(np.abs(s - median[..., None]), axis=-1)
    return {
        "mean": s.mean(axis=-1),
        "std": s.std(axis=-1, ddof=1),
        "mad": _quantile(distances, 0.5),
        "max": ordered[..., -1],
        "min": ordered[..., 0],
        "sma": np.abs(s).mean(axis=-1),
        "energy": (s * s).mean(axis=-1),
        "iqr": _quantile(ordered, 0.75) - _quantile(ordered, 0.25),
        "entropy": entropy(s),
    }


def _quantile(ordered: np.ndarray, share: float) -> np.ndarray:
    """Quantile of sorted rows, order statistic i (from 1) being that of the share (i - 1/2) / N."""
    place = share * ordered.shape[-1] - 0.5
    below = int(np.floor(place))
    weight = place - below
    return (1.0 - weight) * ordered[..., below] + weight * ordered[..., below + 1]


def entropy(s: np.ndarray) -> np.ndarray:
    """Bits of the histogram of [..., N] over 256 levels of [0, 1]."""
    levels = np.rint(np.clip(s, 0.0, 1.0) * (_LEVELS - 1)).astype(np.int64).reshape(-1, s.shape[-1])
    levels += _LEVELS * np.arange(len(levels))[:, None]
    counts = np.bincount(levels.ravel(), minlength=_LEVELS * len(levels)).reshape(len(levels), _LEVELS)
    # c log c of every count that can occur, looked up.
    table = np.arange(s.shape[-1] + 1, dtype=np.float64)
    table[1:] *= np.log2(table[1:])
    return (np.log2(s.shape[-1]) - table[counts].sum(axis=1) / s.shape[-1]).reshape(s.shape[:-1])


def burg(s: np.ndarray) -> np.ndarray:
    """Coefficients a_1..a_4 of Burg's AR(4) of every signal: [..., N] -> [..., 4]."""
    forward, backward = s[..., 1:], s[..., :-1]
    a = np.concatenate([np.ones((*s.shape[:-1], 1)), np.zeros((*s.shape[:-1], _AR_ORDER))], axis=-1)
    floor = _PREDICTED * (s * s).sum(axis=-1)
    for order in range(1, _AR_ORDER + 1):
        power = (forward * forward).sum(axis=-1) + (backward * backward).sum(axis=-1)
        known = power > floor
        k = np.divide(-2.0 * (forward * backward).sum(axis=-1), power, out=np.zeros_like(power), where=known)[..., None]
        a[..., 1 : order + 1] += k * a[..., order - 1 :: -1][..., :order]
        forward, backward = forward[..., 1:] + k * backward[..., 1:], backward[..., :-1] + k * forward[..., :-1]
    return a[..., 1:]


def correlations(xyz: np.ndarray) -> np.ndarray:
    """Pearson's r of xy, xz, yz: [..., 3, N] -> [..., 3]."""
    centred = xyz - xyz.mean(axis=-1, keepdims=True)
    length = np.sqrt((centred * centred).sum(axis=-1))
    moving = length > _CONSTANT * np.sqrt(xyz.shape[-1])
    columns = []
    for i, j in _PAIRS:
        both = moving[..., i] & moving[..., j]
        product = (centred[..., i, :] * centred[..., j, :]).sum(axis=-1)
        columns.append(np.divide(product, length[..., i] * length[..., j], out=np.zeros_like(product), where=both))
    return np.stack(columns, axis=-1)


def amplitudes(s: np.ndarray) -> np.ndarray:
    """Amplitude spectrum of [..., 128], bins 1 to 64: a sine of amplitude A at bin k < 64 gives A at position k - 1."""
    return np.abs(np.fft.rfft(s, axis=-1)[..., 1:]) * (2.0 / WINDOW)


def _shape(spectra: np.ndarray) -> dict[str, np.ndarray]:
    hertz = np.arange(1, BINS + 1) * (RATE_HZ / WINDOW)
    total = spectra.sum(axis=-1)
    centred = spectra - spectra.mean(axis=-1, keepdims=True)
    square = centred * centred
    variance = square.mean(axis=-1)
    moving = variance > _CONSTANT**2

    def over(numerator: np.ndarray, denominator: np.ndarray, where: np.ndarray) -> np.ndarray:
        return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=where)

    return {
        "max_index": spectra.argmax(axis=-1) + 1.0,
        "mean_frequency": over((spectra * hertz).sum(axis=-1), total, total > _CONSTANT * BINS),
        "skewness": over((square * centred).mean(axis=-1), variance**1.5, moving),
        "kurtosis": over((square * square).mean(axis=-1), variance**2, moving),
    }


def band_energies(spectra: np.ndarray) -> np.ndarray:
    """Mean squared amplitude of the 14 bands: [..., 64] -> [..., 14]."""
    square = spectra * spectra
    return np.stack([square[..., start:stop].mean(axis=-1) for start, stop in _BANDS], axis=-1)


def angle(vector: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Angle in radians between vectors [..., 3]; 0 if one of them is 0."""
    product = (vector * other).sum(axis=-1)
    lengths = np.sqrt((vector * vector).sum(axis=-1)) * np.sqrt((other * other).sum(axis=-1))
    cosine = np.divide(product, lengths, out=np.ones_like(product), where=lengths > _CONSTANT**2)
    return np.arccos(np.clip(cosine, -1.0, 1.0))
