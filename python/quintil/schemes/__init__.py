"""Quantisation schemes: frozen dataclasses that say how a model is quantised and hold no tensor."""

from .base import Scheme
from .double_rounding import DoubleRounding
from .hdqt import HDQT
from .vecq import VecQ

__all__ = ["HDQT", "DoubleRounding", "Scheme", "VecQ"]
