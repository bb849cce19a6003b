"""The signals behind the 561 features of HAPT and UCI-HAR: noise filters, gravity, jerk, at 50 Hz.

From features_info.txt of the data sets. It leaves open, and is decided here:
* The filters run forwards in time only, as on the phone; each starts in the steady state of its first sample.
* The median filter takes 3 samples; at the ends the neighbour that is absent equals the end itself.
* The gravity filter has order 3 as the noise filter does, and runs on the filtered acceleration; body = the rest.
* Jerk is the difference to the sample before, per sample: the unit of time scales whole columns and matters to the
  entropies alone. It is taken over the recording as the filters are; its first sample repeats the second.
"""

from __future__ import annotations

import numpy as np

RATE_HZ = 50.0
NOISE_HZ, GRAVITY_HZ, ORDER = 20.0, 0.3, 3
# Groups of three axes in the order that `har_signals` stacks them.
SIGNALS = ("tBodyAcc", "tGravityAcc", "tBodyAccJerk", "tBodyGyro", "tBodyGyroJerk")


def har_signals(acc: np.ndarray, gyro: np.ndarray) -> np.ndarray:
    """acc (g), gyro (rad/s) [..., 3, T] -> float64 [..., 15, T]: x, y, z of each of SIGNALS."""
    acc, gyro = (low_pass(median_of_three(np.asarray(s, dtype=np.float64)), NOISE_HZ) for s in (acc, gyro))
    gravity = low_pass(acc, GRAVITY_HZ)
    body = acc - gravity
    return np.concatenate([body, gravity, jerk(body), gyro, jerk(gyro)], axis=-2)


def median_of_three(signal: np.ndarray) -> np.ndarray:
    """Median of every sample of [..., T] and its two neighbours."""
    before = np.concatenate([signal[..., :1], signal[..., :-1]], axis=-1)
    after = np.concatenate([signal[..., 1:], signal[..., -1:]], axis=-1)
    low, high = np.minimum(before, after), np.maximum(before, after)
    return np.maximum(low, np.minimum(high, signal))


def low_pass(signal: np.ndarray, corner_hz: float) -> np.ndarray:
    """Butterworth low-pass of order 3 along the last axis; a constant passes as it is."""
    try:
        from scipy.signal import butter, sosfilt, sosfilt_zi
    except ImportError:
        raise ImportError("har_features: expected scipy to be installed for the filters, got none") from None
    sections = butter(ORDER, corner_hz, fs=RATE_HZ, output="sos")
    # [sections, 2] -> [sections, ..., 2]: the state of every section and signal.
    steady = sosfilt_zi(sections).reshape(len(sections), *[1] * (signal.ndim - 1), 2)
    return sosfilt(sections, signal, axis=-1, zi=steady * signal[None, ..., :1])[0]


def jerk(signal: np.ndarray) -> np.ndarray:
    """Derivative in time of [..., T], per sample, same shape."""
    steps = np.diff(signal, axis=-1)
    return np.concatenate([steps[..., :1], steps], axis=-1)
