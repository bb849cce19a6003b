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

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from quintil import _library  # noqa: F401  (registers the ops)

_quantize = torch.ops.quintil.quantize.default
_dequantize = torch.ops.quintil.dequantize.default
_pack_int4 = torch.ops.quintil.pack_int4.default
_unpack_int4 = torch.ops.quintil.unpack_int4.default
_hadamard_transform = torch.ops.quintil.hadamard_transform.default
_tiled_int_mm = torch.ops.quintil.tiled_int_mm.default
_tile_saturation = torch.ops.quintil.tile_saturation.default
_hadamard_linear = torch.ops.quintil.hadamard_linear.default
_hadamard_conv2d = torch.ops.quintil.hadamard_conv2d.default
_hadamard_conv2d_batch_norm = torch.ops.quintil.hadamard_conv2d_batch_norm.default
_lsq_quantize = torch.ops.quintil.lsq_quantize.default
_double_round = torch.ops.quintil.double_round.default
_double_round_quantize = torch.ops.quintil.double_round_quantize.default
_vecq_step = torch.ops.quintil.vecq_step.default
_vecq_quantize = torch.ops.quintil.vecq_quantize.default
_vecq_codes = torch.ops.quintil.vecq_codes.default
_vecq_activation = torch.ops.quintil.vecq_activation.default
_vecq_losses = torch.ops.quintil.vecq_losses.default
_luq_quantize = torch.ops.quintil.luq_quantize.default
_luq_codes = torch.ops.quintil.luq_codes.default
_sawb_clip = torch.ops.quintil.sawb_clip.default
_minifloat_quantize = torch.ops.quintil.minifloat_quantize.default
_affine_quantize = torch.ops.quintil.affine_quantize.default
_int_linear = torch.ops.quintil.int_linear.default
_int_conv2d = torch.ops.quintil.int_conv2d.default

_SEED_END = 2**62


def _pair(value: int | Sequence[int]) -> Sequence[int]:
    return (value, value) if isinstance(value, int) else value


def set_checked(on: bool) -> None:
    """Checked mode: with it every op refuses NaN and Inf with a ValueError that names the first bad index.

    Without it (the default, unless QUINTIL_CHECKED=1) they pass through as a NaN scale and NaN results.
    """
    torch.ops.quintil._set_checked(on)


def draw_seed(generator: Generator | None = None) -> int:
    """A seed in 0..2^62-1 from `generator`, by default torch's own, which `torch.manual_seed` sets."""
    return int(torch.randint(0, _SEED_END, (), generator=generator))


def can_have_gradient(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether autograd records an op on these inputs: only then do the stochastic operands exist."""
    return torch.is_grad_enabled() and (
        getattr(x, "requires_grad", False)
        or getattr(weight, "requires_grad", False)
        or getattr(bias, "requires_grad", False)
    )


def quantize(
    x: Tensor,
    bits: int,
    *,
    signed: bool | None = None,
    narrow: bool = True,
    range_fraction: float = 1.0,
    range_rms: float = 0.0,
    scale: Tensor | None = None,
    generator: Generator | None = None,
    seed: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Uniform codes and their scale [HDQT H1, H2, H7, H8].

    x: float tensor of any shape. bits: 2..8. signed: codes -Q..Q in int8, Q = 2^(bits-1)-1 (-Q-1..Q if not `narrow`),
    or 0..2^bits-1 in uint8; None = signed iff any x < 0. scale: given step, 0-dim or one per x.size(0); without it the
    step is range_fraction * max|x| / Q, one for the tensor, or at most range_rms root mean squares of x / Q if range_rms
    is not 0.
    Returns codes of x's shape and the float32 step(s). They round half to even; with `seed`, or a seed drawn from
    `generator`, stochastically. Not differentiable. NaN or Inf in x gives codes 0 and a NaN step.
    """
    if signed is None:
        signed = bool((x < 0).any())
    if seed is None and generator is not None:
        seed = draw_seed(generator)
    return _quantize(
        x, bits, signed=signed, narrow=narrow, range_fraction=range_fraction, range_rms=range_rms, scale=scale, seed=seed
    )


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


def hadamard_transform(x: Tensor, dim: int = -1, *, hadamard: str = "padded", block: int = 64) -> Tensor:
    """Block-diagonal Sylvester-Hadamard transform of one dimension, not normalised [HDQT H5, H6].

    x: float (differentiable), or int8, uint8, int16 or int32 (exact, returns int32). hadamard: 'padded' (blocks of
    min(block, next power of two), zero-padded, so the dimension may grow), 'divisor' (largest power of two dividing
    the size), 'binary' (the powers of two of the size, descending) or 'none'. block: a power of two.
    """
    return _hadamard_transform(x, dim, hadamard=hadamard, block=block)


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
    activation_range_rms: float = 0.0,
    weight_range_rms: float = 0.0,
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
        activation_range_rms=activation_range_rms,
        weight_range_rms=weight_range_rms,
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
    activation_range_rms: float = 0.0,
    weight_range_rms: float = 0.0,
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
        _pair(stride),
        _pair(padding),
        _pair(dilation),
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
        activation_range_rms=activation_range_rms,
        weight_range_rms=weight_range_rms,
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
        _pair(stride),
        _pair(padding),
        _pair(dilation),
        relu=relu,
        eps=eps,
        seed=seed,
        **options,
    )


def lsq_quantize(
    x: Tensor,
    scale: Tensor,
    bits: int,
    *,
    signed: bool = False,
    offset: Tensor | None = None,
    mask_on: str = "scaled",
) -> Tensor:
    """A uniform quantiser that learns its step, and its offset where one is given [DR D10, D11, D13].

    With u = (x - offset) / scale: y = clamp(round(u), lo, hi) * scale + offset, ties to even. The range lo..hi is
    0..2^bits-1, or -2^(bits-1)..2^(bits-1)-1 if `signed` (-1..1 for one bit).
    x: float tensor of any shape. scale: float, 0-dim or one per x.size(0), positive. offset: float, 0-dim. bits: 1..8.
    Returns y in x's shape and dtype. NaN stays NaN.
    Gradients, with N elements per step and c = 1 / sqrt(N * hi): dx = g inside lo <= u <= hi, else 0;
    dscale = c * sum of g * (lo below, hi above, else round(u) - u); doffset = c * sum of g outside.
    mask_on='rounded' tests round(u) instead of u, as torch's own learnable fake quantiser does.
    """
    return _lsq_quantize(x, scale, bits, signed=signed, offset=offset, mask_on=mask_on)


def double_round(codes: Tensor, from_bits: int, to_bits: int, *, rounding: str = "half_even") -> Tensor:
    """The integers of a lower width from the stored ones: clamp(round(q / 2^(from_bits - to_bits))) [DR D2, D4, D5].

    codes: int8 of any shape. 1 <= to_bits <= from_bits <= 8. The range is -2^(to_bits-1)..2^(to_bits-1)-1, or -1..1 for
    one bit. rounding: 'half_even', 'half_up' or 'floor' (an arithmetic shift). Returns int8.
    """
    return _double_round(codes, from_bits, to_bits, rounding=rounding)


def double_round_quantize(
    x: Tensor,
    scale: Tensor,
    from_bits: int,
    to_bits: int,
    *,
    rounding: str = "half_even",
    chain_pow2: bool = False,
    weight_source: str = "stored",
    mask_on: str = "scaled",
    scale_residual: str = "double",
    scale_grad_sum: str = "channel",
) -> Tensor:
    """Weights at `to_bits` bits as a second rounding of the stored integers of `from_bits` bits [DR D1-D8].

    With D = from_bits - to_bits: q = double_round(clamp(round(x / scale)), from_bits, to_bits), y = q * (scale * 2^D).
    x: float tensor of any shape. scale: the stored step, float, 0-dim or one per x.size(0), positive.
    1 <= to_bits <= from_bits <= 8. Returns y in x's shape and dtype. NaN stays NaN.
    Gradients, with u = x / (scale * 2^D), the range lo..hi of `to_bits` (hi = 1 for one bit), N elements per step and
    c = 1 / sqrt(N * hi): dx = g inside lo <= u <= hi, else 0; dscale = c * sum of g * (lo below, hi above, else q - u).
    Options: chain_pow2 multiplies dscale by 2^D, the exact chain rule. rounding: 'half_even', 'half_up' or 'floor'
    (a plain shift) of the second rounding; the first one rounds half to even. weight_source='float' rounds u at once
    instead of the stored integers. mask_on='rounded' tests the rounded u, before any clamp, instead of u.
    scale_residual='single' compares with round(u) instead of q. scale_grad_sum='all' gives every channel the sum over
    all of them.
    """
    return _double_round_quantize(
        x,
        scale,
        from_bits,
        to_bits,
        rounding=rounding,
        chain_pow2=chain_pow2,
        weight_source=weight_source,
        mask_on=mask_on,
        scale_residual=scale_residual,
        scale_grad_sum=scale_grad_sum,
    )


def vecq_step(
    x: Tensor,
    bits: int,
    *,
    per_channel: bool = False,
    group_size: int = 0,
    sigma: str = "population",
    lambda_mode: str = "table",
) -> Tensor:
    """The step between the half-integer levels of `vecq_quantize` [VECQ V4, V5, V7].

    x: float tensor of any shape. bits: 1..16. Returns float32: 0-dim for the whole tensor, [C] with `per_channel`, one
    for each x[i] of x [C, ...], or [C, G] with a group_size > 0, one for each run of `group_size` elements of x[i].
    lambda_mode: 'table', the best step for numbers of a normal distribution, lambda * standard deviation + 1e-7;
    'search', the step of the smallest orientation loss on x itself, from sorting x once: never worse, slower.
    sigma: 'population', or 'unbiased' (n - 1; 0 for one element). Not differentiable. NaN or Inf gives NaN.
    """
    return _vecq_step(x, bits, per_channel=per_channel, group_size=group_size, sigma=sigma, lambda_mode=lambda_mode)


def vecq_quantize(
    x: Tensor,
    bits: int,
    *,
    step: Tensor | None = None,
    drive: str = "projection",
    alpha: Tensor | None = None,
    grad_mode: str = "ste",
    grad_ratio: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers as a length times half-integers: direction first (steer), then length (drive) [VECQ V3, V6, V8, V9, V13].

    codes = clamp(round(x / step - 1/2), -2^(bits-1), 2^(bits-1)-1), v = codes + 1/2, y = alpha * v; ties to even, zeros
    of either sign have code 0. No level is 0.
    x: float tensor of any shape. bits: 1..16. step: float, as `vecq_step` returns it, by default of the whole tensor.
    alpha: given lengths, float, in the sizes of step; by default drive decides: 'projection', <v,x> / (<v,v> + 1e-7),
    'norm', |x| / (|v| + 1e-7), or 'none', the step itself (ClipQ).
    Returns y in x's shape and dtype, the codes (int8; int16 beyond 8 bits) and float32 alpha, in the sizes of step.
    Only y is differentiable; step and alpha are constants for its gradient. grad_mode: 'ste', the identity; 'pwl', the
    identity, and y moves by the fraction grad_ratio in 0..1 towards x; 'pwl_c', as 'pwl' with x clipped to the range of
    the values that occur, and no gradient outside it.
    NaN or Inf in x makes all that shares its step NaN, with code 0, unless step and alpha are given.
    """
    return _vecq_quantize(x, bits, step=step, drive=drive, alpha=alpha, grad_mode=grad_mode, grad_ratio=grad_ratio)


def vecq_codes(x: Tensor, bits: int, step: Tensor) -> Tensor:
    """The codes of `vecq_quantize` for a given step, without their values: int8, int16 beyond 8 bits [VECQ V9]."""
    return _vecq_codes(x, bits, step)


def vecq_activation(
    x: Tensor,
    bits: int,
    averages: Tensor,
    *,
    training: bool,
    momentum: float = 0.9,
    drive: str = "projection",
    sigma: str = "population",
) -> tuple[Tensor, Tensor]:
    """Activations on half-integer levels with running averages of step and length [VECQ V11, V12].

    x: float tensor of any shape. bits: 1..16. averages: float32 [3], step, length, and the share of both that is still
    their start; start with ones. training: y has the step and length of x, and the averages move,
    momentum * averages + (1 - momentum) * (step, length, 0); else y has those of `averages`, which stay. momentum:
    0 <= momentum < 1. drive, sigma: as in `vecq_quantize`, `vecq_step`. An empty x moves nothing.
    Returns y in x's shape and dtype, its gradient the identity, and the new averages.
    """
    return _vecq_activation(x, bits, averages, training=training, momentum=momentum, drive=drive, sigma=sigma)


def vecq_losses(x: Tensor, y: Tensor, *, per_channel: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """How far y is from x: orientation loss 1 - cos(x, y), modulus loss |x - y|^2, and their sum [VECQ V2].

    x, y: float, same sizes. Returns three float64 tensors, 0-dim, or [C] with `per_channel` for x [C, ...]. Not
    differentiable. The orientation loss is 0 where x is zero, 1 where only y is.
    """
    return _vecq_losses(x, y, per_channel=per_channel)


def luq_quantize(
    x: Tensor,
    *,
    bits: int = 4,
    samples: int = 1,
    levels: str = "corrected",
    generator: Generator | None = None,
    seed: int | None = None,
) -> Tensor:
    """Zero and powers of two times alpha, drawn so that the mean is x: the gradients of LUQ [HDQT H14-H16].

    x: float tensor of any shape. bits: 2..5; magnitudes 0 and alpha 2^j, j = 0 .. 2^(bits-1)-2, alpha =
    max|x| / 2^(2^(bits-1)-2). A number below alpha becomes alpha with probability |x| / alpha, else 0; one between two
    powers goes to the upper in proportion; powers stay. samples: 1..1024 draws, of which the mean is returned.
    levels: 'corrected', or 'original', as published: twice as fine, and alpha from the signed maximum, so that larger
    negative numbers take further powers of two; where no number is positive, from max|x|.
    Returns x's shape and dtype; the gradient is the identity, once. NaN or Inf in x makes all NaN. The seed is drawn
    from `generator` where it is None.
    """
    seed = draw_seed(generator) if seed is None else seed
    return _luq_quantize(x, seed=seed, bits=bits, samples=samples, levels=levels)


def luq_codes(
    x: Tensor, *, bits: int = 4, sample: int = 0, generator: Generator | None = None, seed: int | None = None
) -> tuple[Tensor, Tensor]:
    """One draw of `luq_quantize` with levels 'corrected' as int8 codes, 0 or +-2^j, and the float32 0-dim alpha.

    bits: 2..4. sample: 0..1023, which of the draws of a seed. Not differentiable. NaN or Inf in x gives codes 0 and a
    NaN alpha, a zero tensor codes 0 and alpha 0.
    """
    seed = draw_seed(generator) if seed is None else seed
    return _luq_codes(x, seed=seed, bits=bits, sample=sample)


def sawb_clip(x: Tensor) -> Tensor:
    """Where the forward operands of LUQ are clipped, 12.1 sqrt(mean x^2) - 12.2 mean |x| [HDQT H13].

    x: float tensor of any shape. Returns float64, 0-dim; max|x| where the formula is not positive, 0 for an empty x,
    NaN for NaN or Inf in x. Sums run in double in a fixed order. Not differentiable.
    """
    return _sawb_clip(x)


def minifloat_quantize(
    x: Tensor,
    significand_bits: Sequence[int],
    exponent: Tensor,
    *,
    generator: Generator | None = None,
    seed: int | None = None,
    previous: Tensor | None = None,
) -> Tensor:
    """Floats whose precision shrinks towards zero, at an integer scale [HDQT H18, H19].

    x: float tensor of any shape. significand_bits: 1 to 128 integers, the significant bits of a binade, hidden bit
    included, from the top, each 0..24, the first at least 1: FP134 is (5, 5, 5, 5, 5, 5, 5, 4, 3, 2, 1, 0), FP130 (1,
    1, 1, 1, 1, 1, 1, 0). exponent: int32 or int64, 0-dim or one per x.size(0): S, the top binade being [2^S, 2^(S+1)).
    With first = significand_bits[0], magnitudes stop at 2^(S+1) - 2^(S+1-first). All steps must be normal float32
    numbers, else ValueError.
    Rounds half to even; with a seed, or one drawn from `generator`, stochastically; with `previous`, of x's sizes and
    without a seed, to the number above x where previous > x, else to the one below, x itself if it is one [H22].
    Returns x's shape and dtype; the gradient to x is the identity, once. NaN stays NaN, Inf becomes the largest number.
    """
    if seed is None and generator is not None:
        seed = draw_seed(generator)
    return _minifloat_quantize(x, significand_bits, exponent, seed=seed, previous=previous)


def affine_quantize(
    x: Tensor, gain: Tensor, shift: Tensor, scale: Tensor, bits: int, *, signed: bool = False
) -> Tensor:
    """Codes of `x * gain + shift` per channel: what a BatchNorm and the quantiser behind it make. For inference.

    x: float [N, C, ...]; gain, shift: float [C]; scale: float, 0-dim, the step; bits: 2..8.
    Returns uint8 codes 0 .. 2^b - 1 or int8 codes -2^(b-1) .. 2^(b-1) - 1, clamp(rint(value / scale)) [DR D10], of x's
    size, channels last in memory. No gradient. TypeError for other dtypes, ValueError for other sizes.
    """
    return _affine_quantize(x, gain, shift, scale, bits, signed=signed)


def int_linear(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    *,
    x_zero2: int = 0,
    weight_zero2: int = 0,
    residual: Tensor | None = None,
    relu: bool = False,
    out_scale: Tensor | None = None,
    out_bits: int = 8,
) -> Tensor:
    """`x @ weight.T + bias` on stored codes, where code q means scale * (q - zero2 / 2). For inference, no gradient.

    x: int8 or uint8 [..., K]; weight: int8 [N, K]; x_scale: float, 0-dim; weight_scale: float, 0-dim or [N];
    bias: float [N]. x_zero2, weight_zero2: twice the code of 0, -512..512; -1 is the zero of half-integer levels.
    residual: float [..., N], added; relu: 0 for what is negative then.
    Returns float32 [..., N]: the exact integer sum times weight_scale, times x_scale, + bias, + residual in this order.
    out_scale: float, 0-dim; with it the result is uint8 codes of that step, clamp(rint(value / out_scale), 0,
    2^out_bits - 1), out_bits 2..8: the input of a next layer.
    8-bit codes with an odd zero2 take a slower kernel. Raises ValueError where sums could leave int32: K above 65,793
    for uint8 without zero points, less with them.
    """
    return _int_linear(
        x, x_scale, weight, weight_scale, bias, x_zero2=x_zero2, weight_zero2=weight_zero2, residual=residual,
        relu=relu, out_scale=out_scale, out_bits=out_bits,
    )  # fmt: skip


def int_conv2d(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    *,
    x_zero2: int = 0,
    weight_zero2: int = 0,
    residual: Tensor | None = None,
    relu: bool = False,
    out_scale: Tensor | None = None,
    out_bits: int = 8,
) -> Tensor:
    """2-d convolution on stored codes, where code q means scale * (q - zero2 / 2). For inference, no gradient.

    x: int8 or uint8 [N, C, H, W], contiguous or channels_last (faster; the output keeps it);
    weight: int8 [O, C, kh, kw]; scales, bias, zero points, residual, relu, out_scale and errors as in
    `int_linear`, with O outputs. Padding is real zeros: it contributes nothing, whatever x_zero2. No groups.
    Returns float32 or codes [N, O, H', W'].
    """
    return _int_conv2d(
        x, x_scale, weight, weight_scale, bias, _pair(stride), _pair(padding), _pair(dilation), x_zero2=x_zero2,
        weight_zero2=weight_zero2, residual=residual, relu=relu, out_scale=out_scale, out_bits=out_bits,
    )  # fmt: skip
