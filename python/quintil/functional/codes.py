"""Codes, their packing, and products with narrow accumulators."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from quintil import _library  # noqa: F401  (registers the ops)

from .shared import draw_seed

_quantize = torch.ops.quintil.quantize.default
_dequantize = torch.ops.quintil.dequantize.default
_pack_int4 = torch.ops.quintil.pack_int4.default
_unpack_int4 = torch.ops.quintil.unpack_int4.default
_tiled_int_mm = torch.ops.quintil.tiled_int_mm.default
_tile_saturation = torch.ops.quintil.tile_saturation.default


def quantize(
    x: Tensor,
    bits: int,
    *,
    signed: bool | None = None,
    narrow: bool = True,
    range_fraction: float = 1.0,
    scale: Tensor | None = None,
    generator: Generator | None = None,
    seed: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Uniform codes and their scale [HDQT H1, H2, H7, H8].

    x: float tensor of any shape. bits: 2..8. signed: codes -Q..Q in int8, Q = 2^(bits-1)-1 (-Q-1..Q if not `narrow`),
    or 0..2^bits-1 in uint8; None = signed iff any x < 0. scale: given step, 0-dim or one per x.size(0); without it the
    step is range_fraction * max|x| / Q, one for the tensor.
    Returns codes of x's shape and the float32 step(s). They round half to even; with `seed`, or a seed drawn from
    `generator`, stochastically. Not differentiable. NaN or Inf in x gives codes 0 and a NaN step.
    """
    if signed is None:
        signed = bool((x < 0).any())
    if seed is None and generator is not None:
        seed = draw_seed(generator)
    return _quantize(x, bits, signed=signed, narrow=narrow, range_fraction=range_fraction, scale=scale, seed=seed)


def dequantize(codes: Tensor, scale: Tensor) -> Tensor:
    """float32 `codes * scale`; codes int8 or uint8, scale 0-dim or one per codes.size(0)."""
    return _dequantize(codes, scale)


def pack_int4(codes: Tensor) -> Tensor:
    """Two codes per byte along the last dimension, the even index in the low nibble; an odd end is padded with 0.

    codes: int8 in -8..7 or uint8 in 0..15, [..., n]. Returns uint8 [..., ceil(n / 2)].
    """
    return _pack_int4(codes)


def unpack_int4(packed: Tensor, size: int, *, signed: bool = True) -> Tensor:
    """The inverse of `pack_int4`: uint8 [..., ceil(size / 2)] -> [..., size], int8 if `signed`, else uint8."""
    return _unpack_int4(packed, size, signed=signed)


def tiled_int_mm(
    a: Tensor,
    b: Tensor,
    *,
    tile_size: int = 32,
    accumulator_bits: int = 8,
    accumulate: str = "tile_end",
    overflow: str = "saturate",
) -> Tensor:
    """Integer matrix product whose partial sums pass through a narrow accumulator [HDQT H3].

    a: int8 or uint8 [M, K]; b: int8 [K, N]; any strides. Returns int32 [M, N], the exact sum over runs of `tile_size`
    products (0 = one run), each limited to +-(2^(A-1)-1), A = accumulator_bits in 4..32 (32 = no limit).
    accumulate: 'tile_end' limits each finished run, 'every_mac' every partial sum, k ascending. overflow: 'saturate',
    or 'wrap' (two's complement).
    """
    return _tiled_int_mm(
        a, b, tile_size=tile_size, accumulator_bits=accumulator_bits, accumulate=accumulate, overflow=overflow
    )


def tile_saturation(a: Tensor, b: Tensor, *, tile_size: int = 32, accumulator_bits: int = 8) -> Tensor:
    """How many tile sums of `tiled_int_mm(a, b, ...)` the limit changes: int64, 0-dim. A diagnostic, not fast."""
    return _tile_saturation(a, b, tile_size=tile_size, accumulator_bits=accumulator_bits)
