"""Mean, standard deviation and 95 % intervals over seeds, and differences paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Estimate:
    """Mean of n values with the standard deviation of n - 1 and the 95 % t-interval low..high.

    `std`, `low` and `high` are None for a single value.
    """

    mean: float
    std: float | None
    n: int
    low: float | None
    high: float | None

    def as_dict(self) -> dict:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if self.std is None else f"{self.mean:.2f} ± {self.std:.2f}"


def _two_sided_probability(t: float, degrees: int) -> float:
    """P(|T| <= t) of Student's t with an integer number of degrees of freedom, by its finite trigonometric series."""
    angle = math.atan(t / math.sqrt(degrees))
    square = math.cos(angle) ** 2
    if degrees == 1:
        return 2.0 * angle / math.pi
    odd = degrees % 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(2 + odd, degrees, 2):
        term *= square * (k - 1) / k
        total += term
    total *= math.sin(angle)
    return 2.0 / math.pi * (angle + total) if odd else total


def t_quantile(degrees: int, confidence: float = 0.95) -> float:
    """The t with P(|T| <= t) = confidence for `degrees` >= 1 degrees of freedom, e.g. 2.776 for 4."""
    if degrees < 1:
        raise ValueError(f"t_quantile: expected degrees of at least 1, got {degrees}")
    low, high = 0.0, 1.0
    while _two_sided_probability(high, degrees) < confidence:
        high *= 2.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _two_sided_probability(middle, degrees) < confidence else (low, middle)
    return 0.5 * (low + high)


def estimate(values: Sequence[float]) -> Estimate:
    """Mean ± std (n - 1) and 95 % interval of at least one value; ValueError for none."""
    n = len(values)
    if n == 0:
        raise ValueError("estimate: expected at least one value, got none")
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, 1, None, None)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_quantile(n - 1) * std / math.sqrt(n)
    return Estimate(mean, std, n, mean - half, mean + half)


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Estimate:
    """Estimate of first - second over seeds; both map seed to value.

    Unequal seed sets raise ValueError: values of different seeds have different splits and class orders, and
    their difference says nothing.
    """
    if set(first) != set(second):
        raise ValueError(
            f"paired_difference: expected the same seeds on both sides, got {sorted(first)} and {sorted(second)}"
        )
    return estimate([first[seed] - second[seed] for seed in sorted(first)])
