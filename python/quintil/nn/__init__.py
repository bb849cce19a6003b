"""Layers that compute on integers, and the swap that puts them into a float model."""

from .fuse import fuse_, unfuse_
from .hdqt import HadamardConv2d, HadamardLinear
from .saturation import saturation
from .swap import SwappedLayer, dequantize_, quantize_, swaps

__all__ = [
    "HadamardConv2d",
    "HadamardLinear",
    "SwappedLayer",
    "dequantize_",
    "fuse_",
    "quantize_",
    "saturation",
    "swaps",
    "unfuse_",
]
