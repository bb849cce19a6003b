"""Layers that compute on integers, and the swap that puts them into a float model."""

from .deploy import deploy
from .double_rounding import DoubleRoundingConv2d, DoubleRoundingLinear
from .fold import fold_norms_
from .fp134 import FP134Conv2d, FP134Linear, round_master_
from .fuse import fuse_, unfuse_
from .hdqt import HadamardConv2d, HadamardLinear
from .levels import calibrate
from .luq import LUQConv2d, LUQLinear
from .norm import SwitchableBatchNorm1d, SwitchableBatchNorm2d, transitional_
from .quantizers import keep_steps_positive
from .saturation import saturation
from .script import script
from .storage import load_quantized, save_quantized
from .swap import SwappedLayer, dequantize_, quantize_, swaps
from .vecq import VecQLinear
from .vecq_activations import VecQGELU, VecQLeakyReLU, VecQReLU, VecQReLU6, VecQSigmoid, VecQSiLU, VecQTanh
from .vecq_convolutions import VecQConv1d, VecQConv2d, VecQConvTranspose2d
from .vecq_recurrent import VecQLSTMCell
from .vecq_sequences import VecQGRU, VecQLSTM
from .vecq_tables import VecQEmbedding, VecQEmbeddingBag
from .widths import get_bits, set_bits

__all__ = [
    "DoubleRoundingConv2d",
    "DoubleRoundingLinear",
    "FP134Conv2d",
    "FP134Linear",
    "HadamardConv2d",
    "HadamardLinear",
    "LUQConv2d",
    "LUQLinear",
    "SwappedLayer",
    "SwitchableBatchNorm1d",
    "SwitchableBatchNorm2d",
    "VecQConv1d",
    "VecQConv2d",
    "VecQConvTranspose2d",
    "VecQEmbedding",
    "VecQEmbeddingBag",
    "VecQGELU",
    "VecQGRU",
    "VecQLSTM",
    "VecQLSTMCell",
    "VecQLeakyReLU",
    "VecQLinear",
    "VecQReLU",
    "VecQReLU6",
    "VecQSiLU",
    "VecQSigmoid",
    "VecQTanh",
    "calibrate",
    "deploy",
    "dequantize_",
    "fold_norms_",
    "fuse_",
    "get_bits",
    "keep_steps_positive",
    "load_quantized",
    "quantize_",
    "round_master_",
    "saturation",
    "save_quantized",
    "script",
    "set_bits",
    "swaps",
    "transitional_",
    "unfuse_",
]
