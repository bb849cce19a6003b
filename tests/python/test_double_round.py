"""`double_round`: every code and width, the three rules, and the statistics of rounding twice (T1, T2)."""

import pytest
import quintil.functional as F
import reference_double_rounding as reference
import torch
from conftest import assert_same

ALL = torch.arange(-128, 128).to(torch.int8)
WIDTHS = [(h, bits) for h in range(1, 9) for bits in range(1, h + 1)]


@pytest.mark.parametrize("rounding", ["half_even", "half_up", "floor"])
def test_all_codes_at_all_widths(rounding):
    for h, bits in WIDTHS:
        got = F.double_round(ALL, h, bits, rounding=rounding)
        assert got.dtype == torch.int8
        assert_same(got, reference.double_round(ALL, h, bits, rounding), f"{h} to {bits}")


def test_rules_are_those_of_arithmetic_shifts():
    q = ALL.to(torch.int32)
    for d in range(1, 8):
        clamp = lambda t, bits=8 - d: t.clamp(*reference.code_range(bits))  # noqa: E731
        assert_same(F.double_round(ALL, 8, 8 - d, rounding="floor"), clamp(q >> d))
        assert_same(F.double_round(ALL, 8, 8 - d, rounding="half_up"), clamp((q + (1 << (d - 1))) >> d))
        assert_same(F.double_round(ALL, 8, 8 - d), clamp(torch.round(q / 2**d)))


def test_one_bit_has_three_values_and_equal_widths_change_nothing():
    assert F.double_round(ALL, 8, 1).unique().tolist() == [-1, 0, 1]
    assert_same(F.double_round(ALL, 8, 8), ALL)
    assert F.double_round(torch.tensor([7, -8, 3], dtype=torch.int8), 4, 4).tolist() == [7, -8, 3]
    assert F.double_round(torch.tensor([127, -128], dtype=torch.int8), 4, 2).tolist() == [1, -2], "any int8 saturates"


def test_half_up_differs_from_half_even_on_the_odd_ties_t2():
    """h = 8, step 3 sigma / 128: 25.0, 12.5, 6.2, 3.1, 1.6, .8 % at 7..2 bits, and the same error."""
    w = torch.randn(1_000_000)
    step = 3 / 128
    q = torch.round(w / step).clamp(-128, 127).to(torch.int8)
    for bits in range(2, 8):
        even, up = F.double_round(q, 8, bits), F.double_round(q, 8, bits, rounding="half_up")
        share = float((even != up).float().mean())
        assert share == pytest.approx(2.0 ** -(8 - bits + 1), rel=0.03), bits
        error = [float((t * step * 2.0 ** (8 - bits) - w).square().mean()) for t in (even, up)]
        assert error[0] == pytest.approx(error[1], rel=0.02)


@pytest.mark.parametrize("shape", [(0,), (1,), (31,), (4, 0), (3, 5, 7), (2, 3, 4, 5)])
def test_shapes_and_layouts(shape):
    codes = torch.randint(-128, 128, shape).to(torch.int8)
    assert_same(F.double_round(codes, 8, 3), reference.double_round(codes, 8, 3))
    view = codes.transpose(0, -1)
    assert_same(F.double_round(view, 8, 3), reference.double_round(view, 8, 3))
    if codes.dim() == 4:
        last = codes.to(memory_format=torch.channels_last)
        assert F.double_round(last, 8, 3).is_contiguous(memory_format=torch.channels_last)
        assert_same(F.double_round(last, 8, 3), F.double_round(codes, 8, 3))
