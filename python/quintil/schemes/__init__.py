"""Quantisation schemes: frozen dataclasses that say how a model is quantised and hold no tensor."""

from .base import Scheme
from .double_rounding import DoubleRounding
from .fp134 import FP134
from .hdqt import HDQT
from .luq import LUQ
from .vecq import VecQ

__all__ = ["FP134", "HDQT", "LUQ", "DoubleRounding", "Scheme", "VecQ"]
