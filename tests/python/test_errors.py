"""Every refusal: call, exception class, text. The same from CPU, Meta and under inference_mode."""

import os
import subprocess
import sys

import pytest
import quintil  # noqa: F401  (registers torch.ops.quintil)
import torch
from conftest import PACKAGE_ROOT

ops = torch.ops.quintil


def f32(*shape):
    return torch.ones(shape)


def i8(*shape):
    return torch.ones(shape, dtype=torch.int8)


def u8(*shape):
    return torch.ones(shape, dtype=torch.uint8)


def linear(x=(4, 8), weight=(3, 8), bias=None, dtype=torch.float32, **options):
    return (
        ops.hadamard_linear,
        (f32(*x).to(dtype), f32(*weight).to(dtype), None if bias is None else f32(*bias)),
        options,
    )


def conv(
    x=(2, 3, 6, 6),
    weight=(4, 3, 3, 3),
    bias=None,
    stride=(1, 1),
    padding=(0, 0),
    dilation=(1, 1),
    dtype=torch.float32,
    **options,
):
    tensors = (f32(*x).to(dtype), f32(*weight).to(dtype), None if bias is None else f32(*bias))
    return ops.hadamard_conv2d, (*tensors, list(stride), list(padding), list(dilation)), options


def conv_norm(
    x=(2, 3, 6, 6),
    weight=(4, 3, 3, 3),
    gamma=(4,),
    beta=(4,),
    residual=None,
    dtype=torch.float32,
    norm_dtype=torch.float32,
    **options,
):
    image, kernel = f32(*x).to(dtype), f32(*weight).to(dtype)
    norm = (f32(*gamma).to(norm_dtype), f32(*beta), None if residual is None else f32(*residual))
    return ops.hadamard_conv2d_batch_norm, (image, kernel, *norm, [1, 1], [0, 0]), options


def mm(a, b, **options):
    return ops.tiled_int_mm, (a, b), options


def lsq(x=(3, 4), scale=(), bits=4, **options):
    return ops.lsq_quantize, (f32(*x), f32(*scale), bits), options


def double_round_quantize(x=(3, 4), scale=(), from_bits=8, to_bits=4, **options):
    return ops.double_round_quantize, (f32(*x), f32(*scale), from_bits, to_bits), options


def int_linear(x=None, weight=None, scales=((), ()), bias=None, **options):
    x, weight = u8(4, 8) if x is None else x, i8(3, 8) if weight is None else weight
    return ops.int_linear, (x, f32(*scales[0]), weight, f32(*scales[1]), bias), options


def int_conv2d(x=None, weight=None, scales=((), ()), bias=None, geometry=((1, 1), (0, 0), (1, 1)), **options):
    x, weight = u8(2, 3, 6, 6) if x is None else x, i8(4, 3, 3, 3) if weight is None else weight
    return ops.int_conv2d, (x, f32(*scales[0]), weight, f32(*scales[1]), bias, *map(list, geometry)), options


def vecq(x=(3, 4), bits=4, **options):
    return ops.vecq_quantize, (f32(*x), bits), options


def vecq_step(x=(3, 4), bits=4, **options):
    return ops.vecq_step, (f32(*x), bits), options


def vecq_activation(x=(3, 4), bits=4, averages=None, **options):
    averages = f32(3) if averages is None else averages
    return ops.vecq_activation, (f32(*x), bits, averages), {"training": True, **options}


def luq(x=(3, 4), seed=1, **options):
    return ops.luq_quantize, (f32(*x),), {"seed": seed, **options}


def minifloat(x=(3, 4), significand_bits=(5, 4, 3), exponent=0, **options):
    exponent = torch.tensor(exponent) if isinstance(exponent, (int, list)) else exponent
    return ops.minifloat_quantize, (f32(*x), list(significand_bits), exponent), options


V, T, N = ValueError, TypeError, NotImplementedError
# (call, class, pattern after "<op>: expected "); the pattern must match the whole rest of the message
LAYER_ROWS = [
    (dict(bits=1), V, r"bits .*, got 1"),
    (dict(bits=9), V, r"bits .*, got 9"),
    (dict(bits=-4), V, r"bits .*, got -4"),
    (dict(accumulator_bits=3), V, r"accumulator_bits .*, got 3"),
    (dict(accumulator_bits=33), V, r"accumulator_bits .*, got 33"),
    (dict(backward_accumulator_bits=3), V, r"backward_accumulator_bits .*, got 3"),
    (dict(backward_accumulator_bits=64), V, r"backward_accumulator_bits .*, got 64"),
    (dict(weight_gradient_accumulator_bits=3), V, r"weight_gradient_accumulator_bits .*, got 3"),
    (dict(weight_gradient_accumulator_bits=33), V, r"weight_gradient_accumulator_bits .*, got 33"),
    (dict(tile_size=-1), V, r"tile_size .*, got -1"),
    (dict(backward_tile_size=-32), V, r"backward_tile_size .*, got -32"),
    (dict(accumulate="sometimes"), V, r"accumulate .*, got '?\"?sometimes.*"),
    (dict(overflow="explode"), V, r"overflow .*, got '?\"?explode.*"),
    (dict(hadamard="fourier"), V, r"hadamard .*, got '?\"?fourier.*"),
    (dict(hadamard_block=48), V, r"hadamard_block .*, got 48"),
    (dict(hadamard_block=0), V, r"hadamard_block .*, got 0"),
    (dict(hadamard_block=-64), V, r"hadamard_block .*, got -64"),
    (dict(ste="bent"), V, r"ste .*, got '?\"?bent.*"),
    (dict(dc_row="elsewhere"), V, r"dc_row .*, got '?\"?elsewhere.*"),
    (dict(dc_row="separate", hadamard="binary"), V, r"hadamard .* with dc_row='separate', got 'binary' \(.*equal\)"),
    (dict(dc_row="separate", hadamard="none"), V, r"hadamard .* with dc_row='separate', got 'none' \(.*\)"),
    (dict(dc_row="separate", hadamard="none_scaled"), V, r"hadamard .*, got 'none_scaled' \(.*\)"),
    (dict(stochastic="b1g,b3x"), V, r"stochastic .*, got .*b3x.*"),
    (dict(range_fraction=0.0), V, r"range_fraction .*, got 0.*"),
    (dict(range_fraction=-0.5), V, r"range_fraction .*, got -0\.5.*"),
    (dict(range_fraction=float("nan")), V, r"range_fraction .*, got -?nan.*"),
    (dict(hadamard="binary", requantize=False), N, r".*(requantize|binary).*, got .*"),
    (dict(seed=-1), V, r"seed .*, got -1"),
    (dict(dtype=torch.int32), T, r"x .*, got .*"),
    (dict(dtype=torch.complex64), T, r"x .*, got .*"),
]
ROWS = [(build(**options), error, text) for build in (linear, conv, conv_norm) for options, error, text in LAYER_ROWS]
ROWS += [
    (
        linear(x=(4, 7)),
        V,
        r"weight\.size\(1\) .*, got .*|x\.size\(-1\) .*, got .*|x .*, got .*|weight .*, got .*",
    ),
    (linear(weight=(8,)), V, r"weight .*, got .*"),
    (linear(weight=(3, 8, 1)), V, r"weight .*, got .*"),
    (linear(x=()), V, r"x .*, got .*"),
    (linear(bias=(4,)), V, r"bias.* .*, got .*"),
    (linear(bias=(1, 3)), V, r"bias.* .*, got .*"),
    (conv(x=(3, 6, 6)), V, r"x .*, got .*"),
    (conv(weight=(4, 3, 3)), V, r"weight .*, got .*"),
    (conv(weight=(4, 1, 3, 3)), V, r"(weight|x)\.?.* .*, got .*"),
    (conv(bias=(3,)), V, r"bias.* .*, got .*"),
    (conv(stride=(0, 1)), V, r"stride .*, got .*0.*"),
    (conv(stride=(1, -2)), V, r"stride .*, got .*-2.*"),
    (conv(padding=(-1, 0)), V, r"padding .*, got .*-1.*"),
    (conv(dilation=(0, 1)), V, r"dilation .*, got .*0.*"),
    (conv(x=(2, 3, 2, 6)), V, r".*, got .*"),
    (conv(conv_backward="sometimes"), V, r"conv_backward .*, got '?\"?sometimes.*"),
    (conv(tile_order="hwck"), V, r"tile_order .*, got '?\"?hwck.*"),
    (conv_norm(gamma=(3,)), V, r"norm_weight to hold one element per output channel, got \[3\] for 4 channels"),
    (conv_norm(beta=(1, 4)), V, r"norm_bias .*, got \[1, 4\] .*"),
    (conv_norm(norm_dtype=torch.int32), T, r"norm_weight .*, got .*"),
    (conv_norm(residual=(2, 4, 6, 6)), V, r"residual to have the output's shape \[2, 4, 4, 4\], got \[2, 4, 6, 6\]"),
    (conv_norm(eps=0.0), V, r"eps > 0, got 0"),
    (conv_norm(x=(1, 3, 3, 3)), V, r"more than 1 value per channel, got 1 .*"),
    (conv_norm(x=(0, 3, 6, 6)), V, r"more than 1 value per channel, got 0 .*"),
    (conv_norm(x=(2, 64, 4, 4), weight=(4, 64, 3, 3), accumulator_bits=32), V, r"sums that fit 16 bits, got .*60480.*"),
    ((ops.quantize, (f32(3), 1), {}), V, r"bits .*, got 1"),
    ((ops.quantize, (f32(3), 9), {}), V, r"bits .*, got 9"),
    ((ops.quantize, (i8(3), 4), {}), T, r"x .*, got .*"),
    ((ops.quantize, (f32(3), 4), dict(range_fraction=-1.0)), V, r"range_fraction .*, got -1.*"),
    ((ops.quantize, (f32(3, 2), 4), dict(scale=f32(2))), V, r"scale.* .*, got .*"),
    ((ops.quantize, (f32(3, 2), 4), dict(scale=f32(3, 2))), V, r"scale.* .*, got .*"),
    ((ops.quantize, (f32(3, 2), 4), dict(scale=i8(3))), T, r"scale .*, got .*"),
    ((ops.quantize, (f32(3), 4), dict(seed=-5)), V, r"seed .*, got -5"),
    ((ops.dequantize, (f32(3), f32()), {}), T, r"codes .*, got .*"),
    ((ops.dequantize, (i8(3, 2), f32(2)), {}), V, r"scale.* .*, got .*"),
    ((ops.dequantize, (i8(3), i8(3)), {}), T, r"scale .*, got .*"),
    ((ops.pack_int4, (f32(3),), {}), T, r"codes .*, got .*"),
    ((ops.pack_int4, (i8(),), {}), V, r"codes .*, got .*"),
    ((ops.unpack_int4, (i8(3), 6), {}), T, r"packed .*, got .*"),
    ((ops.unpack_int4, (u8(3), 7), {}), V, r"size .*, got 7.*"),
    ((ops.unpack_int4, (u8(3), 4), {}), V, r"size .*, got 4.*"),
    ((ops.unpack_int4, (u8(3), -1), {}), V, r"size .*, got -1.*"),
    ((ops.unpack_int4, (u8(), 1), {}), V, r"packed .*, got .*"),
    ((ops.hadamard_transform, (f32(3), 0), dict(hadamard="haar")), V, r"hadamard .*, got '?\"?haar.*"),
    ((ops.hadamard_transform, (f32(3), 0), dict(block=3)), V, r"block .*, got 3"),
    ((ops.hadamard_transform, (f32(3), 0), dict(block=0)), V, r"block .*, got 0"),
    ((ops.hadamard_transform, (f32(3), 1), {}), V, r"dim .*, got 1.*"),
    ((ops.hadamard_transform, (f32(3), -2), {}), V, r"dim .*, got -2.*"),
    ((ops.hadamard_transform, (f32(), 0), {}), V, r"x .*, got .*|dim .*, got .*"),
    ((ops.hadamard_transform, (torch.ones(3, dtype=torch.bool), 0), {}), T, r"x .*, got .*"),
    ((ops.hadamard_transform, (torch.ones(3, dtype=torch.int64), 0), {}), T, r"x .*, got .*"),
    (
        mm(i8(4, 32), i8(31, 8)),
        V,
        r"b\.size\(0\) to equal a\.size\(1\), got 31 and 32 \(a is \[4, 32\], b is \[31, 8\]\)",
    ),
    (mm(i8(4), i8(4, 8)), V, r"a .*, got .*"),
    (mm(i8(4, 4), i8(4, 8, 1)), V, r"b .*, got .*"),
    (mm(f32(4, 4), i8(4, 8)), T, r"a .*, got .*"),
    (mm(u8(4, 4), u8(4, 8)), T, r"b .*, got .*"),
    (mm(i8(4, 4), i8(4, 4), tile_size=-1), V, r"tile_size .*, got -1"),
    (mm(i8(4, 4), i8(4, 4), accumulator_bits=3), V, r"accumulator_bits .*, got 3"),
    (mm(i8(4, 4), i8(4, 4), accumulator_bits=33), V, r"accumulator_bits .*, got 33"),
    (mm(i8(4, 4), i8(4, 4), accumulate="never"), V, r"accumulate .*, got '?\"?never.*"),
    (mm(i8(4, 4), i8(4, 4), overflow="trap"), V, r"overflow .*, got '?\"?trap.*"),
    (mm(u8(1, 65794), i8(65794, 1)), V, r".*65,?793.*, got 65,?794.*"),
    (mm(i8(1, 131072), i8(131072, 1)), V, r".*131,?071.*, got 131,?072.*"),
    (
        (ops.tile_saturation, (i8(4, 32), i8(31, 8)), {}),
        V,
        r"b\.size\(0\) to equal a\.size\(1\), got 31 and 32 .*",
    ),
    ((ops.tile_saturation, (i8(4, 4), i8(4, 4)), dict(tile_size=-2)), V, r"tile_size .*, got -2"),
    ((ops.tile_saturation, (i8(4, 4), i8(4, 4)), dict(accumulator_bits=2)), V, r"accumulator_bits .*, got 2"),
    (lsq(bits=0), V, r"bits in 1\.\.8, got 0"),
    (lsq(bits=9), V, r"bits in 1\.\.8, got 9"),
    (lsq(scale=(4,)), V, r"scale to be 0-dim or to hold one value per x\.size\(0\), got \[4\] \(x is \[3, 4\]\)"),
    (lsq(scale=(3, 1)), V, r"scale to be 0-dim .*, got \[3, 1\] \(x is \[3, 4\]\)"),
    (lsq(x=(), scale=(1,)), V, r"scale to be 0-dim .*, got \[1\] \(x is \[\]\)"),
    (lsq(offset=f32(3)), V, r"offset to have 0 dimensions, got 1 \(offset is \[3\]\)"),
    (lsq(offset=i8()), T, r"offset to be float32, .*, got Char"),
    (lsq(mask_on="sometimes"), V, r"mask_on to be one of 'scaled', 'rounded', got 'sometimes'"),
    ((ops.lsq_quantize, (i8(3), f32(), 4), {}), T, r"x to be float32, .*, got Char"),
    ((ops.lsq_quantize, (f32(3), i8(), 4), {}), T, r"scale to be float32, .*, got Char"),
    ((ops.double_round, (f32(3), 8, 4), {}), T, r"codes to be Char, got Float"),
    ((ops.double_round, (u8(3), 8, 4), {}), T, r"codes to be Char, got Byte"),
    ((ops.double_round, (i8(3), 9, 4), {}), V, r"from_bits in 1\.\.8, got 9"),
    ((ops.double_round, (i8(3), 0, 0), {}), V, r"from_bits in 1\.\.8, got 0"),
    ((ops.double_round, (i8(3), 4, 5), {}), V, r"to_bits in 1\.\.4, got 5"),
    ((ops.double_round, (i8(3), 4, 0), {}), V, r"to_bits in 1\.\.4, got 0"),
    ((ops.double_round, (i8(3), 4, 2), dict(rounding="up")), V, r"rounding to be one of .*'floor', got 'up'"),
    (double_round_quantize(from_bits=9), V, r"from_bits in 1\.\.8, got 9"),
    (double_round_quantize(from_bits=4, to_bits=6), V, r"to_bits in 1\.\.4, got 6"),
    (double_round_quantize(to_bits=0), V, r"to_bits in 1\.\.8, got 0"),
    (double_round_quantize(scale=(2,)), V, r"scale to be 0-dim .*, got \[2\] \(x is \[3, 4\]\)"),
    (double_round_quantize(rounding="nearest"), V, r"rounding to be one of .*, got 'nearest'"),
    (double_round_quantize(weight_source="disk"), V, r"weight_source to be one of 'stored', 'float', got 'disk'"),
    (double_round_quantize(mask_on="x"), V, r"mask_on to be one of .*, got 'x'"),
    (double_round_quantize(scale_residual="none"), V, r"scale_residual to be one of 'double', 'single', got 'none'"),
    (double_round_quantize(scale_grad_sum="x"), V, r"scale_grad_sum to be one of 'channel', 'all', got 'x'"),
    ((ops.double_round_quantize, (i8(3), f32(), 8, 4), {}), T, r"x to be float32, .*, got Char"),
    ((ops.double_round_quantize, (f32(3), i8(), 8, 4), {}), T, r"scale to be float32, .*, got Char"),
]
ROWS += [
    (luq(bits=1), V, r"bits in 2\.\.5, got 1"),
    (luq(bits=6), V, r"bits in 2\.\.5, got 6"),
    (luq(samples=0), V, r"samples in 1\.\.1024, got 0"),
    (luq(samples=1025), V, r"samples in 1\.\.1024, got 1025"),
    (luq(seed=-1), V, r"seed >= 0, got -1"),
    (luq(levels="og"), V, r"levels to be one of 'corrected', 'original', got 'og'"),
    ((ops.luq_quantize, (i8(3),), {"seed": 1}), T, r"x to be float32, .*, got Char"),
    ((ops.luq_codes, (i8(3),), {"seed": 1}), T, r"x to be float32, .*, got Char"),
    ((ops.luq_codes, (f32(3),), {"seed": 1, "bits": 5}), V, r"bits in 2\.\.4, got 5"),
    ((ops.luq_codes, (f32(3),), {"seed": 1, "sample": -1}), V, r"sample in 0\.\.1023, got -1"),
    ((ops.luq_codes, (f32(3),), {"seed": -2}), V, r"seed >= 0, got -2"),
    ((ops.sawb_clip, (i8(3),), {}), T, r"x to be float32, .*, got Char"),
    (minifloat(significand_bits=()), V, r"the length of significand_bits in 1\.\.128, got 0"),
    (minifloat(significand_bits=(0, 3)), V, r"significand_bits in 1\.\.24, got 0"),
    (minifloat(significand_bits=(5, 25)), V, r"significand_bits in 0\.\.24, got 25"),
    (minifloat(significand_bits=(5, -1)), V, r"significand_bits in 0\.\.24, got -1"),
    (minifloat(exponent=f32()), T, r"exponent to be int32 or int64, got Float"),
    (minifloat(exponent=[1, 2]), V, r"exponent to be 0-dim or .*, got \[2\] \(x is \[3, 4\]\)"),
    (minifloat(x=(), exponent=[1]), V, r"exponent to be 0-dim or .*, got \[1\] \(x is \[\]\)"),
    (minifloat(seed=-1), V, r"seed >= 0, got -1"),
    (minifloat(previous=f32(4)), V, r"previous to have the sizes of x, got \[4\] and \[3, 4\]"),
    (minifloat(previous=i8(3, 4)), T, r"previous to be float32, .*, got Char"),
    (minifloat(previous=f32(3, 4), seed=1), V, r"seed to be None where previous is given, got an integer"),
    ((ops.minifloat_quantize, (i8(3), [5], torch.tensor(0)), {}), T, r"x to be float32, .*, got Char"),
    (vecq(bits=0), V, r"bits in 1\.\.16, got 0"),
    (vecq(bits=17), V, r"bits in 1\.\.16, got 17"),
    (vecq(step=f32(4)), V, r"step to be 0-dim or to hold one value, or a row .*, got \[4\] \(x is \[3, 4\]\)"),
    (vecq(step=f32(3, 1, 1)), V, r"step to be 0-dim .*, got \[3, 1, 1\] \(x is \[3, 4\]\)"),
    (vecq(x=(), step=f32(1)), V, r"step to be 0-dim .*, got \[1\] \(x is \[\]\)"),
    (vecq(step=f32(3, 3)), V, r"step\.size\(1\) to divide the elements of x\[0\], got 3 \(x is \[3, 4\]\)"),
    (vecq(step=f32(3, 0)), V, r"step\.size\(1\) to divide .*, got 0 .*"),
    (vecq(step=i8()), T, r"step to be float32, .*, got Char"),
    (vecq(alpha=f32()), V, r"step where alpha is given, got None"),
    (vecq(step=f32(), alpha=f32(3)), V, r"alpha to have the sizes of step, got \[3\] and \[\]"),
    (vecq(step=f32(), alpha=i8()), T, r"alpha to be float32, .*, got Char"),
    (vecq(drive="fast"), V, r"drive to be one of 'projection', 'norm', 'none', got 'fast'"),
    (vecq(grad_mode="x"), V, r"grad_mode to be one of 'ste', 'pwl', 'pwl_c', got 'x'"),
    (vecq(grad_mode="pwl", grad_ratio=1.5), V, r"grad_ratio in \[0, 1\], got 1\.5"),
    (vecq(grad_mode="pwl", grad_ratio=float("nan")), V, r"grad_ratio in \[0, 1\], got -?nan"),
    (vecq(grad_ratio=0.5), V, r"grad_ratio to be 0 with grad_mode 'ste', got 0\.5"),
    ((ops.vecq_quantize, (i8(3), 4), {}), T, r"x to be float32, .*, got Char"),
    (vecq_step(bits=0), V, r"bits in 1\.\.16, got 0"),
    (vecq_step(bits=17), V, r"bits in 1\.\.16, got 17"),
    (vecq_step(group_size=-1), V, r"group_size >= 0, got -1"),
    (vecq_step(group_size=3), V, r"group_size to divide the 4 elements of x\[0\], got 3 \(x is \[3, 4\]\)"),
    (vecq_step(x=(), per_channel=True), V, r"x to have at least 1 dimension, got 0"),
    (vecq_step(x=(), group_size=1), V, r"x to have at least 1 dimension, got 0"),
    (vecq_step(sigma="robust"), V, r"sigma to be one of 'population', 'unbiased', got 'robust'"),
    (vecq_step(lambda_mode="guess"), V, r"lambda_mode to be one of 'table', 'search', got 'guess'"),
    ((ops.vecq_step, (i8(3), 4), {}), T, r"x to be float32, .*, got Char"),
    ((ops.vecq_codes, (f32(3), 17, f32()), {}), V, r"bits in 1\.\.16, got 17"),
    ((ops.vecq_codes, (f32(3), 4, f32(2)), {}), V, r"step to be 0-dim .*, got \[2\] \(x is \[3\]\)"),
    ((ops.vecq_codes, (i8(3), 4, f32()), {}), T, r"x to be float32, .*, got Char"),
    ((ops.vecq_codes, (f32(3), 4, i8()), {}), T, r"step to be float32, .*, got Char"),
    (vecq_activation(bits=17), V, r"bits in 1\.\.16, got 17"),
    (vecq_activation(averages=f32(2)), V, r"averages to hold step, length and the share of their start, got \[2\]"),
    (vecq_activation(averages=i8(3)), T, r"averages to be Float, got Char"),
    (vecq_activation(momentum=1.0), V, r"momentum in \[0, 1\), got 1"),
    (vecq_activation(momentum=-0.1), V, r"momentum in \[0, 1\), got -0\.1"),
    ((ops.vecq_activation, (i8(3), 4, f32(3)), {"training": True}), T, r"x to be float32, .*, got Char"),
    ((ops.vecq_losses, (f32(3, 2), f32(3)), {}), V, r"y to have the sizes of x, got \[3\] and \[3, 2\]"),
    ((ops.vecq_losses, (f32(), f32()), {"per_channel": True}), V, r"x to have at least 1 dimension, got 0"),
    ((ops.vecq_losses, (i8(3), f32(3)), {}), T, r"x to be float32, .*, got Char"),
    ((ops.vecq_losses, (f32(3), i8(3)), {}), T, r"y to be float32, .*, got Char"),
]
INT_ROWS = [
    (dict(scales=((2,), ())), V, r"x_scale to have 0 dimensions, got 1 \(x_scale is \[2\]\)"),
    (
        dict(scales=((), (2,))),
        V,
        r"weight_scale to be 0-dim or to hold one value per output, got \[2\] \([34] outputs\)",
    ),
    (dict(scales=((), (3, 1))), V, r"weight_scale to be 0-dim .*, got \[3, 1\] .*"),
    (dict(bias=f32(2)), V, r"bias to hold one element per output, got bias \[2\] \([34] outputs\)"),
    (dict(bias=i8(3)), T, r"bias to be float32, .*, got Char"),
    (dict(x_zero2=513), V, r"x_zero2 in -512\.\.512, got 513"),
    (dict(weight_zero2=-513), V, r"weight_zero2 in -512\.\.512, got -513"),
    (dict(out_scale=f32(1)), V, r"out_scale to have 0 dimensions, got 1 .*"),
    (dict(out_scale=i8()), T, r"out_scale to be float32, .*, got Char"),
    (dict(out_bits=9), V, r"out_bits in 2\.\.8, got 9"),
    (dict(residual=f32(1, 3)), V, r"residual to have the size of the output, got \[1, 3\] \(the output is \[.*\]\)"),
    (dict(residual=i8(1, 3)), T, r"residual to be float32, .*, got Char"),
    (dict(x=f32(4, 8)), T, r"x to be int8 or uint8, got Float"),
]
AFFINE = dict(x=f32(2, 3, 4), gain=f32(3), shift=f32(3), scale=f32(), bits=4)
AFFINE_ROWS = [
    (dict(x=i8(2, 3, 4)), T, r"x to be float32, .*, got Char"),
    (dict(x=f32(3)), V, r"x to have at least 2 dimensions, got 1"),
    (dict(gain=f32(4)), V, r"gain to hold one value per channel, got \[4\] \(x is \[2, 3, 4\]\)"),
    (dict(shift=f32()), V, r"shift to hold one value per channel, got \[\] .*"),
    (dict(gain=i8(3)), T, r"gain to be float32, .*, got Char"),
    (dict(scale=f32(3)), V, r"scale to have 0 dimensions, got 1 .*"),
    (dict(bits=1), V, r"bits in 2\.\.8, got 1"),
]
ROWS += [((ops.affine_quantize, (), {**AFFINE, **options}), error, text) for options, error, text in AFFINE_ROWS]
ROWS += [(int_linear(**options), error, text) for options, error, text in INT_ROWS]
ROWS += [(int_conv2d(**options), error, text) for options, error, text in INT_ROWS[:-1]]
ROWS += [
    (int_linear(x=u8(4, 7)), V, r"x\.size\(-1\) to equal weight\.size\(1\), got 7 and 8 .*"),
    (int_linear(x=u8()), V, r"x to have at least 1 dimension, got 0"),
    (int_linear(weight=i8(8)), V, r"weight to have 2 dimensions, got 1 .*"),
    (int_linear(weight=u8(3, 8)), T, r"weight to be Char, got Byte"),
    (
        int_linear(x=u8(1, 65794), weight=i8(1, 65794)),
        V,
        r"weight to hold at most 65793 codes per output .*, got 65794 .*",
    ),
    (
        int_linear(x=i8(1, 33026), weight=i8(1, 33026), x_zero2=-1, weight_zero2=-1),
        V,
        r"weight to hold at most 33025 codes .*, got 33026 \(x is Char, x_zero2 is -1, weight_zero2 is -1\)",
    ),
    (int_conv2d(x=f32(2, 3, 6, 6)), T, r"x to be int8 or uint8, got Float"),
    (int_conv2d(weight=i8(4, 2, 3, 3)), V, r"x\.size\(1\) to equal weight\.size\(1\), got 3 and 2 .*"),
    (int_conv2d(weight=i8(4, 3, 7, 3)), V, r"the kernel to fit the padded image, got weight .*"),
    (int_conv2d(geometry=((0, 1), (0, 0), (1, 1))), V, r"stride .*, got .*0.*"),
    (int_conv2d(geometry=((1, 1), (0, -1), (1, 1))), V, r"padding .*, got .*-1.*"),
]


def name_of(call) -> str:
    return str(call[0]).rsplit(".", 1)[-1]


def describe(call) -> str:
    shown = [list(a.shape) if isinstance(a, torch.Tensor) else a for a in call[1]]
    return f"{name_of(call)}-{shown}-{call[2]}"


@pytest.mark.parametrize("place", ["cpu", "meta", "inference"])
@pytest.mark.parametrize("call, error, text", ROWS, ids=[describe(row[0]) for row in ROWS])
def test_refusal(call, error, text, place):
    function, args, options = call
    if place == "meta":
        args, options = (
            [v.to("meta") if isinstance(v, torch.Tensor) else v for v in args],
            {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in options.items()},
        )
    with torch.inference_mode(place == "inference"):
        with pytest.raises(error, match=rf"(?s)^{name_of(call)}: expected ({text})$") as caught:
            function(*args, **options)
    assert type(caught.value) is error
    assert not str(caught.value).endswith(".")


@pytest.mark.parametrize("build", [linear, conv])
def test_gradient_through_a_stochastic_site_needs_a_seed(build):
    function, args, _ = build()
    args = [a.requires_grad_() if isinstance(a, torch.Tensor) else a for a in args]
    with pytest.raises(ValueError, match=rf"^{str(function).rsplit('.', 1)[-1]}: expected seed .*"):
        function(*args).sum().backward()


def layer_calls():
    """Each differentiable op as a function of one tensor, and such a tensor."""
    w, kernel = torch.randn(3, 8), torch.randn(4, 3, 3, 3)
    return {
        "hadamard_linear": (lambda x: ops.hadamard_linear(x, w, seed=1), torch.randn(4, 8)),
        "hadamard_conv2d": (lambda x: ops.hadamard_conv2d(x, kernel, seed=1), torch.randn(2, 3, 5, 5)),
        "hadamard_conv2d_batch_norm": (
            lambda x: ops.hadamard_conv2d_batch_norm(x, kernel, torch.ones(4), torch.zeros(4), seed=1)[0],
            torch.randn(2, 3, 5, 5),
        ),
        "hadamard_transform": (lambda x: ops.hadamard_transform(x), torch.randn(4, 8)),
        "lsq_quantize": (lambda x: ops.lsq_quantize(x, torch.tensor(0.1), 4), torch.randn(4, 8)),
        "luq_quantize": (lambda x: ops.luq_quantize(x, seed=3), torch.randn(4, 8)),
        "minifloat_quantize": (
            lambda x: ops.minifloat_quantize(x, [5, 4, 3, 2, 1, 0], torch.tensor(0)),
            torch.randn(4, 8),
        ),
        "double_round_quantize": (
            lambda x: ops.double_round_quantize(x, torch.tensor(0.02), 8, 4),
            torch.randn(4, 8),
        ),
    }


@pytest.mark.parametrize("name", sorted(layer_calls()))
@pytest.mark.parametrize("transform", ["grad", "vjp", "jacrev", "vmap of grad"])
def test_torch_func_transforms_raise(name, transform):
    call, x = layer_calls()[name]
    total = lambda x: call(x).sum()  # noqa: E731
    use = {
        "grad": lambda: torch.func.grad(total)(x),
        "vjp": lambda: torch.func.vjp(call, x),
        "jacrev": lambda: torch.func.jacrev(call)(x),
        "vmap of grad": lambda: torch.func.vmap(torch.func.grad(total))(torch.stack([x, x])),
    }
    with pytest.raises(RuntimeError, match="cannot use C\\+\\+ torch::autograd::Function with functorch transforms"):
        use[transform]()


@pytest.mark.parametrize("name", sorted(layer_calls()))
def test_forward_mode_is_refused(name):
    """Never a result without its tangent."""
    call, x = layer_calls()[name]
    words = {"hadamard_transform": "jvp is not implemented|functorch"}.get(
        name, f"^{name}: expected inputs without a tangent"
    )
    error = RuntimeError if name == "hadamard_transform" else NotImplementedError
    with pytest.raises(error, match=words):
        torch.func.jvp(call, (x,), (x,))
    with pytest.raises(error, match=words), torch.autograd.forward_ad.dual_level():
        call(torch.autograd.forward_ad.make_dual(x, x))


@pytest.mark.parametrize("name", sorted(layer_calls()))
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_vmap_of_a_forward_is_a_loop(name):
    call, x = layer_calls()[name]
    batch = torch.stack([x, 2 * x.roll(1, 0), x.abs()])
    assert torch.equal(torch.func.vmap(call)(batch), torch.stack([call(sample) for sample in batch]))


def test_unknown_instruction_set_is_refused_at_import():
    done = subprocess.run(
        [sys.executable, "-c", "import quintil"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "QUINTIL_ISA": "abacus", "PYTHONPATH": str(PACKAGE_ROOT)},
    )
    assert done.returncode == 1, "an exception, not a crash"
    assert "abacus" in done.stderr and "scalar" in done.stderr


def test_nothing_is_printed(capfd):
    for call, error, _ in ROWS[:12]:
        with pytest.raises(error):
            call[0](*call[1], **call[2])
    out, err = capfd.readouterr()
    assert out == "" and err == ""
