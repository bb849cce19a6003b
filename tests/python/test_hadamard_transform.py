"""`hadamard_transform` against dense matrices (integers) and the butterfly order of N7 (floats), exactly."""

import pytest
import quintil.functional as F
import reference
import scipy.linalg
import torch
from conftest import assert_same
from hypothesis import given
from hypothesis import strategies as st

op = torch.ops.quintil.hadamard_transform
MODES = ["divisor", "binary", "padded", "none"]
SIZES = [1, 2, 3, 8, 10, 49, 64, 65, 100, 405, 561, 768]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", SIZES)
def test_integers_equal_the_dense_matrix(mode, n):
    for dtype, low, high in (
        (torch.int8, -128, 128),
        (torch.uint8, 0, 256),
        (torch.int16, -2000, 2000),
        (torch.int32, -9000, 9000),
    ):
        x = torch.randint(low, high, (5, n)).to(dtype)
        got = op(x, -1, hadamard=mode)
        assert got.dtype == torch.int32
        assert_same(got, reference.hadamard_transform(x, hadamard=mode))
        assert_same(op(x.t().contiguous(), 0, hadamard=mode), got.t())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", SIZES)
def test_floats_equal_the_butterfly_order(mode, n):
    x = torch.randn(7, n)
    got = op(x, -1, hadamard=mode)
    assert_same(got, reference.hadamard_transform(x, hadamard=mode))
    assert_same(op(x.t(), 0, hadamard=mode), got.t())
    image = torch.randn(2, n, 3, 2)
    assert_same(op(image, 1, hadamard=mode), reference.hadamard_transform(image, 1, hadamard=mode))


@pytest.mark.parametrize("block", [1, 2, 16, 32, 64, 128, 1024])
def test_padded_blocks(block):
    for n in (1, 5, 63, 64, 65, 200):
        x = torch.randn(3, n)
        order = min(block, reference.next_power_of_two(n))
        got = op(x, 1, hadamard="padded", block=block)
        assert got.size(1) == order * -(-n // order)
        assert_same(got, reference.hadamard_transform(x, 1, hadamard="padded", block=block))


def test_published_vector_and_layouts_t3():
    assert F.hadamard_transform(torch.tensor([1, 2, 3, 4], dtype=torch.int8)).tolist() == [10, -2, -4, 0]
    assert reference.hadamard_blocks(405, "binary") == [256, 128, 16, 4, 1]
    assert reference.hadamard_blocks(561, "binary") == [512, 32, 16, 1]
    assert reference.hadamard_blocks(243, "binary") == [128, 64, 32, 16, 2, 1]
    orders = {
        2: 2,
        4: 4,
        6: 2,
        8: 8,
        10: 2,
        11: 1,
        12: 4,
        14: 2,
        16: 16,
        18: 2,
        19: 1,
        20: 4,
        40: 8,
        60: 4,
        80: 16,
        100: 4,
        72: 8,
    }
    for n, p in orders.items():
        ones = op(torch.ones(1, n, dtype=torch.int8), hadamard="divisor")
        assert ones.tolist() == [([p] + [0] * (p - 1)) * (n // p)], n


@pytest.mark.parametrize("n", [1, 2, 16, 64, 512, 2048])
def test_matrix_is_sylvester_and_its_own_inverse(n):
    matrix = op(torch.eye(n, dtype=torch.int8), hadamard="divisor")
    assert_same(matrix, torch.from_numpy(scipy.linalg.hadamard(n)))
    x = torch.randint(-7, 8, (3, n)).to(torch.int8)
    assert_same(op(op(x, hadamard="divisor"), hadamard="divisor"), n * x.int())


@pytest.mark.parametrize("p, code", [(4096, 7), (4096, -7), (2048, 15), (256, 127), (8192, 127), (8192, -128)])
def test_extreme_codes_do_not_overflow(p, code):
    dtype = torch.uint8 if code == 15 else torch.int8
    x = torch.full((2, p), code, dtype=dtype)
    got = op(x, hadamard="divisor")
    assert got[0, 0] == p * code and not got[:, 1:].any()
    signs = torch.from_numpy(scipy.linalg.hadamard(p)[p - 1])  # the last row: every stage adds magnitudes
    if code != 15:
        spike = op((signs * min(abs(code), 127)).to(torch.int8)[None], hadamard="divisor")
        assert spike[0, p - 1] == p * min(abs(code), 127) and spike.count_nonzero() == 1


@given(st.integers(1, 70), st.sampled_from(MODES), st.integers(0, 2**31))
def test_linear_over_integers(n, mode, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randint(-1000, 1000, (2, n), generator=generator, dtype=torch.int32) for _ in range(2))
    assert_same(op(3 * a - b, hadamard=mode), 3 * op(a, hadamard=mode) - op(b, hadamard=mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", [1, 6, 65, 100])
def test_gradient_is_the_transposed_transform(mode, n):
    x = torch.randn(4, n, requires_grad=True)
    y = F.hadamard_transform(x, hadamard=mode)
    g = torch.randn_like(y)
    (dx,) = torch.autograd.grad(y, x, g)
    assert_same(dx, reference.hadamard_transform(g, hadamard="padded" if mode == "padded" else mode)[:, :n])
    dense = reference.hadamard_matrix(n, mode).double()
    assert torch.allclose(dx.double(), g.double() @ dense, atol=1e-4)


def test_float_error_below_twice_that_of_a_matmul():
    x = torch.randn(64, 512)
    exact = x.double() @ torch.from_numpy(scipy.linalg.hadamard(512)).double()
    ours = (op(x, hadamard="divisor").double() - exact).norm()
    theirs = (x @ torch.from_numpy(scipy.linalg.hadamard(512)).float() - exact.float()).double().norm()
    assert ours <= 2 * theirs


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_cast(dtype):
    x = torch.randn(3, 20).to(dtype)
    got = op(x)
    assert got.dtype == dtype
    assert_same(got, reference.hadamard_transform(x.float()).to(dtype))


def test_strides_empty_and_scalars_of_an_axis():
    base = torch.randn(6, 8, 10)
    for view in (base.transpose(0, 2), base[::2, ::3], base[:, :1].expand(6, 4, 10)):
        for dim in (0, 1, 2, -1, -3):
            assert_same(op(view, dim), reference.hadamard_transform(view, dim))
    assert op(torch.empty(0, 8)).shape == (0, 8)
    assert op(torch.empty(3, 0)).shape == (3, 0)
    assert op(torch.empty(0, 5), 1).shape == (0, 8)


def test_separable_equals_plain():
    """H over row-major positions is H over rows times H over columns."""
    x = torch.randint(-7, 8, (8, 16, 3)).to(torch.int8)
    plain = op(x.reshape(128, 3), 0, hadamard="divisor")
    split = op(op(x, 1, hadamard="divisor"), 0, hadamard="divisor")
    assert_same(split.reshape(128, 3), plain)
