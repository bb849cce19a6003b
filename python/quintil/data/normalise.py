"""Scaling of feature columns: "none", "minmax_all", "minmax_train", "zscore_train" [CIL 4, Normalisation]."""

from __future__ import annotations

import numpy as np


def default_normalisation(x: np.ndarray) -> str:
    """ "none" for a table that already lies in [-1, 1], else "minmax_train"."""
    return "none" if x.size and float(np.abs(x).max()) <= 1.0 else "minmax_train"


def normalise(x_train: np.ndarray, x_test: np.ndarray, how: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale both sides by statistics of the train side (of both for "minmax_all"); float32 out, computed in
    float64.

    A column is a feature of [N, F] or a channel of [N, C, ...]. minmax maps the column's range to [-1, 1]
    (test values may lie outside it), zscore to mean 0 and deviation 1 (divisor N). A column that is constant
    over the rows the statistics come from carries no information and becomes 0 everywhere.
    """
    if how == "none":
        # A value beyond float32 becomes infinite here, which `registry.check` refuses.
        with np.errstate(over="ignore"):
            return x_train.astype(np.float32), x_test.astype(np.float32)
    fit = (np.concatenate([x_train, x_test]) if how == "minmax_all" else x_train).astype(np.float64)
    axes = tuple(axis for axis in range(fit.ndim) if axis != 1)
    if how == "zscore_train":
        offset, scale = fit.mean(axis=axes, keepdims=True), fit.std(axis=axes, keepdims=True)
        # The mean of equal numbers may miss them by a rounding; the range of a column cannot.
        scale[np.ptp(fit, axis=axes, keepdims=True) == 0] = 0.0
    elif how in ("minmax_all", "minmax_train"):
        low, high = fit.min(axis=axes, keepdims=True), fit.max(axis=axes, keepdims=True)
        offset, scale = low / 2 + high / 2, high / 2 - low / 2
    else:
        raise ValueError(f"normalise: expected none, minmax_all, minmax_train or zscore_train, got {how!r}")
    factor = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    return tuple(((x - offset) * factor).astype(np.float32) for x in (x_train, x_test))
