"""Two codes per byte: every pair, odd lengths, every layout."""

import pytest
import quintil.functional as F
import reference
import torch
from conftest import assert_same
from hypothesis import given
from hypothesis import strategies as st

pack, unpack = torch.ops.quintil.pack_int4, torch.ops.quintil.unpack_int4


@pytest.mark.parametrize("signed", [True, False])
def test_all_256_pairs(signed):
    values = torch.arange(-8, 8, dtype=torch.int8) if signed else torch.arange(16, dtype=torch.uint8)
    pairs = torch.cartesian_prod(values, values)
    packed = pack(pairs)
    assert packed.dtype == torch.uint8 and packed.shape == (256, 1)
    assert len(packed.unique()) == 256
    assert_same(packed, reference.pack_int4(pairs))
    back = unpack(packed, 2, signed=signed)
    assert back.dtype == values.dtype
    assert_same(back, pairs)


def test_low_nibble_first_and_pad_is_zero():
    assert pack(torch.tensor([1, 2, 3], dtype=torch.int8)).tolist() == [0x21, 0x03]
    assert pack(torch.tensor([-1, -8, -7], dtype=torch.int8)).tolist() == [0x8F, 0x09]


@pytest.mark.parametrize(
    "shape",
    [(1,), (2,), (31,), (32,), (33,), (127,), (5, 1), (3, 64), (4, 65), (2, 3, 7), (1, 0), (0, 6), (0,)],
)
def test_round_trip(shape):
    for signed, low, high, dtype in ((True, -8, 8, torch.int8), (False, 0, 16, torch.uint8)):
        codes = torch.randint(low, high, shape).to(dtype)
        packed = F.pack_int4(codes)
        assert packed.shape == (*shape[:-1], (shape[-1] + 1) // 2)
        assert_same(packed, reference.pack_int4(codes))
        assert_same(F.unpack_int4(packed, shape[-1], signed=signed), codes)
        assert_same(reference.unpack_int4(packed, shape[-1], signed), codes)


def test_strided_views():
    codes = torch.randint(-8, 8, (10, 9, 6)).to(torch.int8)
    for view in (codes.transpose(0, 2), codes[::3, :, 1::2], codes[..., :1].expand(10, 9, 5)):
        packed = pack(view)
        assert_same(packed, reference.pack_int4(view))
        wide = torch.stack([packed, packed], -1)[..., 0]
        assert_same(unpack(wide, view.size(-1)), view)


@given(st.lists(st.integers(-8, 7), max_size=80))
def test_round_trip_of_any_list(values):
    codes = torch.tensor(values, dtype=torch.int8)
    assert unpack(pack(codes), len(values)).tolist() == values
