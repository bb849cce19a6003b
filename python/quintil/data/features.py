"""The 27 statistics of a one-dimensional window, used for DSADS, PAMAP2 and HAPT alike.

[CIL 4, "Features from the original files"]: nine statistics of the values, thirteen of the magnitude
spectrum, four moments of the spectrum's shape (its bin numbers weighted by the magnitudes) and four of the
magnitudes themselves. Everything is computed in float64 for many windows at once; files, windows and scaling
live elsewhere.
"""

from __future__ import annotations

import numpy as np

# Bump when any number below changes: cached features of an older version are then recomputed.
FEATURE_VERSION = 1

_PEAKS = 5
FEATURE_NAMES: tuple[str, ...] = (
    ("mean", "std", "min", "max", "mode", "range", "mean_crossings", "spectrum_dc")
    + tuple(f"peak_{k}" for k in range(1, _PEAKS + 1))
    + tuple(f"peak_position_{k}" for k in range(1, _PEAKS + 1))
    + ("spectrum_energy",)
    + ("shape_mean", "shape_sd", "shape_skew", "shape_kurtosis")
    + ("amplitude_mean", "amplitude_sd", "amplitude_skew", "amplitude_kurtosis")
)
# Windows handled at once: about 16 MB of float64 per temporary at 128 samples.
_CHUNK = 16384


def magnitude(xyz: np.ndarray) -> np.ndarray:
    """Length of a three-axis signal: ``[..., 3, N] -> [..., N]``, float64.

    Raises ValueError if the second last dimension is not 3.
    """
    xyz = np.asarray(xyz, dtype=np.float64)
    if xyz.ndim < 2 or xyz.shape[-2] != 3:
        raise ValueError(f"magnitude: expected xyz of shape [..., 3, N], got {list(xyz.shape)}")
    return np.sqrt((xyz * xyz).sum(axis=-2))


def window_features(windows: np.ndarray) -> np.ndarray:
    """27 features of every window: ``[..., N] -> [..., 27]``, float64, columns as in `FEATURE_NAMES`.

    A constant window gives finite numbers (a moment with a zero denominator is 0; a kurtosis then is 0 as
    well).
    Raises ValueError for windows of fewer than 7 samples (five peaks next to the DC bin need N - 1 >= 5, two
    bins of the half spectrum at least) and for values that are not finite.
    """
    windows = np.asarray(windows, dtype=np.float64)
    if windows.ndim < 1 or windows.shape[-1] < 7:
        raise ValueError(f"window_features: expected windows of at least 7 samples, got {list(windows.shape)}")
    rows = windows.reshape(-1, windows.shape[-1])
    if not np.isfinite(rows).all():
        bad = int(np.argwhere(~np.isfinite(rows))[0, 0])
        raise ValueError(f"window_features: expected finite windows, got NaN or infinity (first in window {bad})")
    parts = [_features_of(rows[start : start + _CHUNK]) for start in range(0, len(rows), _CHUNK)]
    table = np.concatenate(parts) if parts else np.empty((0, len(FEATURE_NAMES)))
    return table.reshape(*windows.shape[:-1], len(FEATURE_NAMES))


def _features_of(r: np.ndarray) -> np.ndarray:
    """Features of the rows of r [n, N]."""
    length = r.shape[1]
    mean = r.mean(axis=1)
    low, high = r.min(axis=1), r.max(axis=1)
    columns = [mean, r.std(axis=1, ddof=1), low, high, _mode(r), high - low, _mean_crossings(r, mean)]

    # The complex transform, not rfft: A_k and A_{N-k} then differ by rounding alone, and a stable sort of
    # them puts the members of a mirror pair in the order that the reference table of the specification has.
    spectrum = np.abs(np.fft.fft(r.astype(np.complex128), axis=1))
    order = np.argsort(spectrum[:, 1:], axis=1, kind="stable")[:, -_PEAKS:]
    peaks = np.take_along_axis(spectrum[:, 1:], order, axis=1)
    energy = (spectrum[:, 1:] ** 2).mean(axis=1)
    # Positions count from 1 with the DC bin first; order counts from 0 without it.
    columns += [spectrum[:, 0], *peaks.T, *(order + 2.0).T, energy]

    p = spectrum[:, 1 : length // 2 + 1]
    columns += _shape_moments(p) + _amplitude_moments(p)
    return np.stack(columns, axis=1)


def _mode(r: np.ndarray) -> np.ndarray:
    """Most frequent value of each row, the smallest of several."""
    ordered = np.sort(r, axis=1)
    n, length = ordered.shape
    # run[i, j]: how many equal values end at j; the first maximum is the smallest of the most frequent
    # values.
    index = np.broadcast_to(np.arange(length), (n, length))
    starts = np.concatenate([np.ones((n, 1), dtype=bool), ordered[:, 1:] != ordered[:, :-1]], axis=1)
    run = index - np.maximum.accumulate(np.where(starts, index, 0), axis=1)
    return np.take_along_axis(ordered, run.argmax(axis=1)[:, None], axis=1)[:, 0]


def _mean_crossings(r: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Number of sign changes of r - mean between neighbours; a sample on the mean counts as above it."""
    above = r >= mean[:, None]
    return (above[:, 1:] != above[:, :-1]).sum(axis=1).astype(np.float64)


def _shape_moments(p: np.ndarray) -> list[np.ndarray]:
    """Mean, sd, skew, excess kurtosis of the bin numbers 1..P weighted by p/S."""
    bins = np.arange(1, p.shape[1] + 1, dtype=np.float64)
    total = p.sum(axis=1)
    weight = _divide(p, total[:, None])
    # Not weight @ bins: a matrix product may round differently for another number of rows.
    mean = (weight * bins).sum(axis=1)
    centred = bins[None, :] - mean[:, None]
    return [mean, *_higher_moments(centred, weight)]


def _amplitude_moments(p: np.ndarray) -> list[np.ndarray]:
    """Mean, sd (divisor P), skew, excess kurtosis of the magnitudes themselves."""
    mean = p.mean(axis=1)
    return [mean, *_higher_moments(p - mean[:, None], np.full_like(p, 1.0 / p.shape[1]))]


def _higher_moments(centred: np.ndarray, weight: np.ndarray) -> list[np.ndarray]:
    square = centred * centred
    variance = (weight * square).sum(axis=1)
    third = (weight * square * centred).sum(axis=1)
    fourth = (weight * square * square).sum(axis=1)
    flat = variance <= 0
    skew = _divide(third, variance * np.sqrt(variance))
    kurtosis = np.where(flat, 0.0, _divide(fourth, variance * variance) - 3.0)
    return [np.sqrt(variance), skew, kurtosis]


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, 0 where the denominator is 0."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    return np.divide(numerator, denominator, out=np.zeros(shape), where=np.broadcast_to(denominator != 0, shape))
