"""LSQ and Double Rounding in plain torch and numpy: the formulas of the papers, written apart from the C++ sources.

Integers are int64 and shifted as integers; numbers are float32 in the written order; sums are those of rule N8, so that
comparisons with the ops may use `==`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

EPS = torch.tensor(1e-32)


def code_range(bits: int, signed: bool = True) -> tuple[int, int]:
    """Full two's complement, three values for one bit [D4]; or 0..2^b-1."""
    if not signed:
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), max(1, 2 ** (bits - 1) - 1)


def round_by(u: Tensor, rounding: str) -> Tensor:
    """Integers as floats. float64 holds u + 1/2 of a float32 exactly near every tie."""
    if rounding == "half_even":
        return torch.round(u)
    return torch.floor(u.double() + (0.5 if rounding == "half_up" else 0.0)).to(u.dtype)


def double_round(codes: Tensor, from_bits: int, to_bits: int, rounding: str = "half_even") -> Tensor:
    """[D2, D5] by quotient and remainder; int64."""
    low, high = code_range(to_bits)
    unit = 2 ** (from_bits - to_bits)
    q = codes.to(torch.int64)
    whole = torch.div(q, unit, rounding_mode="floor")
    twice = 2 * (q - whole * unit)  # twice the remainder, against one unit
    up = {
        "half_even": (twice > unit) | ((twice == unit) & (whole % 2 == 1)),
        "half_up": twice >= unit,
        "floor": torch.zeros_like(q, dtype=torch.bool),
    }[rounding]
    return (whole + up).clamp(low, high)


def per_row(scale: Tensor, x: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (x.dim() - 1)) if scale.dim() else scale


def stored_codes(x: Tensor, scale: Tensor, bits: int) -> Tensor:
    """[D1] as int64."""
    low, high = code_range(bits)
    return torch.round(x / (per_row(scale, x) + EPS)).clamp(low, high).to(torch.int64)


def fixed_order_sum(terms: Tensor) -> float:
    """Sum of float64 terms by rule N8: 8 interleaved partials per chunk of 4096, combined in pairs, chunk by chunk."""
    total = 0.0
    for chunk in np.array_split(terms.numpy(), range(4096, terms.numel(), 4096)):
        padded = np.zeros((-(-chunk.size // 8), 8))
        padded.reshape(-1)[: chunk.size] = chunk
        s = np.add.accumulate(np.vstack([np.zeros(8), padded]), axis=0)[-1]
        total += ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))
    return float(total)


@dataclass(frozen=True)
class Step:
    """A quantiser of either op. `from_bits` is None for `lsq_quantize`."""

    bits: int
    from_bits: int | None = None
    signed: bool = True
    rounding: str = "half_even"
    chain_pow2: bool = False
    weight_source: str = "stored"
    mask_on: str = "scaled"
    scale_residual: str = "double"
    scale_grad_sum: str = "channel"

    @property
    def shift(self) -> int:
        return 0 if self.from_bits is None else self.from_bits - self.bits

    def scaled(self, x: Tensor, scale: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """x in units of the stored step, and in units of the step of y."""
        z = (x - offset) / (per_row(scale, x) + EPS)
        return z, z / 2**self.shift

    def integers(self, x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        """The integers of y, as float32. x is finite."""
        low, high = code_range(self.bits, self.signed)
        _, u = self.scaled(x, scale, offset)
        if self.from_bits is None or self.weight_source == "float":
            return round_by(u, self.rounding).clamp(low, high)
        return double_round(stored_codes(x, scale, self.from_bits), self.from_bits, self.bits, self.rounding).float()

    def forward(self, x: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
        offset = torch.tensor(0.0) if offset is None else offset
        return self.integers(x, scale, offset) * (per_row(scale, x) * 2**self.shift) + offset

    def gradients(
        self, x: Tensor, grad: Tensor, scale: Tensor, offset: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """dx, dscale and doffset [D6, D7, D8, D11, D13]."""
        offset = torch.tensor(0.0) if offset is None else offset
        low, high = code_range(self.bits, self.signed)
        z, u = self.scaled(x, scale, offset)
        before = torch.round(z) if self.from_bits is not None and self.weight_source == "stored" else z
        tested = round_by(before / 2**self.shift, self.rounding) if self.mask_on == "rounded" else u
        below, above = tested < low, tested > high
        q = self.integers(x, scale, offset)
        if self.scale_residual == "single":
            q = round_by(u, self.rounding).clamp(low, high)
        slope = torch.where(below, float(low), torch.where(above, float(high), q - u)).double()
        terms = grad.double() * slope
        groups = scale.numel()
        count = x.numel() // groups
        kappa = 2.0**self.shift if self.chain_pow2 else 1.0
        factor = kappa / math.sqrt(count * high)
        sums = [fixed_order_sum(row) for row in terms.reshape(groups, count)]
        if self.scale_grad_sum == "all":
            total = 0.0
            for part in sums:
                total += part
            sums = [total] * groups
        dscale = torch.tensor([s * factor for s in sums], dtype=torch.float64).float().reshape(scale.shape)
        outside = below | above
        lost = torch.where(outside, grad, 0.0).double().reshape(groups, count)
        doffset = torch.tensor(sum(fixed_order_sum(row) for row in lost) * factor, dtype=torch.float64).float()
        return torch.where(outside, 0.0, grad), dscale, doffset
