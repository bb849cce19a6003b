"""`tiled_int_mm` and `tile_saturation` against an int64 loop with an explicit register."""

import itertools

import pytest
import quintil.functional as F
import reference
import torch
from conftest import assert_same
from hypothesis import given
from hypothesis import strategies as st

op = torch.ops.quintil.tiled_int_mm
CODES = {
    "u4": (0, 15, torch.uint8),
    "s4": (-7, 7, torch.int8),
    "s4 full": (-8, 7, torch.int8),
    "u8": (0, 255, torch.uint8),
    "s8": (-128, 127, torch.int8),
    "s2": (-1, 1, torch.int8),
    "u6": (0, 63, torch.uint8),
}
SHAPES = [
    (1, 1, 1),
    (2, 3, 5),
    (6, 32, 16),
    (7, 33, 17),
    (13, 64, 31),
    (5, 65, 32),
    (12, 100, 33),
    (4, 129, 48),
]


def codes(kind: str, *shape: int) -> torch.Tensor:
    low, high, dtype = CODES[kind]
    return torch.randint(low, high + 1, shape).to(dtype)


def check(a, b, **register):
    assert_same(
        op(a, b, **register),
        reference.tiled_int_mm(a, b, **register),
        f"{list(a.shape)} x {list(b.shape)} {register}",
    )


@pytest.mark.parametrize(
    "accumulate, overflow", list(itertools.product(["tile_end", "every_mac"], ["saturate", "wrap"]))
)
@pytest.mark.parametrize(
    "kinds", [("u4", "s4"), ("s4", "s4"), ("s4 full", "s4 full"), ("u8", "s8"), ("s8", "s8"), ("u6", "s2")]
)
def test_equals_the_register_loop(accumulate, overflow, kinds):
    for (m, k, n), bits in zip(SHAPES, itertools.cycle([8, 4, 12, 16, 32])):
        a, b = codes(kinds[0], m, k), codes(kinds[1], k, n)
        for tile in (0, 1, 3, 21, 32, 33, 64):
            check(a, b, tile_size=tile, accumulator_bits=bits, accumulate=accumulate, overflow=overflow)


@pytest.mark.parametrize("bits", [4, 5, 6, 7, 8, 10, 12, 13, 16, 20, 31, 32])
def test_every_accumulator_width(bits):
    for kinds in (("u4", "s4"), ("s8", "s8")):
        a, b = codes(kinds[0], 9, 70), codes(kinds[1], 70, 18)
        for accumulate, overflow in itertools.product(["tile_end", "every_mac"], ["saturate", "wrap"]):
            check(a, b, accumulator_bits=bits, accumulate=accumulate, overflow=overflow)


def test_extreme_codes_t2():
    a, b = torch.full((3, 64), 15, dtype=torch.uint8), torch.full((64, 17), 7, dtype=torch.int8)
    for tile, bits, want in (
        (32, 32, 6720),
        (32, 8, 254),
        (32, 12, 4094),
        (32, 13, 6720),
        (64, 8, 127),
        (0, 8, 127),
    ):
        got = F.tiled_int_mm(a, b, tile_size=tile, accumulator_bits=bits)
        assert bool((got == want).all()), (tile, bits)
    up_down = torch.cat([torch.full((16, 1), 7), torch.full((16, 1), -7)]).to(torch.int8)
    assert op(a[:1, :32], up_down).item() == 0
    assert op(a[:1, :32], up_down, accumulate="every_mac").item() == -127


@pytest.mark.parametrize("bits", [4, 6, 8, 10])
def test_sums_around_the_limit(bits):
    """Tile sums L-1, L, L+1 and their negatives, in every tile of three."""
    limit = 2 ** (bits - 1) - 1
    sums = torch.tensor([limit - 1, limit, limit + 1, limit + 2, -limit + 1, -limit, -limit - 1, -limit - 2])
    a = torch.zeros(8, 96, dtype=torch.int64)
    for tile in range(3):
        for place in range(32):  # spread a sum over the tile in steps of at most 40
            rest = sums - a[:, tile * 32 : tile * 32 + 32].sum(1)
            a[:, tile * 32 + (place * 5) % 32] = rest.clamp(-40, 40)
    assert bool((a.reshape(8, 3, 32).sum(2) == sums[:, None]).all())
    b = torch.ones(96, 5, dtype=torch.int8)
    for overflow in ("saturate", "wrap"):
        check(a.to(torch.int8), b, accumulator_bits=bits, overflow=overflow)
    want = 3 * sums.clamp(-limit, limit)
    assert_same(op(a.to(torch.int8), b, accumulator_bits=bits)[:, 0], want)
    wrapped = 3 * ((sums + limit + 1) % (2 * limit + 2) - limit - 1)
    assert_same(op(a.to(torch.int8), b, accumulator_bits=bits, overflow="wrap")[:, 0], wrapped)


def test_order_of_k_matters_for_every_mac_only():
    a = torch.full((1, 32), 15, dtype=torch.uint8)
    b = torch.cat([torch.full((16, 1), 7), torch.full((16, 1), -7)]).to(torch.int8)
    backwards = b.flip(0)
    assert op(a, b, accumulate="every_mac").item() == -127 and op(a, backwards, accumulate="every_mac").item() == 127
    for options in (dict(accumulate="every_mac", overflow="wrap"), dict(overflow="wrap"), {}):
        assert op(a, b, **options).item() == op(a, backwards, **options).item()


@pytest.mark.parametrize(
    "high, low_b, high_b", [(15, -8, 7), (15, -7, 8), (8, -8, 8), (18, -7, 7), (19, -7, 7), (127, -1, 1), (16, -8, 7)]
)
def test_every_mac_on_both_sides_of_the_narrowest_register(high, low_b, high_b):
    """Products of 126 and 127 fit a byte, 128 and 133 do not; 8 is no 4-bit code."""
    for dtype, low in ((torch.uint8, 0), (torch.int8, -high)):
        a = torch.randint(low, high + 1, (37, 83)).to(dtype)
        b = torch.randint(low_b, high_b + 1, (83, 150)).to(torch.int8)
        a[0, 0], a[1], b[0, 0], b[0, 1], b[:, 2] = low, high, low_b, high_b, low_b
        for bits, tile in ((4, 32), (7, 0), (8, 32), (8, 3), (9, 21), (16, 0), (17, 0)):
            for right in (b, b.t().contiguous().t()):
                check(a, right, accumulator_bits=bits, tile_size=tile, accumulate="every_mac")


def test_wrap_is_the_same_in_both_modes():
    a, b = codes("u8", 7, 75), codes("s8", 75, 20)
    for bits in (4, 8, 11, 16):
        one, other = (
            op(a, b, accumulator_bits=bits, accumulate=mode, overflow="wrap") for mode in ("tile_end", "every_mac")
        )
        assert_same(one, other)


@pytest.mark.parametrize(
    "bits, kinds, tiles",
    [(8, ("u4", "s4"), 259), (12, ("u4", "s4"), 17), (32, ("u4", "s4"), 10), (12, ("s4", "s4"), 22)],
)
def test_many_saturated_tiles_do_not_overflow(bits, kinds, tiles):
    """One tile more than an int16 sum of clamped tiles can hold, all at the same limit."""
    high = {"u4": 15, "s4": 7}
    depth = tiles * 32 + 5
    a = torch.full((3, depth), high[kinds[0]], dtype=CODES[kinds[0]][2])
    for sign in (1, -1):
        b = torch.full((depth, 17), sign * high[kinds[1]], dtype=torch.int8)
        check(a, b, accumulator_bits=bits)


@pytest.mark.parametrize("tile", [0, 300, 700])
def test_long_tiles(tile):
    for kinds in (("u4", "s4"), ("s4", "s4"), ("u8", "s8")):
        high = [CODES[k][1] for k in kinds]
        a = torch.full((2, 1400), high[0], dtype=CODES[kinds[0]][2])
        b = torch.full((1400, 16), high[1], dtype=torch.int8)
        for bits in (16, 32):
            check(a, b, tile_size=tile, accumulator_bits=bits)


def test_no_overflow_bound_of_a2q():
    """Every tile's l1 norm of b times max a is at most L: nothing clamps, the product is exact."""
    a = codes("u4", 20, 96)
    b = torch.zeros(96, 24, dtype=torch.int8)
    for column in range(24):
        for tile in range(3):
            b[tile * 32 + torch.randperm(32)[:8], column] = torch.tensor([1, -1] * 4, dtype=torch.int8)
    assert int(b.abs().reshape(3, 32, 24).sum(1).max()) * 15 <= 127
    assert int(torch.ops.quintil.tile_saturation(a, b)) == 0
    exact = a.to(torch.int64) @ b.to(torch.int64)
    for accumulate in ("tile_end", "every_mac"):
        assert_same(op(a, b, accumulate=accumulate), exact)


def test_without_a_limit_equals_torch_int_mm():
    a, b = codes("s8", 40, 72), codes("s8", 72, 24)
    assert_same(op(a, b, accumulator_bits=32), torch._int_mm(a, b))
    assert op(a, b).dtype == torch.int32


def test_strides():
    a, b = codes("s4", 40, 100), codes("s4", 100, 30)
    for left in (a, a.t().contiguous().t(), codes("s4", 80, 200)[::2, ::2], a[:1].expand(40, 100)):
        for right in (b, b.t().contiguous().t(), codes("s4", 300, 60)[::3, ::2], b[:, :1].expand(100, 30)):
            assert_same(op(left, right), op(left.contiguous(), right.contiguous()))
    check(a.t().contiguous().t(), b)


@pytest.mark.parametrize("m, k, n", [(0, 5, 3), (4, 0, 3), (4, 5, 0), (0, 0, 0)])
def test_empty(m, k, n):
    for dtype in (torch.int8, torch.uint8):
        got = op(torch.zeros(m, k, dtype=dtype), torch.zeros(k, n, dtype=torch.int8))
        assert got.shape == (m, n) and not got.any()
        assert (
            int(torch.ops.quintil.tile_saturation(torch.zeros(m, k, dtype=dtype), torch.zeros(k, n, dtype=torch.int8)))
            == 0
        )


@pytest.mark.parametrize("bits", [4, 8, 12, 32])
@pytest.mark.parametrize("tile", [0, 7, 32])
def test_tile_saturation(bits, tile):
    for kinds in (("u4", "s4"), ("u8", "s8")):
        a, b = codes(kinds[0], 23, 70), codes(kinds[1], 70, 19)
        got = F.tile_saturation(a, b, tile_size=tile, accumulator_bits=bits)
        assert got.dtype == torch.int64 and got.shape == ()
        assert int(got) == reference.tile_saturation(a, b, tile_size=tile, accumulator_bits=bits)


@given(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 20), st.integers(1, 90), st.integers(1, 40)),
    st.sampled_from(sorted(CODES)),
    st.sampled_from(["s4", "s8", "s2"]),
    st.integers(0, 70),
    st.integers(4, 32),
    st.sampled_from(["tile_end", "every_mac"]),
    st.sampled_from(["saturate", "wrap"]),
)
def test_any_shape_and_register(seed, shape, left, right, tile, bits, accumulate, overflow):
    torch.manual_seed(seed)
    m, k, n = shape
    check(
        codes(left, m, k),
        codes(right, k, n),
        tile_size=tile,
        accumulator_bits=bits,
        accumulate=accumulate,
        overflow=overflow,
    )
