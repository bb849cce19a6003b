"""Refusals of the ops on codes: quantise, pack, transform, multiply. The same from CPU, Meta and inference_mode."""

import torch
from refusals import T, V, check_refusal, every_row, f32, i8, u8

ops = torch.ops.quintil


def mm(a, b, **options):
    return ops.tiled_int_mm, (a, b), options


ROWS = [
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
]


@every_row(ROWS)
def test_refusal(call, error, text, place):
    check_refusal(call, error, text, place)
