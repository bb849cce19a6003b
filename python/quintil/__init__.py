"""quintil: quantized integer incremental learning on CPUs. Importing it loads the C++ ops, `torch.ops.quintil`."""

from quintil._library import _bindings, active_isa, cmake_prefix_path, runnable_isas

from . import bits, functional, nn  # after _library: they bind the ops  # isort: skip
from .functional import set_checked
from .nn import dequantize_, load_quantized, quantize_, save_quantized, set_bits
from .schemes import FP134, HDQT, LUQ, DoubleRounding, VecQ
from .studies import energy, probe

__version__ = _bindings.build_flags()["version"]

__all__ = [
    "FP134",
    "HDQT",
    "LUQ",
    "DoubleRounding",
    "VecQ",
    "__version__",
    "active_isa",
    "bits",
    "cmake_prefix_path",
    "dequantize_",
    "energy",
    "functional",
    "load_quantized",
    "nn",
    "probe",
    "quantize_",
    "runnable_isas",
    "save_quantized",
    "set_bits",
    "set_checked",
]
