"""Data sets: `load(name, root)` gives split, scaled tensors; `names()` lists what there is."""

# ruff: noqa: F401  (importing a loader's module registers its data sets)
from . import cifar100, custom, digits, dsads, hapt, imdb, mnist, pamap2, synthetic
from .batches import TensorBatches
from .har import HAR_FEATURE_NAMES, har_features
from .photos import PhotoBatches
from .registry import Dataset, dataset, load, names

__all__ = [
    "HAR_FEATURE_NAMES",
    "Dataset",
    "PhotoBatches",
    "TensorBatches",
    "dataset",
    "har_features",
    "load",
    "names",
]
