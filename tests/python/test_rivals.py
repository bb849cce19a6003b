"""Quantisers that VecQ is compared with: their equations, their optimality, and where VecQ stands among them."""

from __future__ import annotations

import itertools

import pytest
import quintil.functional as F
import torch
from quintil.bits.rivals import RIVALS, Numbers, lloyd_max_levels, mse_optimal_levels
from torch import Tensor

UNIFORM = [name for name in RIVALS if name != "Lloyd-Max"]
CLOSED_FORMS = ["min-max", "LSQ initialisation", "uL2Q"]
UL2Q_LOSS = [0.3625, 0.1189, 0.0374, 0.0115, 0.0035, 0.0010, 0.0003, 0.0001]  # its paper's Table I
MAX_LOSS = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497, 5: 0.002499}  # Max 1960, the normal distribution


def quantiles(kind: str, count: int = 50_000) -> Tensor:
    """Numbers of a distribution without sampling error."""
    p = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    normal = torch.special.ndtri(p)
    laplace = torch.where(p < 0.5, (2 * p).log(), -(2 * (1 - p)).log())
    return {"gaussian": normal, "laplace": laplace, "relu": normal.relu(), "skewed": normal.exp()}[kind]


def loss(name: str, x: Tensor, bits: int) -> float:
    """Squared error as a share of the squared numbers."""
    y = RIVALS[name].quantized(Numbers(x), bits)
    return float((y - x).square().sum() / x.square().sum())


def vecq_loss(x: Tensor, bits: int) -> float:
    y, _, _ = F.vecq_quantize(x.float(), bits)
    return float((y.double() - x).square().sum() / x.square().sum())


@pytest.mark.parametrize("bits", range(2, 9))
def test_closed_forms_follow_their_equations(bits):
    """Rounding and clipping with step and offset, as the papers write it, for numbers that lie on no threshold."""
    x = torch.randn(2000, dtype=torch.float64) * 0.1 + 0.03
    low, top = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    step = (x.max() - x.min()) / (2**bits - 1)
    want = {"min-max": ((x - x.min()) / step).round() * step + x.min()}
    step = 2 * x.abs().mean() / top**0.5
    want["LSQ initialisation"] = (x / step).round().clamp(low, top) * step
    factor = [1.5950161625, 0.9952900854, 0.5872211504, 0.3358904980, 0.1894424409, 0.1057087704, 0.0570827360,
              0.0304821810][bits - 1]  # fmt: skip
    step = factor * x.std(correction=0) + 1e-7
    want["uL2Q"] = (((x - x.mean()) / step - 0.5).round().clamp(low, top) + 0.5) * step + x.mean()
    for name in CLOSED_FORMS:
        torch.testing.assert_close(RIVALS[name].quantized(Numbers(x), bits), want[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bits", range(1, 9))
def test_ul2q_reaches_the_losses_of_its_paper(bits):
    assert loss("uL2Q", quantiles("gaussian"), bits) == pytest.approx(UL2Q_LOSS[bits - 1], rel=0.005, abs=6e-5)


def smallest_uniform_error(x: Tensor, bits: int) -> float:
    """Over all ways to give ascending numbers ascending codes: the error of the least-squares step and offset."""
    x = x.sort().values
    codes = list(itertools.combinations_with_replacement(range(2**bits), len(x)))
    codes = torch.tensor(codes, dtype=torch.float64)
    codes = codes - codes.mean(1, keepdim=True)
    spread = codes.square().sum(1)
    explained = torch.where(spread > 0, (codes @ x).square() / spread.clamp(min=1e-9), 0.0)
    return float((x - x.mean()).square().sum() - explained.max())


@pytest.mark.parametrize("kind", ["normal", "skewed"])
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_no_uniform_levels_are_better_than_the_optimal_ones(bits, kind):
    for _ in range(12):
        x = torch.randn(8 if bits == 3 else 9, dtype=torch.float64)
        x = x.exp() if kind == "skewed" else x
        numbers = Numbers(x)
        levels = mse_optimal_levels(numbers, bits)
        steps = levels.diff()
        assert len(levels) == 2 ** bits and torch.allclose(steps, steps[:1].expand_as(steps))
        assert float(numbers.errors(levels)) == pytest.approx(smallest_uniform_error(x, bits), abs=1e-8)


@pytest.mark.parametrize("kind", ["gaussian", "laplace", "skewed"])
@pytest.mark.parametrize("bits", [1, 2, 4, 6])
def test_lloyd_max_meets_both_of_its_conditions(kind, bits):
    """Every number has its nearest level, every level is the mean of its numbers."""
    x = quantiles(kind, 20_000)
    numbers = Numbers(x)
    levels = lloyd_max_levels(numbers, bits)
    y = numbers.nearest(levels)
    distances = (x[:, None] - levels).abs()
    assert len(levels) == 2 ** bits and torch.equal((x - y).abs(), distances.min(1).values)
    used = y.unique()
    assert len(used) > 0.95 * len(levels)  # far out, a level may be left without numbers
    for level in used:
        assert float(x[y == level].mean()) == pytest.approx(float(level), abs=1e-6 * float(x.abs().max()))


@pytest.mark.parametrize("bits", MAX_LOSS)
def test_lloyd_max_reaches_the_published_losses(bits):
    assert loss("Lloyd-Max", quantiles("gaussian"), bits) == pytest.approx(MAX_LOSS[bits], rel=0.004)


def test_lloyd_max_is_exact_where_there_are_enough_levels():
    x = torch.randn(50, dtype=torch.float64).repeat(3)
    assert loss("Lloyd-Max", x, 6) == 0.0 < loss("Lloyd-Max", x, 5)


@pytest.mark.parametrize("kind", ["gaussian", "laplace", "relu", "skewed"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_order_of_the_optimal_ones(kind, bits):
    """Free levels beat equal distances, and the best equal distances beat every closed form, VecQ's too."""
    x = quantiles(kind, 20_000)
    others = [loss(name, x, bits) for name in UNIFORM if bits >= RIVALS[name].least_bits]
    optimal = loss("MSE-optimal uniform", x, bits)
    assert loss("Lloyd-Max", x, bits) <= optimal * (1 + 1e-9)
    assert optimal <= min(others) * (1 + 1e-9) and optimal <= vecq_loss(x, bits) * (1 + 1e-6)


@pytest.mark.parametrize("bits", range(1, 9))
def test_vecq_is_not_above_a_closed_form_on_the_normal_distribution(bits):
    """Its tails included: the best step at 8 bits is smaller where they are short, as those of few numbers are."""
    x = quantiles("gaussian", 200_000)
    others = [loss(name, x, bits) for name in CLOSED_FORMS if bits >= RIVALS[name].least_bits]
    assert vecq_loss(x, bits) <= min(others) * (1 + 1e-6)


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("x", [torch.zeros(5), torch.full((5,), 0.3), torch.tensor([-0.7])], ids=["0", "same", "one"])
def test_numbers_without_a_spread(name, x):
    y = RIVALS[name].quantized(Numbers(x), 4)
    assert bool(y.isfinite().all())
    if name != "LSQ initialisation":  # its step asks only for the mean size
        torch.testing.assert_close(y, x.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.empty(0), "Numbers: expected x to hold numbers, got an empty tensor"),
        (torch.tensor([1.0, float("nan")]), "Numbers: expected x to be finite, got nan"),
        (torch.tensor([1.0, -float("inf")]), "Numbers: expected x to be finite, got -inf"),
    ],
)
def test_refused_numbers(x, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Numbers(x)


def test_one_bit_has_no_lsq_step():
    with pytest.raises(ValueError, match="^lsq_levels: expected bits to be at least 2, got 1$"):
        RIVALS["LSQ initialisation"].levels(Numbers(torch.ones(3)), 1)
