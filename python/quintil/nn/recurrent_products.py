"""Time steps of recurrent layers on integer products, in evaluation [VECQ 2.9, V10].

Inputs are codes; states between time steps are not on few levels. For a product a state takes VecQ's levels of 16 bits,
evenly up to its largest size: within 2e-5 of it. With both bytes of such a code in two's complement, the upper bit of
the lower one turned over, the level is made of those of two 8-bit codes:

    q + 1/2 = 256 (high + 1/2) + (low + 1/2)

Both bytes multiply the codes of the weight, in one product of twice the rows; the halves add the same to every row.
What follows the sums is float32, by sums, products and quotients alone, so that states are equal on every CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from quintil.nn import run_products
from quintil.nn.half_products import fits_odd

States = tuple[Tensor, ...]
_IN_CACHE = 2**18  # numbers, 1 MiB
_HALVES = 256 * 0.5 + 0.5
_ONE = torch.ones([])


@dataclass(frozen=True)
class Matrix:
    """A weight as `run_products.linear_runs` takes it."""

    weight: Tensor
    lengths: Tensor
    starts: list[int]
    bits: int

    @property
    def of_scan(self) -> tuple[Tensor, Tensor, bool] | None:
        """Weight, its lengths [N], and whether it holds odd integers, for the scans in C++; None of several runs."""
        return (self.weight, self.lengths[:, 0], fits_odd(self.bits)) if len(self.starts) == 2 else None

    def times_codes(self, x: Tensor, x_scale: Tensor, x_bits: int, bias: Tensor | None) -> Tensor:
        """Half-integers [.., K] -> [.., N]."""
        return run_products.linear(x, x_scale, self.weight, self.lengths, self.starts, bias, x_bits, self.bits)

    def of_bytes(self, h: Tensor, step: Tensor) -> Tensor:
        """float32 [n, K] -> [2, n, N], of lower and upper bytes; step: `state_step` of the largest |h| there can be."""
        codes = torch.ops.quintil._state_codes(h, step)
        return run_products.linear_runs(codes, step, 0, self.weight, self.lengths, self.starts, None, self.bits)

    def times_state(self, h: Tensor, step: Tensor) -> Tensor:
        """float32 [n, K] -> [n, N], less `halves`."""
        low, high = self.of_bytes(h, step)
        return torch.add(low, high, alpha=256)

    def halves(self, step: Tensor, bias: Tensor | None) -> Tensor:
        """What the halves of both bytes add to every row of `times_state` or `of_bytes`, and the bias: [N]."""
        ones = torch.ones([1, self.weight.size(1)], dtype=torch.int8)
        return run_products.linear_runs(
            ones, _HALVES * step, 0, self.weight, self.lengths, self.starts, bias, self.bits
        )[0]  # fmt: skip


def state_step(largest: Tensor = _ONE) -> Tensor:
    """The step of states up to `largest`, 0-dim."""
    return largest / 2**15


def in_pieces(
    run: Callable[[Tensor, list[int], States, bool], tuple[Tensor, States]],
    parts: Callable[[int, int], Tensor],
    width: int,
    sizes: list[int],
    states: States,
    backwards: bool,
) -> tuple[Tensor, States]:
    """`run` over a few time steps after the other, with the arguments and results of `scan`.

    parts: first row, last row -> [rows, width]; they are made for these steps alone, so that they stay in cache.
    """
    offsets = [0, *accumulate(sizes)]
    pieces = list(_pieces(offsets, max(1, _IN_CACHE // max(1, width))))
    if len(pieces) == 1:
        return run(parts(0, offsets[-1]), sizes, states, backwards)
    found = []
    for first, last in reversed(pieces) if backwards else pieces:
        own = tuple(state[: sizes[first]] for state in states)
        outputs, own = run(parts(offsets[first], offsets[last]), sizes[first:last], own, backwards)
        found.append(outputs)
        states = _in_place_of_first(own, states)
    return torch.cat(found[::-1] if backwards else found), states


def _pieces(offsets: list[int], most: int) -> Iterator[tuple[int, int]]:
    """First and last time step, exclusive, of runs of at most so many rows, or of a single step."""
    first = 0
    for last in range(1, len(offsets)):
        if last == len(offsets) - 1 or offsets[last + 1] - offsets[first] > most:
            yield first, last
            first = last


def scan(
    step: Callable[[Tensor, States], States], parts: Tensor, sizes: Sequence[int], states: States, backwards: bool
) -> tuple[Tensor, States]:
    """Run over time steps of sizes[t] rows, no more than those before; parts: [sum of sizes, ...], step after step.

    states: [sizes[0], ...] each. A sequence that has ended keeps its states; backwards it begins at its own end.
    Returns the first state of every step, [sum of sizes, ...], and the states at the end.
    """
    pieces = parts.split(list(sizes))
    found = []
    for piece in reversed(pieces) if backwards else pieces:
        own = step(piece, tuple(state[: len(piece)] for state in states))
        found.append(own[0])
        states = _in_place_of_first(own, states)
    return torch.cat(found[::-1] if backwards else found), states


def _in_place_of_first(own: States, states: States) -> States:
    """The states of running sequences, and behind them those of sequences that have ended or not begun."""
    rows = own[0].size(0)
    if rows == states[0].size(0):
        return own
    return tuple(torch.cat([new, state[rows:]]) for new, state in zip(own, states))
