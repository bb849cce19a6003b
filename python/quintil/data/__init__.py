"""Data sets: `load(name, root)` gives split, scaled tensors; `names()` lists what there is."""

# ruff: noqa: F401  (importing a loader's module registers its data sets)
from . import cifar100, custom, digits, dsads, hapt, pamap2, synthetic
from .registry import Dataset, dataset, load, names

__all__ = ["Dataset", "dataset", "load", "names"]
