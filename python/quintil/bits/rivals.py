"""Other ways to put weights on 2^k levels, in float64, to compare VecQ with: `quintil compare-quantizers`.

Each finds 2^k ascending levels for a tensor's numbers; every number then takes the nearest. They are written for
measuring, not for training: no gradient, no codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from quintil.nn.ul2q import normal_step

_EPSILON = 1e-7
_LOOKUPS = 2**18  # thresholds looked up for one round over a grid of candidates, which bounds time and memory
_ROUNDS = 24  # halvings of the search: 1e-7 of the range


class Numbers:
    """A tensor's numbers, flat, float64, with what sorting gives: errors and means of cells without a pass over all."""

    def __init__(self, x: Tensor):
        self.x = x.detach().reshape(-1).double()
        if self.x.numel() == 0:
            raise ValueError("Numbers: expected x to hold numbers, got an empty tensor")
        if not bool(self.x.isfinite().all()):
            raise ValueError(f"Numbers: expected x to be finite, got {float(self.x[~self.x.isfinite()][0])}")

    @cached_property
    def sorted(self) -> Tensor:
        return self.x.sort().values

    @cached_property
    def sums(self) -> Tensor:
        """Sums of the first 0, 1, .. n sorted numbers."""
        return torch.cat([self.x.new_zeros(1), self.sorted.cumsum(0)])

    @cached_property
    def energy(self) -> Tensor:
        return self.x.square().sum()

    def cells(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Count and sum of the numbers nearest to each of the ascending levels [..., L]; both float64 [..., L]."""
        thresholds = (levels[..., 1:] + levels[..., :-1]) / 2
        ends = torch.searchsorted(self.sorted, thresholds.contiguous())
        shape = (*levels.shape[:-1], 1)
        ends = torch.cat([ends.new_zeros(shape), ends, ends.new_full(shape, self.x.numel())], -1)
        return ends.diff(dim=-1).double(), self.sums[ends].diff(dim=-1)

    def errors(self, levels: Tensor) -> Tensor:
        """Squared error of nearest levels: [..., L] -> [...]."""
        counts, sums = self.cells(levels)
        return self.energy + (levels * (levels * counts - 2 * sums)).sum(-1)

    def nearest(self, levels: Tensor) -> Tensor:
        """Every number's nearest level, in the order of x."""
        return levels[torch.bucketize(self.x, (levels[1:] + levels[:-1]) / 2)]


def _uniform(low: Tensor, high: Tensor, bits: int) -> Tensor:
    """2^bits levels in equal distances, the ends included: [...] -> [..., 2^bits]."""
    fractions = torch.arange(2**bits, dtype=torch.float64) / (2**bits - 1)
    return low[..., None] + (high - low)[..., None] * fractions


def min_max_levels(numbers: Numbers, bits: int) -> Tensor:
    """Equal distances from the smallest to the largest number."""
    return _uniform(*numbers.x.aminmax(), bits)


def lsq_levels(numbers: Numbers, bits: int) -> Tensor:
    """Multiples -2^(k-1) .. 2^(k-1)-1 of LSQ's first step 2 mean|w| / sqrt(2^(k-1)-1) [DR D12]; from 2 bits."""
    top = 2 ** (bits - 1) - 1
    if top < 1:
        raise ValueError(f"lsq_levels: expected bits to be at least 2, got {bits}")
    step = 2 * numbers.x.abs().mean() / math.sqrt(top)
    return step * torch.arange(-top - 1, top + 1, dtype=torch.float64)


def ul2q_levels(numbers: Numbers, bits: int) -> Tensor:
    """mean + lambda_k * deviation * half-integers: a table made for the normal distribution, unfitted [VecQ V14]."""
    step = normal_step(bits) * numbers.x.std(correction=0) + _EPSILON
    return numbers.x.mean() + step * (torch.arange(2**bits, dtype=torch.float64) - (2**bits - 1) / 2)


def mse_optimal_levels(numbers: Numbers, bits: int) -> Tensor:
    """Equal distances with the smallest squared error, both ends free: the bound for uniform levels, VecQ's included.

    Searched, from the closed forms, a grid of ends and levels around 0; the best of them refined by halving and, last,
    by least squares for the assignment found.
    """
    low, high = _candidates(numbers, bits)
    kept = max(1, min(32, 2 ** (10 - bits)))
    best = numbers.errors(_uniform(low, high, bits)).topk(kept, largest=False).indices
    low, high = low[best], high[best]
    stride = (high - low) / 8
    offsets = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)] * 2)
    for _ in range(_ROUNDS):
        lows, highs = (end[:, None] + stride[:, None] * offsets[:, i] for i, end in enumerate((low, high)))
        chosen = numbers.errors(_uniform(lows, highs, bits)).argmin(1, keepdim=True)
        low, high = (ends.gather(1, chosen).squeeze(1) for ends in (lows, highs))
        stride = torch.where(chosen.squeeze(1) == 4, stride / 2, stride)  # 4: neither end moved
    fitted = torch.stack([_fitted(numbers, levels) for levels in _uniform(low, high, bits)])
    return fitted[numbers.errors(fitted).argmin()]


def _candidates(numbers: Numbers, bits: int) -> tuple[Tensor, Tensor]:
    """First and last levels to start from; few numbers far out may want a level beyond them that none takes."""
    side = int(min(48, max(8, math.sqrt(_LOOKUPS / 2**bits))))
    smallest, largest = numbers.x.aminmax()
    middle, beyond = numbers.sorted[numbers.x.numel() // 2], 2 * (largest - smallest) / 2**bits
    fractions = torch.arange(1, side + 1, dtype=torch.float64) / side
    lows, highs = (middle + fractions * (end - middle) for end in (smallest - beyond, largest + beyond))
    low, high = torch.cartesian_prod(lows, highs).T
    around = fractions * numbers.x.abs().max()
    closed = [min_max_levels, ul2q_levels, *([lsq_levels] if bits > 1 else [])]
    ends = torch.stack([levels(numbers, bits)[[0, -1]] for levels in closed])
    return torch.cat([low, -around, ends[:, 0]]), torch.cat([high, around, ends[:, 1]])


def _fitted(numbers: Numbers, levels: Tensor) -> Tensor:
    """Least squares for low and step of an assignment, and the assignment to them, until the error stays."""
    index = torch.arange(len(levels), dtype=torch.float64)
    error = numbers.errors(levels)
    while True:
        counts, sums = numbers.cells(levels)
        mean, centre = sums.sum() / counts.sum(), (index * counts).sum() / counts.sum()
        spread = ((index - centre).square() * counts).sum()
        if spread == 0:  # one cell has all
            return levels
        step = ((index - centre) * sums).sum() / spread
        moved = mean + step * (index - centre)
        moved_error = numbers.errors(moved)
        if not moved_error < error * (1 - 1e-9):
            return levels
        levels, error = moved, moved_error


def lloyd_max_levels(numbers: Numbers, bits: int) -> Tensor:
    """Free levels, each the mean of the numbers nearest to it [Lloyd, Max].

    From the best uniform levels, and from levels as dense as the cube root of the numbers' density, the optimum for
    many levels [Panter, Dite]; the better result counts. A level that no number takes stays. Numbers of at most 2^bits
    different values are their own levels. Ends where no level moves by more than 1e-9 of the range, after 2,048 rounds
    or 2^23 lookups at most.
    """
    values = numbers.sorted.unique_consecutive()
    if len(values) <= 2**bits:
        return values
    levels = torch.stack([mse_optimal_levels(numbers, bits), _companded(numbers, bits)])
    tolerance = 1e-9 * (values[-1] - values[0])
    for _ in range(min(2048, 2 ** (23 - bits))):
        counts, sums = numbers.cells(levels)
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), levels).sort().values  # some pass one that stays
        largest = (moved - levels).abs().max()
        levels = moved
        if largest <= tolerance:
            break
    return levels[numbers.errors(levels).argmin()]


def _companded(numbers: Numbers, bits: int) -> Tensor:
    """Numbers chosen with the cube root of their density, for which the gap to the next one stands, inverted."""
    share = numbers.sorted.diff().pow(2 / 3).cumsum(0)  # gap * density^(1/3)
    places = (torch.arange(2**bits, dtype=torch.float64) + 0.5) / 2**bits * share[-1]
    return numbers.sorted[torch.searchsorted(share, places)]


@dataclass(frozen=True)
class Rival:
    """Levels of a way to quantise, the float32 numbers that a file needs for them, least width, whether it searches."""

    levels: Callable[[Numbers, int], Tensor]
    parameters: Callable[[int], int]
    least_bits: int = 1
    searches: bool = False

    def quantized(self, numbers: Numbers, bits: int) -> Tensor:
        """Every number's nearest level, float64, flat."""
        return numbers.nearest(self.levels(numbers, bits))


RIVALS = {
    "min-max": Rival(min_max_levels, lambda bits: 2),
    "LSQ initialisation": Rival(lsq_levels, lambda bits: 1, least_bits=2),
    "uL2Q": Rival(ul2q_levels, lambda bits: 2),
    "MSE-optimal uniform": Rival(mse_optimal_levels, lambda bits: 2, searches=True),
    "Lloyd-Max": Rival(lloyd_max_levels, lambda bits: 2**bits, searches=True),
}


def _ends_step(x: Tensor, bits: int) -> Tensor:
    return 2 * x.abs().max() / (2**bits - 1)


def _lsq_step(x: Tensor, bits: int) -> Tensor:
    if bits < 2:
        raise ValueError(f"STEPS: expected bits to be at least 2, got {bits}")
    return 2 * x.abs().mean() / math.sqrt(2 ** (bits - 1) - 1)


def _ul2q_step(x: Tensor, bits: int) -> Tensor:
    return normal_step(bits) * x.std(correction=0) + _EPSILON


#: What the closed forms make of VecQ's levels, one length times the 2^bits half-integers around 0: their step as the
#: distance of levels, (x, bits) -> 0-dim, float64. Offsets and a level at 0, which they have elsewhere, fall away.
STEPS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "min-max": _ends_step,
    "LSQ initialisation": _lsq_step,
    "uL2Q": _ul2q_step,
}
