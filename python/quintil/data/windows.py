"""Cutting long recordings: runs of one label, gaps filled by straight lines, windows of a fixed length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def constant_runs(labels: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(start, stop, label) of every stretch of equal neighbours in labels [T]; stop is exclusive."""
    if len(labels) == 0:
        return
    edges = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    bounds = np.concatenate([[0], edges, [len(labels)]])
    for start, stop in zip(bounds[:-1], bounds[1:], strict=True):
        yield int(start), int(stop), int(labels[start])


def fill_gaps(signals: np.ndarray) -> np.ndarray | None:
    """Copy of signals [T, C] with each NaN replaced by linear interpolation along T (the nearest value at the
    ends).

    None if a column holds nothing but NaN: there is nothing to interpolate from.
    """
    filled = np.array(signals, dtype=np.float64)
    time = np.arange(len(filled))
    for column in filled.T:
        gap = np.isnan(column)
        if gap.all():
            return None
        if gap.any():
            column[gap] = np.interp(time[gap], time[~gap], column[~gap])
    return filled


def sliding(signals: np.ndarray, size: int, step: int) -> np.ndarray:
    """Windows of signals [T, C]: a read-only view [n, C, size], n = max(0, floor((T - size) / step) + 1)."""
    if len(signals) < size:
        return np.empty((0, signals.shape[1], size), dtype=signals.dtype)
    return np.lib.stride_tricks.sliding_window_view(signals, size, axis=0)[::step]
