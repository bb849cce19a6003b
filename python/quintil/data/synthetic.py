"""Generated data for machines without the real sets: Gaussian class clusters, with an offset per person or
per image.

"synthetic" or "synthetic:har": 12 classes x 8 persons x 12 samples of 64 features; "synthetic:cifar": 20
classes x (40 + 10) images. Learnable, not trivial, and a function of the seed alone.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from .images import augment_images, normalise_images
from .persons import PersonTable, Rules, person_dataset
from .registry import Dataset, Request, dataset

HAR_CLASSES, HAR_PERSONS, HAR_REPEATS, HAR_FEATURES = 12, 8, 12, 64
IMAGE_CLASSES, IMAGE_TRAIN, IMAGE_TEST = 20, 40, 10


@dataset("synthetic")
def load_synthetic(request: Request) -> Dataset:
    """Sensor-like features (default) or CIFAR-like images, drawn from `seed`."""
    request.refuse("features_file")
    makers = {"": _har, "har": _har, "cifar": _images}
    if request.argument not in makers:
        raise ValueError(f"synthetic: expected variant har or cifar, got {request.argument!r}")
    return makers[request.argument](request, np.random.default_rng(request.seed % 2**63))


def _har(request: Request, generator: np.random.Generator) -> Dataset:
    label, person, _ = np.indices((HAR_CLASSES, HAR_PERSONS, HAR_REPEATS)).reshape(3, -1)
    centres = generator.normal(size=(HAR_CLASSES, HAR_FEATURES))
    offsets = 0.4 * generator.normal(size=(HAR_PERSONS, HAR_FEATURES))
    x = centres[label] + offsets[person] + generator.normal(size=(len(label), HAR_FEATURES))
    table = PersonTable(x.astype(np.float32), label + 1, person + 1, {"synthetic:har": _digest(x)})
    rules = Rules(labels=range(1, HAR_CLASSES + 1), subjects=range(1, HAR_PERSONS + 1), split="loso")
    return person_dataset("synthetic", table, rules, request)


def _images(request: Request, generator: np.random.Generator) -> Dataset:
    request.refuse("subjects_drop", "classes_drop")
    request.require_split("official")
    if request.normalise not in (None, "none"):
        raise ValueError(f"synthetic: expected normalise to be none for images, got {request.normalise!r}")
    # A class is a coarse 4x4 colour pattern, so that shifts and flips leave it recognisable.
    patterns = generator.normal(scale=60.0, size=(IMAGE_CLASSES, 3, 4, 4)).repeat(8, axis=2).repeat(8, axis=3)

    def side(per_class: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = np.tile(np.arange(IMAGE_CLASSES), per_class)
        noise = generator.normal(scale=30.0, size=(len(y), 3, 32, 32))
        x = np.clip(128.0 + patterns[y] + noise + generator.normal(scale=15.0, size=(len(y), 3, 1, 1)), 0, 255)
        return torch.from_numpy(x.astype(np.uint8)), torch.from_numpy(y.astype(np.int64))

    (x_train, y_train), (x_test, y_test) = side(IMAGE_TRAIN), side(IMAGE_TEST)
    return Dataset(
        name="synthetic",
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        class_names=tuple(str(label) for label in range(IMAGE_CLASSES)),
        subject_train=None,
        subject_test=None,
        transform=normalise_images,
        augment=augment_images,
        checksums={"synthetic:cifar": _digest(x_train.numpy())},
    )


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
