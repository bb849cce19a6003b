"""Refusals of integer inference: linear, convolution, affine quantiser. The same from CPU, Meta and inference_mode."""

import torch
from refusals import T, V, check_refusal, every_row, f32, i8, u8

ops = torch.ops.quintil


def int_linear(x=None, weight=None, scales=((), ()), bias=None, **options):
    x, weight = u8(4, 8) if x is None else x, i8(3, 8) if weight is None else weight
    return ops.int_linear, (x, f32(*scales[0]), weight, f32(*scales[1]), bias), options


def int_conv2d(x=None, weight=None, scales=((), ()), bias=None, geometry=((1, 1), (0, 0), (1, 1)), **options):
    x, weight = u8(2, 3, 6, 6) if x is None else x, i8(4, 3, 3, 3) if weight is None else weight
    return ops.int_conv2d, (x, f32(*scales[0]), weight, f32(*scales[1]), bias, *map(list, geometry)), options


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
ROWS = [((ops.affine_quantize, (), {**AFFINE, **options}), error, text) for options, error, text in AFFINE_ROWS]
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


@every_row(ROWS)
def test_refusal(call, error, text, place):
    check_refusal(call, error, text, place)
