"""Stochastic rounding as a law of chance: unbiased, local, uniform, independent between places."""

import math

import numpy as np
import pytest
import reference
import torch
from conftest import SCALAR, assert_same

op = torch.ops.quintil.quantize
ROWS, COLUMNS = (1000, 1024) if SCALAR else (2000, 1024)
FRACTIONS = [0.0, 2.0**-16, 0.01, 0.25, 0.5, 0.9, 1.0]


def is_binomial(ups: int, n: int, p: float) -> bool:
    """Within 5 sigma of p, and the 2^-17 that 16 bits with a half offset may be off."""
    return abs(ups / n - p) <= 5 * math.sqrt(p * (1 - p) / n) + 2.0**-17


@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("whole, sign", [(0, 1), (2, 1), (2, -1), (6, -1)])
def test_up_with_the_probability_of_the_fraction(fraction, whole, sign):
    n = ROWS * COLUMNS
    x = torch.full((ROWS, COLUMNS), sign * (whole + fraction))
    codes, _ = op(x, 4, scale=torch.tensor(1.0), seed=int(fraction * 1000) + whole)
    magnitudes = codes.to(torch.int64) * sign
    ups = int((magnitudes == whole + 1).sum())
    assert int((magnitudes == whole).sum()) + ups == n, "a code more than one step away"
    assert is_binomial(ups, n, fraction), ups / n
    if fraction in (0.0, 1.0):
        assert ups == n * fraction


def test_control_a_misaligned_bias_is_noticed():
    """The same check must refuse a random word that is one bit off, and one with an offset of 2^-8."""
    r = torch.from_numpy(reference.random_bits(1, 0, np.arange(1000)[:, None], np.arange(1024)[None, :]))
    n = r.numel()
    for p in (0.25, 0.5):
        assert is_binomial(int((r + 0.5 < 65536 * p).sum()), n, p)
        assert not is_binomial(int((r // 2 + 0.5 < 65536 * p).sum()), n, p)
        assert not is_binomial(int((r - 256 < 65536 * p).sum()), n, p)
    assert not is_binomial(int((r < 65536 * 2.0**-16 + 64).sum()), n, 2.0**-16)


def test_integers_never_move_and_codes_stay_within_one_step():
    whole = torch.randint(-7, 8, (300, 400)).float()
    assert_same(op(whole, 4, scale=torch.tensor(1.0), seed=5)[0], whole.to(torch.int64))
    x = torch.rand(300, 400) * 14 - 7
    codes = op(x, 4, scale=torch.tensor(1.0), seed=5)[0].float()
    assert float((codes - x).abs().max()) < 1
    assert not bool((codes * x < 0).any())
    assert int(codes.abs().max()) == 7


def test_published_fraction_t5():
    """u = 2.25 gives 3 with probability 1/4; the mean of the draws tends to u."""
    u = torch.full((ROWS, COLUMNS), 2.25)
    codes = op(u, 4, scale=torch.tensor(1.0), seed=17)[0].double()
    assert set(codes.unique().tolist()) == {2.0, 3.0}
    sigma = math.sqrt(0.25 * 0.75 / codes.numel())
    assert abs(float(codes.mean()) - 2.25) < 5 * sigma


def test_philox_known_answers():
    for counter, key, words in (
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ):
        assert " ".join(f"{int(w):08x}" for w in reference.philox4x32(counter, key)) == words


def draws(seed: int, rows: int = 4, columns: int = 700) -> torch.Tensor:
    """Rounded halves: the top bit of each r."""
    return op(torch.full((rows, columns), 0.5), 4, scale=torch.tensor(1.0), seed=seed)[0]


def test_every_seed_bit_is_used():
    base = draws(0)
    for bit in range(62):
        changed = float((draws(1 << bit) != base).double().mean())
        assert 0.4 < changed < 0.6, f"seed bit {bit}: {changed}"


def test_every_row_bit_and_column_matter():
    """The map of N6 over many rows and columns, read element by element."""
    for seed in (0, 2**62 - 1):
        codes = draws(seed, 5000, 33)
        r = reference.random_bits(seed, 0, np.arange(5000)[:, None], np.arange(33)[None, :])
        assert_same(codes, torch.from_numpy((r + 0.5 < 32768).astype(np.int64)))
    far = reference.random_bits(1, 0, np.array([[0], [1 << 32], [1 << 63]], dtype=np.uint64), np.arange(64)[None, :])
    assert (far[0] != far[1]).any() and (far[0] != far[2]).any()


def test_bits_are_uniform_and_sites_independent():
    """Chi-square over 256 bins at a million draws; two sites agree no more often than chance."""
    rows, columns = np.arange(1000)[:, None], np.arange(1024)[None, :]
    drawn = {site: reference.random_bits(42, site, rows, columns) for site in range(7)}
    n = rows.size * columns.size
    for site, r in drawn.items():
        for part in (r & 255, r >> 8) if site != reference.SITES["b2a"] else (r,):
            counts = np.bincount(part.ravel(), minlength=256)
            chi = float(((counts - n / 256) ** 2 / (n / 256)).sum())
            assert abs(chi - 255) < 6 * math.sqrt(2 * 255), f"site {site}: {chi}"
    for a in range(7):
        for b in range(a + 1, 7):
            agree = float(((drawn[a] & 255) == (drawn[b] & 255)).mean())
            assert abs(agree - 1 / 256) < 6 * math.sqrt(1 / 256 / n), (a, b)


def test_midpoints_after_a_hadamard_transform():
    """Transformed values that are exact midpoints go up and down equally often, never off the grid."""
    n, rows = 64, 4000
    halves = torch.randint(-6, 6, (rows, n)).float() + 0.5
    halves[:, 0] = 6.5
    x = torch.ops.quintil.hadamard_transform(halves, hadamard="divisor") / n
    z = torch.ops.quintil.hadamard_transform(x, hadamard="divisor")
    assert_same(z, halves)
    one = torch.tensor(1.0)
    codes = op(z, 4, scale=one, seed=3)[0].float()
    up = codes > z
    assert bool(((codes - z).abs() == 0.5).all())
    assert is_binomial(int(up.sum()), up.numel(), 0.5)
    nearest = op(z, 4, scale=one)[0].float()
    assert_same(nearest, torch.round(halves))


def test_zero_and_near_zero_blocks_give_no_nan():
    for size in (0.0, 1e-45, 1e-38, 1e-30):
        z = torch.ops.quintil.hadamard_transform(torch.full((3, 64), size), hadamard="divisor")
        for seed in (None, 1):
            codes, scale = op(z, 4, seed=seed)
            assert bool(scale.isfinite()) and int(codes.abs().max()) <= 7
            assert_same(codes, reference.quantize(z, 4, seed=seed)[0])


@pytest.mark.parametrize("site, levels", [("b1g", 65536), ("b2g", 65536), ("b2a", 256)])
def test_resolution_of_the_backward_sites(site, levels):
    """B2's activations draw 8 bits: a fraction below 2^-9 then never rounds up; a gradient's does."""
    n, k = 64, 512
    x = torch.zeros(n, k)
    x[:, 0] = 1.0
    g = torch.zeros(n, k)
    fraction = 1 / 1024
    g[:, 1:], g[:, 0] = fraction, 7.0
    seed = 9
    codes, _ = reference.quantize(g, 4, seed=seed, site=reference.SITES[site])
    ups = int(codes[:, 1:].sum())
    assert (ups == 0) if levels == 256 else is_binomial(ups, n * (k - 1), fraction)
    w = torch.eye(k)
    upstream = g if site != "b2a" else torch.eye(n, k)
    options = dict(hadamard="none", accumulator_bits=32, stochastic=site, bits=4, range_fraction=1.0)
    leaf_x = (g if site == "b2a" else x).clone().requires_grad_()
    leaf_w = w.clone().requires_grad_()
    y = torch.ops.quintil.hadamard_linear(leaf_x, leaf_w, seed=seed, **options)
    dx, dw = torch.autograd.grad(y, (leaf_x, leaf_w), upstream)
    want = reference.hadamard_linear_backward(leaf_x.detach(), w, upstream, reference.Options(**options), seed)
    assert_same(dx, want[0])
    assert_same(dw, want[1])
