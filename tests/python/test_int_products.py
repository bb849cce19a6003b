"""`int_linear` and `int_conv2d` against exact sums in float64, and against the float layers on the same grid."""

import itertools

import pytest
import quintil.functional as F
import torch
from conftest import assert_same

ZERO2 = [0, -1, 1, 2, -8, 15, 256, -511]


def codes(shape, dtype, bits):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if dtype == torch.int8 else (0, 2**bits)
    return torch.randint(low, high, shape).to(dtype)


def scaled(quarter_sums, x_scale, weight_scale, bias, dim):
    """float32 of four times the sum, by weight scale, x scale and 1/4, each rounded; then the bias."""
    per_output = lambda t: t.reshape(-1, *[1] * (quarter_sums.dim() - 1 - dim)) if t.dim() else t  # noqa: E731
    y = quarter_sums.float() * per_output(weight_scale) * x_scale * 0.25
    return y if bias is None else y + per_output(bias)


def linear(x, x_scale, w, weight_scale, bias, zero2):
    sums = (2 * x.double() - zero2[0]) @ (2 * w.double() - zero2[1]).t()
    return scaled(sums, x_scale, weight_scale, bias, sums.dim() - 1)


def conv(x, x_scale, w, weight_scale, bias, zero2, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    a, b = 2 * x.double() - zero2[0], 2 * w.double() - zero2[1]  # zero padding comes after the zero point
    sums = torch.nn.functional.conv2d(a, b, None, stride, padding, dilation)
    return scaled(sums, x_scale, weight_scale, bias, 1)


def operands(n, bits, per_output, with_bias):
    weight_scale = torch.rand(n) / 10 + 0.01 if per_output else torch.tensor(0.037)
    return torch.tensor(0.113), weight_scale, torch.randn(n) if with_bias else None


def zeros(z):
    return dict(x_zero2=z[0], weight_zero2=z[1])


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_linear_equals_exact_sums(dtype, bits):
    for (m, k, n), z in itertools.product(
        [(1, 1, 1), (3, 5, 2), (7, 33, 17), (97, 64, 33)], itertools.product(ZERO2, ZERO2)
    ):
        x, w = codes((m, k), dtype, bits), codes((n, k), torch.int8, bits)
        x_scale, weight_scale, bias = operands(n, bits, m % 2 == 1, k % 2 == 1)
        got = F.int_linear(x, x_scale, w, weight_scale, bias, **zeros(z))
        assert got.dtype == torch.float32
        assert_same(got, linear(x, x_scale, w, weight_scale, bias, z), f"{m}x{k}x{n}, zero points {z}")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    "geometry",
    [
        dict(),
        dict(padding=(1, 1)),
        dict(stride=(2, 1), padding=(0, 2)),
        dict(padding=(2, 2), dilation=(2, 2)),
        dict(stride=(3, 3), padding=(3, 1)),
    ],
)
def test_conv_equals_exact_sums(dtype, bits, geometry):
    """Padding contributes nothing, whatever the zero points."""
    for z in itertools.product(ZERO2, ZERO2):
        x, w = codes((2, 3, 7, 6), dtype, bits), codes((5, 3, 3, 3), torch.int8, bits)
        x_scale, weight_scale, bias = operands(5, bits, z[0] == 0, z[1] == 0)
        got = F.int_conv2d(x, x_scale, w, weight_scale, bias, **geometry, **zeros(z))
        assert_same(got, conv(x, x_scale, w, weight_scale, bias, z, **geometry), f"zero points {z}")


def test_extreme_codes():
    """All products at their largest magnitude: nothing saturates on the way, in any lane."""
    k = 2000
    for x_code, w_code, dtype in ((255, -128, torch.uint8), (255, 127, torch.uint8), (-128, -128, torch.int8)):
        x, w = torch.full((3, k), x_code, dtype=dtype), torch.full((40, k), w_code, dtype=torch.int8)
        one = torch.tensor(1.0)
        for z in ((0, 0), (-1, -1), (510, 254)):
            assert_same(F.int_linear(x, one, w, one, **zeros(z)), linear(x, one, w, one, None, z), f"{x_code}, {z}")


def test_half_integer_levels_of_vecq():
    """Codes -8..7 of zero point -1/2 are the levels -7.5 .. 7.5, symmetric: negated codes negate the result."""
    x, w = codes((4, 50), torch.uint8, 4), codes((6, 50), torch.int8, 4)
    one = torch.tensor(1.0)
    y = F.int_linear(x, one, w, one, weight_zero2=-1)
    assert_same(F.int_linear(x, one, -1 - w, one, weight_zero2=-1), -y)
    assert_same(y, (x.double() @ (w.double() + 0.5).t()).float())


def test_integers_reproduce_the_float_layers_on_their_grid():
    """LSQ activations and doubly rounded weights: the float product of grid values, to its rounding."""
    torch.manual_seed(3)
    x, kernel = torch.randn(3, 8, 9, 9).relu(), torch.randn(16, 8, 3, 3) / 8
    step, steps = torch.tensor(0.21), kernel.abs().amax((1, 2, 3)) / 100
    for bits in (8, 4, 2):
        activations = F.lsq_quantize(x, step, bits)
        weights = F.double_round_quantize(kernel, steps, 8, bits)
        want = torch.nn.functional.conv2d(activations.double(), weights.double(), None, 1, 1)
        x_codes = F.quantize(x, bits, signed=False, scale=step)[0]
        stored = F.quantize(kernel, 8, signed=True, narrow=False, scale=steps)[0]
        w_codes = F.double_round(stored, 8, bits)
        got = F.int_conv2d(x_codes, step, w_codes, steps * 2 ** (8 - bits), None, 1, 1)
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))


def test_layouts():
    x, w, scale = codes((3, 4, 6, 5), torch.uint8, 4), codes((7, 4, 3, 3), torch.int8, 4), torch.tensor(0.1)
    want = F.int_conv2d(x, scale, w, scale, None, 1, 1)
    last = F.int_conv2d(x.to(memory_format=torch.channels_last), scale, w, scale, None, 1, 1)
    assert want.is_contiguous() and last.is_contiguous(memory_format=torch.channels_last)
    assert_same(last, want)
    strided = torch.stack([w, w], -1)[..., 0]
    assert_same(F.int_conv2d(x.transpose(2, 3).contiguous().transpose(2, 3), scale, strided, scale, None, 1, 1), want)
    rows, matrix = x.flatten(1), codes((5, 120), torch.int8, 4)
    want = F.int_linear(rows, scale, matrix, scale)
    assert_same(F.int_linear(rows.t().contiguous().t(), scale, matrix.t().contiguous().t(), scale), want)
    assert_same(F.int_linear(rows.reshape(3, 1, 120), scale, matrix, scale), want.reshape(3, 1, 5))
    assert_same(F.int_linear(rows[0], scale, matrix, scale), want[0])


def test_scales_of_other_float_types_and_no_gradient():
    x, w = codes((3, 8), torch.uint8, 4), codes((2, 8), torch.int8, 4)
    scale, bias = torch.tensor(0.25, requires_grad=True), torch.randn(2, requires_grad=True)
    want = F.int_linear(x, scale, w, scale, bias)
    assert not want.requires_grad
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        got = F.int_linear(x, scale.to(dtype), w, scale.to(dtype), bias.double())
        assert got.dtype == torch.float32
        assert_same(got, want)
    assert torch.isnan(F.int_linear(x, torch.tensor(float("nan")), w, scale)).all()


@pytest.mark.parametrize("x_zero2", [0, -1])
def test_empty(x_zero2):
    one, bias = torch.tensor(1.0), torch.tensor([1.0, 2.0, 3.0])
    none = torch.empty(0, 4, dtype=torch.uint8)
    w = codes((3, 4), torch.int8, 4)
    assert F.int_linear(none, one, w, one, x_zero2=x_zero2).shape == (0, 3)
    assert F.int_linear(codes((2, 4), torch.uint8, 4), one, w[:0], one, x_zero2=x_zero2).shape == (2, 0)
    deep = F.int_linear(torch.empty(2, 0, dtype=torch.uint8), one, w[:, :0], one, bias, x_zero2=x_zero2)
    assert deep.tolist() == [[1, 2, 3]] * 2
    image, kernel = torch.empty(0, 4, 5, 5, dtype=torch.uint8), codes((3, 4, 3, 3), torch.int8, 4)
    assert F.int_conv2d(image, one, kernel, one, bias, x_zero2=x_zero2).shape == (0, 3, 3, 3)
    image = codes((2, 4, 5, 5), torch.uint8, 4)
    assert F.int_conv2d(image, one, kernel[:0], one, x_zero2=x_zero2).shape == (2, 0, 3, 3)
    shallow = F.int_conv2d(image[:, :0], one, kernel[:, :0], one, bias, x_zero2=x_zero2)
    assert_same(shallow, bias.reshape(1, 3, 1, 1).expand(2, 3, 3, 3))


@pytest.mark.parametrize("op", [F.int_linear, F.int_conv2d], ids=["linear", "conv2d"])
def test_what_follows_a_product_is_the_same_inside_it(op):
    """Residual, ReLU and quantiser in the op or behind it: the same bits."""
    conv = op is F.int_conv2d
    x, w = (codes((3, 4, 6, 5), torch.uint8, 8), codes((7, 4, 3, 3), torch.int8, 8)) if conv else (
        codes((5, 33), torch.uint8, 8), codes((7, 33), torch.int8, 8))  # fmt: skip
    x_scale, weight_scale, bias = operands(7, 8, True, True)
    plain = op(x, x_scale, w, weight_scale, bias)
    step, residual = plain.abs().mean() / 9, torch.randn_like(plain) * plain.abs().mean()
    for r in (None, residual, residual.double(), residual.transpose(0, 1).contiguous().transpose(0, 1)):
        for relu in (False, True):
            want = plain if r is None else plain + r.float()
            want = want.relu() if relu else want
            assert_same(op(x, x_scale, w, weight_scale, bias, residual=r, relu=relu), want)
            for bits in (8, 3, 2):
                got = op(x, x_scale, w, weight_scale, bias, residual=r, relu=relu, out_scale=step, out_bits=bits)
                assert got.dtype == torch.uint8 and got.stride() == want.stride()
                assert_same(got, F.quantize(want, bits, signed=False, scale=step)[0])
    assert op(x[:0], x_scale, w, weight_scale, bias, out_scale=step).dtype == torch.uint8


def test_affine_codes_are_the_codes_of_the_affine_values():
    for shape in ((3, 5, 4, 6), (7, 5), (2, 5, 3), (0, 5, 4), (2, 0, 3)):
        x, gain, shift = torch.randn(shape), torch.randn(shape[1]), torch.randn(shape[1])
        values = x * gain.reshape(-1, *[1] * (x.dim() - 2)) + shift.reshape(-1, *[1] * (x.dim() - 2))
        step = torch.tensor(0.11)
        for signed, bits in ((False, 8), (False, 2), (True, 4)):
            want = F.quantize(values, bits, signed=signed, narrow=False, scale=step)[0]
            assert_same(F.affine_quantize(x, gain, shift, step, bits, signed=signed), want)
            assert_same(F.affine_quantize(x.double(), gain, shift, step, bits, signed=signed), want)
    image = torch.randn(2, 5, 4, 3).to(memory_format=torch.channels_last)
    got = F.affine_quantize(image, torch.rand(5), torch.rand(5), torch.tensor(0.1), 4)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_deep_and_narrow_products_are_exact():
    """Every tail of the blocks of rows, columns and k."""
    for m, k, n in itertools.product((1, 5, 6, 7, 13), (3, 4, 1023, 1028, 2500), (1, 7, 8, 9, 40)):
        x, w = codes((m, k), torch.uint8, 8), codes((n, k), torch.int8, 8)
        one = torch.tensor(1.0)
        assert_same(F.int_linear(x, one, w, one), (x.double() @ w.double().t()).float())
