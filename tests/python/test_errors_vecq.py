"""Refusals of the ops of VecQ. The same from CPU, Meta and under inference_mode."""

import torch
from refusals import T, V, check_refusal, every_row, f32, i8

ops = torch.ops.quintil


def vecq(x=(3, 4), bits=4, **options):
    return ops.vecq_quantize, (f32(*x), bits), options


def vecq_step(x=(3, 4), bits=4, **options):
    return ops.vecq_step, (f32(*x), bits), options


def vecq_activation(x=(3, 4), bits=4, averages=None, **options):
    averages = f32(3) if averages is None else averages
    return ops.vecq_activation, (f32(*x), bits, averages), {"training": True, **options}


ROWS = [
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


@every_row(ROWS)
def test_refusal(call, error, text, place):
    check_refusal(call, error, text, place)
