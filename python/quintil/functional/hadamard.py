"""HDQT: the transform and the layers whose three products run on integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from quintil import _library  # noqa: F401  (registers the ops)

from .shared import can_have_gradient, draw_seed, pair

_hadamard_transform = torch.ops.quintil.hadamard_transform.default
_hadamard_linear = torch.ops.quintil.hadamard_linear.default
_hadamard_conv2d = torch.ops.quintil.hadamard_conv2d.default
_hadamard_conv2d_batch_norm = torch.ops.quintil.hadamard_conv2d_batch_norm.default


def hadamard_transform(x: Tensor, dim: int = -1, *, hadamard: str = "padded", block: int = 64) -> Tensor:
    """Block-diagonal Sylvester-Hadamard transform of one dimension, not normalised [HDQT H5, H6].

    x: float (differentiable), or int8, uint8, int16 or int32 (exact, returns int32). hadamard: 'padded' (blocks of
    min(block, next power of two), zero-padded, so the dimension may grow), 'divisor' (largest power of two dividing
    the size), 'binary' (the powers of two of the size, descending) or 'none'. block: a power of two.
    """
    return _hadamard_transform(x, dim, hadamard=hadamard, block=block)


def hadamard_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    bits: int = 4,
    accumulator_bits: int = 8,
    tile_size: int = 32,
    backward_accumulator_bits: int | None = None,
    weight_gradient_accumulator_bits: int | None = None,
    backward_tile_size: int = 32,
    accumulate: str = "tile_end",
    overflow: str = "saturate",
    hadamard: str = "padded",
    hadamard_block: int = 64,
    requantize: bool = True,
    dc_row: str = "together",
    ste: str = "identity",
    stochastic: str = "b1g,b2a,b2g",
    range_fraction: float = 0.975,
    generator: Generator | None = None,
    seed: int | None = None,
) -> Tensor:
    """`x @ weight.T + bias` on integer codes, forward and both backward products [HDQT H1-H11].

    x: float [..., K]; weight: float [N, K]; bias: float [N]. Returns [..., N] in x's dtype. The options are those of
    `quintil.HDQT`, where they are explained; `stochastic` is a comma-separated list here. One scale serves the whole
    tensor x: a result may depend on its batch.
    """
    if seed is None and stochastic and can_have_gradient(x, weight, bias):
        seed = draw_seed(generator)
    return _hadamard_linear(
        x,
        weight,
        bias,
        bits=bits,
        accumulator_bits=accumulator_bits,
        tile_size=tile_size,
        backward_accumulator_bits=backward_accumulator_bits,
        weight_gradient_accumulator_bits=weight_gradient_accumulator_bits,
        backward_tile_size=backward_tile_size,
        accumulate=accumulate,
        overflow=overflow,
        hadamard=hadamard,
        hadamard_block=hadamard_block,
        requantize=requantize,
        dc_row=dc_row,
        ste=ste,
        stochastic=stochastic,
        range_fraction=range_fraction,
        seed=seed,
    )


def hadamard_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    *,
    bits: int = 4,
    accumulator_bits: int = 8,
    tile_size: int = 32,
    backward_accumulator_bits: int | None = None,
    weight_gradient_accumulator_bits: int | None = None,
    backward_tile_size: int = 32,
    accumulate: str = "tile_end",
    overflow: str = "saturate",
    hadamard: str = "padded",
    hadamard_block: int = 64,
    requantize: bool = True,
    dc_row: str = "together",
    ste: str = "identity",
    stochastic: str = "b1g,b2a,b2g",
    range_fraction: float = 0.975,
    conv_backward: str = "per_sample",
    tile_order: str = "khwc",
    generator: Generator | None = None,
    seed: int | None = None,
) -> Tensor:
    """2-d convolution on integer codes, forward and both backward products [HDQT H12].

    x: float [N, C, H, W], contiguous or channels_last (faster; the output keeps it); weight: float [O, C, kh, kw];
    bias: float [O]. Zero padding only, no groups. Returns [N, O, H', W'] in x's dtype. Options as in
    `quintil.HDQT`; `stochastic` is a comma-separated list here.
    """
    if seed is None and stochastic and can_have_gradient(x, weight, bias):
        seed = draw_seed(generator)
    return _hadamard_conv2d(
        x,
        weight,
        bias,
        pair(stride),
        pair(padding),
        pair(dilation),
        bits=bits,
        accumulator_bits=accumulator_bits,
        tile_size=tile_size,
        backward_accumulator_bits=backward_accumulator_bits,
        weight_gradient_accumulator_bits=weight_gradient_accumulator_bits,
        backward_tile_size=backward_tile_size,
        accumulate=accumulate,
        overflow=overflow,
        hadamard=hadamard,
        hadamard_block=hadamard_block,
        requantize=requantize,
        dc_row=dc_row,
        ste=ste,
        stochastic=stochastic,
        range_fraction=range_fraction,
        conv_backward=conv_backward,
        tile_order=tile_order,
        seed=seed,
    )


def hadamard_conv2d_batch_norm(
    x: Tensor,
    weight: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    residual: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    *,
    relu: bool = True,
    eps: float = 1e-5,
    generator: Generator | None = None,
    seed: int | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """`hadamard_conv2d` without bias, batch normalisation, + residual and ReLU as one op of training [HDQT H12].

    The batch's own moments normalise, as in torch.nn.functional.batch_norm with training=True. The convolution's
    exact integer sums are what is normalised and saved for the backward, two bytes each, beside the codes of x and
    one bit per ReLU.

    x, weight, stride, padding, dilation: as in `hadamard_conv2d`; norm_weight, norm_bias: float [O], gamma and beta;
    residual: float [N, O, H', W'], added before the ReLU. eps > 0. options: those of `hadamard_conv2d`.
    Returns y [N, O, H', W'] in x's dtype, and float32 [O] the mean and the biased variance of the convolution's output,
    without a gradient, for running statistics.
    Raises ValueError for fewer than two values per channel and where sums may exceed 16 bits: with accumulators of A
    bits from 32767 / (2^(A-1) - 1) tiles on (258 tiles of 32 products for A = 8).
    """
    tensors = (norm_weight, norm_bias, residual)
    wanted = can_have_gradient(x, weight, None) or any(can_have_gradient(t, weight, None) for t in tensors)
    if seed is None and options.get("stochastic", "default") and wanted:
        seed = draw_seed(generator)
    return _hadamard_conv2d_batch_norm(
        x,
        weight,
        norm_weight,
        norm_bias,
        residual,
        pair(stride),
        pair(padding),
        pair(dilation),
        relu=relu,
        eps=eps,
        seed=seed,
        **options,
    )
