"""Refusals of the Hadamard layers: call, exception class, text. The same from CPU, Meta and under inference_mode."""

import pytest
import torch
from refusals import N, T, V, check_refusal, every_row, f32

ops = torch.ops.quintil


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
]


@every_row(ROWS)
def test_refusal(call, error, text, place):
    check_refusal(call, error, text, place)


@pytest.mark.parametrize("build", [linear, conv])
def test_gradient_through_a_stochastic_site_needs_a_seed(build):
    function, args, _ = build()
    args = [a.requires_grad_() if isinstance(a, torch.Tensor) else a for a in args]
    with pytest.raises(ValueError, match=rf"^{str(function).rsplit('.', 1)[-1]}: expected seed .*"):
        function(*args).sum().backward()


def test_nothing_is_printed(capfd):
    for call, error, _ in ROWS[:12]:
        with pytest.raises(error):
            call[0](*call[1], **call[2])
    out, err = capfd.readouterr()
    assert out == "" and err == ""
