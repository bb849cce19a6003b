"""LUQ and FP134 in plain torch, from tables of all numbers of a format: another way than the ops', which read bits.

A number lies between two neighbours of the table; which of them it becomes is decided in float64, where all of this is
exact. Random bits are those of `reference.random_bits` [N6].
"""

from __future__ import annotations

import math

import numpy as np
import torch
from reference import random_bits
from torch import Tensor

FP134 = (5, 5, 5, 5, 5, 5, 5, 4, 3, 2, 1, 0)
FP130 = (1, 1, 1, 1, 1, 1, 1, 0)
MASTER = (10,) * 63 + (9, 8, 7, 6, 5, 4, 3, 2, 1, 0)  # 1 + 6 + 9 bits, at the scale 32


def draws(x: Tensor, seed: int, site: int) -> Tensor:
    """r of every element, float64 [N5, N6]."""
    columns = x.shape[-1] if x.dim() else 1
    rows = np.arange(x.numel() // columns if columns else 0)[:, None]
    bits = random_bits(seed, site, rows, np.arange(columns)[None, :])
    return torch.from_numpy(bits).reshape(x.shape).double()


def neighbours(size: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """The table's numbers below and above, twice the same where the size is one of them."""
    above = torch.searchsorted(table, size.contiguous())
    upper = table[above.clamp(max=len(table) - 1)]
    return torch.where(upper == size, size, table[(above - 1).clamp(min=0)]), upper


# ---- LUQ [H13-H16] -----------------------------------------------------------------------------------------


def luq(x: Tensor, seed: int, bits: int = 4, samples: int = 1, levels: str = "corrected") -> Tensor:
    """The mean of the draws, float32."""
    powers = 2 ** (bits - 1) - 2 + (levels == "original")
    top = x.max() if levels == "original" and bool((x > 0).any()) else x.abs().max()
    alpha = top / 2.0**powers
    if not float(top):
        return torch.zeros_like(x)
    v = (x.abs() / alpha).double()
    table = torch.tensor([0.0] + [2.0**k for k in range(120)], dtype=torch.float64)
    lower, upper = neighbours(v, table)
    chance = torch.where(upper > lower, (v - lower) / (upper - lower), 0.0)
    total = torch.zeros_like(v)
    for sample in range(samples):
        total += torch.where((draws(x, seed, 16 + sample) + 0.5) < 65536 * chance, upper, lower)
    return alpha * ((x.sign().double() * total).float() / samples)


def clip(x: Tensor) -> float:
    """[H13] with sums that are exact."""
    numbers = x.double().flatten().tolist()
    rms = math.sqrt(math.fsum(a * a for a in numbers) / len(numbers))
    found = 12.1 * rms - 12.2 * math.fsum(map(abs, numbers)) / len(numbers)
    return found if found > 0 else max(map(abs, numbers))


def luq_operand(x: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Codes (float64) and step of a forward operand [H13]."""
    step = torch.tensor(2 * clip(x) / (high - low) + 1e-10, dtype=torch.float64).float()
    return (x / step).round().clamp(low, high).double(), step


def limited(products: Tensor, bits: int, tile: int) -> Tensor:
    """Sums over the last dimension, limited per tile [H17]."""
    top = 2 ** (bits - 1) - 1 if bits < 16 else math.inf
    tiles = products.split(tile, -1) if tile else [products]
    return sum(part.sum(-1).clamp(-top, top) for part in tiles)


# ---- FP134 [H18-H22] ---------------------------------------------------------------------------------------


def table(significands: tuple[int, ...], scale: int) -> Tensor:
    """All magnitudes of a format, ascending, float64."""
    found = {0.0}
    for d, bits in enumerate(significands):
        top = 2.0 ** (scale + 1 - d)
        found |= {top * i / 2**bits for i in range(1, 2**bits + 1) if 2 * i >= 2**bits}
    most = 2.0 ** (scale + 1) - 2.0 ** (scale + 1 - significands[0])
    return torch.tensor(sorted(n for n in found if n <= most), dtype=torch.float64)


def minifloat(
    x: Tensor,
    significands: tuple[int, ...],
    scale: int,
    seed: int | None = None,
    previous: Tensor | None = None,
) -> Tensor:
    """[H19, H22]; for lists that lose at most one bit from binade to binade."""
    numbers = table(significands, scale)
    beyond = torch.cat([numbers, torch.tensor([2.0 ** (scale + 1)], dtype=torch.float64)])
    lower, upper = neighbours(x.abs().double().clamp(max=float(beyond[-1])), beyond)
    gap = upper - lower
    part = torch.where(gap > 0, (x.abs().double() - lower) / gap, 0.0)
    if seed is not None:
        up = (draws(x, seed, 0) + 0.5) < 65536 * part
    elif previous is not None:
        up = torch.where(x > 0, previous > x, previous <= x) & (part > 0)
    else:
        even = torch.where(gap > 0, torch.remainder(lower / gap, 2) == 0, True)
        up = (part > 0.5) | ((part == 0.5) & ~even)
    size = torch.where(up, upper, lower).clamp(max=float(numbers[-1]))
    return torch.copysign(size.float(), x)


def next_scale(scale: int, x: Tensor, y: Tensor, room: int) -> int:
    """[H20]: numbers below 2^(S - room) lower the scale, one of 2^(S + 1 - room) or more raises it."""
    if not bool(x.any()):
        return scale
    most = float(y.abs().max())
    return scale + (most >= 2.0 ** (scale + 1 - room)) - (most < 2.0 ** (scale - room))
