"""VecQ in plain torch: the equations of the paper, written apart from the C++ sources.

Numbers are float32 in the written order, so that codes compare with `==`. Sums take the other way round: each is exact
(`math.fsum`) and rounded once, so that it equals the ops' sums in double after the rounding to float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPS = torch.tensor(1e-32)
LAMBDA = [1.0, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308]


def rows_of(x: Tensor, steps: Tensor) -> Tensor:
    """The elements of each step as a row."""
    return x.reshape(max(steps.numel(), 1), -1) if x.numel() else x.reshape(steps.numel(), 0)


def gaussian_lambda(bits: int) -> float:
    return LAMBDA[bits - 1] if bits <= 8 else 6 / (2**bits - 1)


def step(x: Tensor, bits: int, sizes: tuple[int, ...] = (), sigma: str = "population") -> Tensor:
    """[V5]"""
    steps = torch.empty(sizes)
    for i, row in enumerate(rows_of(x, steps)):
        numbers = row.double().tolist()
        n = len(numbers)
        mean = math.fsum(numbers) / max(n, 1)
        spread = math.fsum((a - mean) ** 2 for a in numbers)
        deviation = math.sqrt(spread / (n - (sigma == "unbiased"))) if n > 1 else 0.0
        steps.view(-1)[i] = torch.tensor(gaussian_lambda(bits) * deviation + 1e-7, dtype=torch.float64).float()
    return steps


def levels(x: Tensor, step: Tensor, bits: int) -> Tensor:
    """[V3] as float64 half-integers, for x and step that broadcast."""
    half = 2 ** (bits - 1)
    u = (x / (step + EPS) - 0.5).double()
    return torch.round(u).clamp(-half, half - 1) + 0.5


def length(x: Tensor, v: Tensor, step: float, drive: str = "projection") -> float:
    """[V6, V13] of one row."""
    if drive == "none":
        return step
    a, b = x.double().tolist(), v.tolist()
    squares = math.fsum(q * q for q in b)
    if drive == "norm":
        return math.sqrt(math.fsum(p * p for p in a)) / (math.sqrt(squares) + 1e-7)
    return math.fsum(p * q for p, q in zip(a, b)) / (squares + 1e-7)


def quantize(
    x: Tensor, bits: int, steps: Tensor, drive: str = "projection", grad_mode: str = "ste", grad_ratio: float = 0.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, codes, alpha, and where a gradient passes [V3, V6, V8, V9]."""
    rows = rows_of(x, steps)
    v = levels(rows, steps.reshape(-1, 1), bits)
    alpha = torch.tensor(
        [length(a, b, float(s), drive) for a, b, s in zip(rows, v, steps.reshape(-1))], dtype=torch.float64
    ).float()
    y = alpha[:, None] * v.float()
    inside = torch.ones_like(rows, dtype=torch.bool)
    if grad_mode == "pwl_c" and rows.numel():
        low, high = y.amin(1, keepdim=True), y.amax(1, keepdim=True)
        inside = (rows >= low) & (rows <= high)
        rows = torch.minimum(torch.maximum(rows, low), high)
    if grad_ratio:
        y = y + torch.tensor(grad_ratio) * (rows - y)
    return (
        y.reshape(x.shape),
        (v - 0.5).to(torch.int64).reshape(x.shape),
        alpha.reshape(steps.shape),
        inside.reshape(x.shape),
    )


def losses(x: Tensor, y: Tensor) -> tuple[float, float]:
    """[V2] orientation and modulus."""
    a, b = x.double().flatten().tolist(), y.double().flatten().tolist()
    dot, aa, bb = (math.fsum(p * q for p, q in zip(*pair)) for pair in ((a, b), (a, a), (b, b)))
    return 1 - dot / math.sqrt(aa * bb), math.fsum((p - q) ** 2 for p, q in zip(a, b))


# Products in evaluation [V10, V12], in float64, where they are exact but for the lengths: numbers on their levels are
# multiplied as they are, with torch's own convolutions of either direction.


def run_values(x: Tensor, bits: int, sizes: tuple[int, ...] = ()) -> Tensor:
    """A parameter on its levels, float64, from float32 lengths."""
    _, codes, alpha, _ = quantize(x, bits, step(x, bits, sizes))
    lengths = alpha.double().reshape(-1, 1)
    return ((codes.double() + 0.5).reshape(len(lengths), -1) * lengths).reshape(x.shape)


def activation_values(x: Tensor, bits: int, averages: Tensor) -> Tensor:
    """Activations on the levels of evaluation, float64."""
    return levels(x, averages[0], bits) * averages[1].double()


def state_values(h: Tensor, largest: float) -> Tensor:
    """States as products take them: 2^16 half-integers up to the largest size, float64."""
    step = largest / 2**15
    return step * (torch.round(h.double() / step - 0.5).clamp(-(2**15), 2**15 - 1) + 0.5)


def lstm_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """State and cell from gates in the order input, forget, cell, output."""
    n = cell.size(-1)
    into, forget, out = (torch.sigmoid(gates[..., i * n : (i + 1) * n]) for i in (0, 1, 3))
    cell = forget * cell + into * torch.tanh(gates[..., 2 * n : 3 * n])
    return out * torch.tanh(cell), cell


def gru_step(x: Tensor, h: Tensor, state: Tensor) -> Tensor:
    """The state from the products of the input and of the state: reset, update, new."""
    n = state.size(-1)
    reset, update = (torch.sigmoid(x[..., i * n : (i + 1) * n] + h[..., i * n : (i + 1) * n]) for i in (0, 1))
    new = torch.tanh(x[..., 2 * n :] + reset * h[..., 2 * n :])
    return (1 - update) * new + update * state
