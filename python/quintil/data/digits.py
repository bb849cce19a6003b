"""scikit-learn's handwritten digits: 1,797 samples of 64 pixels, 10 classes; real data that needs no
download.

The split is fixed: of every class, the first round(0.2 * count) rows of a permutation drawn by
numpy.random.RandomState(0), classes in ascending order, are the test side (1,438 train, 359 test rows; row
order of the file kept). It depends on no seed of the caller, so that every run of every version sees the same
samples.
"""

from __future__ import annotations

import hashlib

import numpy as np

from .persons import to_float, to_tensors
from .registry import Dataset, Request, dataset
from .splits import stratified


@dataset("digits")
def load_digits(request: Request) -> Dataset:
    """x float32 [N, 64] in [0, 1] (pixel / 16), y 0..9, no persons."""
    try:
        from sklearn.datasets import load_digits as sklearn_digits
    except ImportError:
        raise ImportError("digits: expected scikit-learn to be installed, got none (quintil[data])") from None
    request.refuse("argument", "features_file", "subjects_drop", "classes_drop")
    request.require_split("official")
    if request.normalise not in (None, "none"):
        raise ValueError(f"digits: expected normalise to be none (pixels lie in [0, 1]), got {request.normalise!r}")
    bunch = sklearn_digits()
    pixels = (bunch.data / 16.0).astype(np.float32)
    labels = bunch.target.astype(np.int64)
    train, test = stratified(labels, seed=0)
    classes = np.unique(labels)
    x_train, y_train = to_tensors(pixels[train], labels[train], classes)
    x_test, y_test = to_tensors(pixels[test], labels[test], classes)
    return Dataset(
        name="digits",
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=tuple(str(label) for label in classes.tolist()),
        subject_train=None,
        subject_test=None,
        transform=to_float,
        augment=None,
        checksums={"sklearn digits (pixels, labels)": hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()},
    )
