"""One function per op of `torch.ops.quintil`: the same names, order and defaults, and the draw of the seed.

No arithmetic is done here and nothing is checked here: both are in the ops, so that TorchScript and C++ users meet the
same results and the same errors. Tensors live on the CPU. "Float" means float32, float64, float16 or bfloat16; the ops
compute in float32 and return the dtype they were given. Errors are ValueError (sizes and ranges), TypeError (dtypes)
and NotImplementedError (absent cases), worded `<op>: expected <argument> <condition>, got <value>`.

Seeds. A stochastic op is a pure function of its arguments, the seed included. Where `seed` is None, one is drawn with
`draw_seed(generator)`, so `torch.manual_seed` makes a run repeatable and activation checkpointing replays the draw.
The `hadamard_` layers draw only if a gradient can flow to an input and `stochastic` names an operand;
otherwise they round to nearest, draw nothing and are deterministic. All functions can be traced by
`torch.compile(fullgraph=True)`, except `quantize` with `signed=None`, which must look at the data.
"""

from __future__ import annotations

from .baselines import luq_codes, luq_quantize, minifloat_quantize, sawb_clip
from .codes import dequantize, pack_int4, quantize, tile_saturation, tiled_int_mm, unpack_int4
from .double_rounding import double_round, double_round_quantize, lsq_quantize
from .hadamard import hadamard_conv2d, hadamard_conv2d_batch_norm, hadamard_linear, hadamard_transform
from .integer import affine_quantize, int_conv2d, int_linear
from .shared import can_have_gradient, draw_seed, set_checked
from .vecq import vecq_activation, vecq_codes, vecq_losses, vecq_quantize, vecq_step

__all__ = [
    "affine_quantize",
    "can_have_gradient",
    "dequantize",
    "double_round",
    "double_round_quantize",
    "draw_seed",
    "hadamard_conv2d",
    "hadamard_conv2d_batch_norm",
    "hadamard_linear",
    "hadamard_transform",
    "int_conv2d",
    "int_linear",
    "lsq_quantize",
    "luq_codes",
    "luq_quantize",
    "minifloat_quantize",
    "pack_int4",
    "quantize",
    "sawb_clip",
    "set_checked",
    "tile_saturation",
    "tiled_int_mm",
    "unpack_int4",
    "vecq_activation",
    "vecq_codes",
    "vecq_losses",
    "vecq_quantize",
    "vecq_step",
]
