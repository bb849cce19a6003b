"""Refusals of the quantisers: LSQ, Double Rounding, LUQ, minifloats. The same on CPU, Meta and in inference_mode."""

import torch
from refusals import T, V, check_refusal, every_row, f32, i8, u8

ops = torch.ops.quintil


def lsq(x=(3, 4), scale=(), bits=4, **options):
    return ops.lsq_quantize, (f32(*x), f32(*scale), bits), options


def double_round_quantize(x=(3, 4), scale=(), from_bits=8, to_bits=4, **options):
    return ops.double_round_quantize, (f32(*x), f32(*scale), from_bits, to_bits), options


def luq(x=(3, 4), seed=1, **options):
    return ops.luq_quantize, (f32(*x),), {"seed": seed, **options}


def minifloat(x=(3, 4), significand_bits=(5, 4, 3), exponent=0, **options):
    exponent = torch.tensor(exponent) if isinstance(exponent, (int, list)) else exponent
    return ops.minifloat_quantize, (f32(*x), list(significand_bits), exponent), options


ROWS = [
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
]


@every_row(ROWS)
def test_refusal(call, error, text, place):
    check_refusal(call, error, text, place)
