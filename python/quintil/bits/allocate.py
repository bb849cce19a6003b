"""The best width for every layer under budgets, an integer program solved exactly [DR D24].

One binary variable per layer and width; every layer takes one width. Wide layers go where the trace of the Hessian
says that rounding hurts most, as far as the budgets allow. No network is run here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .budgets import Budget, bit_sum

# HiGHS takes sums that are 1e-6 too large and optima that are 1e-6 too small. Rows and gains are scaled to this size,
# and every solution is checked again.
_SCALE = 1e4
_SLACK = 1e-9  # relative: a limit that was itself computed in floating point

_OPTIMAL, _INFEASIBLE = 0, 2  # status of scipy.optimize.milp


@dataclass(frozen=True)
class Allocation:
    """A width for every layer.

    bits: layer -> width. objective: sum of trace x width. mean_bits: their average. asked_mean_bits: the average that
    was to be met, which differs where no choice of widths has it; None if it was not fixed. used: cost under every
    budget, by its name.
    """

    bits: dict[str, int]
    objective: float
    mean_bits: float
    asked_mean_bits: float | None = None
    used: dict[str, float] = field(default_factory=dict)


def allocate(
    traces: Mapping[str, float],
    bits: Sequence[int],
    mean_bits: float | None = None,
    *,
    at_most: bool = False,
    budgets: Sequence[Budget] = (),
    fixed: Mapping[str, int] | None = None,
) -> Allocation:
    """The widths b_l out of `bits` with the largest sum of t_l b_l within every budget [DR D24].

    traces: layer -> t_l, as `hessian_trace` gives them; may be negative. bits: widths to choose from, 1..8.
    mean_bits: the average width; it is met exactly, after rounding to the nearest average that exists (of two equally
        near the lower). With `at_most` it is an upper bound instead.
    budgets: further upper bounds: `model_bytes`, `mac_bits`, `table`, or any `Budget`.
    fixed: layers whose width is given.

    Raises ValueError for limits that cannot be met, naming the nearest that can, and for unknown layers or widths;
    ImportError without SciPy. Of several optima always the same is taken.
    """
    asked = mean_bits if mean_bits is None else float(mean_bits)
    program = _Program(traces, bits, fixed or {})
    limits = list(budgets)
    if at_most and asked is not None:
        limits.insert(0, bit_sum(list(traces), asked * len(traces)))
    total = program.nearest_sum(asked) if asked is not None and not at_most else None
    widths = program.solve(limits, total)
    return Allocation(
        bits=widths,
        objective=math.fsum(traces[name] * width for name, width in widths.items()),
        mean_bits=sum(widths.values()) / len(widths),
        asked_mean_bits=None if at_most else asked,
        used={budget.what: budget.total(widths) for budget in budgets},
    )


class _Program:
    """The variables: for every layer in order, every width that it may take."""

    def __init__(self, traces: Mapping[str, float], bits: Sequence[int], fixed: Mapping[str, int]):
        widths = checked_widths("allocate", bits)
        _check_traces(traces)
        for name, width in fixed.items():
            if name not in traces:
                raise ValueError(f"allocate: expected fixed to name layers that have a trace, got {name!r}")
            if width not in widths:
                raise ValueError(f"allocate: expected fixed[{name!r}] to be one of {widths}, got {width!r}")
        self.names = list(traces)
        self.choices = [(fixed[name],) if name in fixed else widths for name in self.names]
        self.variables = [(name, width) for name, choice in zip(self.names, self.choices) for width in choice]
        self.gains = np.array([traces[name] * width for name, width in self.variables])
        ends = np.cumsum([len(choice) for choice in self.choices])
        self.one_each = np.zeros((len(self.names), len(self.variables)))
        for row, (end, choice) in zip(self.one_each, zip(ends, self.choices)):
            row[end - len(choice) : end] = 1.0

    def nearest_sum(self, mean: float) -> int:
        """The sum of widths nearest to `mean` times the layers; ValueError outside of what widths can give."""
        reachable = {0}
        for choice in self.choices:
            reachable = {total + width for total in reachable for width in choice}
        sums, count = sorted(reachable), len(self.names)
        target = mean * count
        nearest = min(sums, key=lambda k: (round(abs(k - target), 9), k))
        if not sums[0] - 1e-9 <= target <= sums[-1] + 1e-9:
            raise ValueError(
                f"allocate: expected mean_bits in {sums[0] / count:g}..{sums[-1] / count:g}, got {mean:g} (the nearest "
                f"that can be met is {nearest / count:g})"
            )
        return nearest

    def solve(self, budgets: Sequence[Budget], total: int | None) -> dict[str, int]:
        """The best widths; ValueError naming the first budget that cannot be met beside those before it."""
        for budget in budgets:
            unknown = sorted(set(budget.costs) - set(self.names))
            if unknown:
                raise ValueError(
                    f"allocate: expected costs of layers that have a trace, got {unknown[0]!r} ({budget.what})"
                )
        found = self._maximise(self.gains, budgets, total)
        if found is not None:
            return found
        for position, budget in enumerate(budgets):
            costs = np.array([budget.cost(*variable) for variable in self.variables])
            least = self._maximise(-costs, budgets[:position], total)
            if least is not None and budget.total(least) > budget.limit:
                others = "" if position == 0 and total is None else ", with the other limits"
                raise ValueError(
                    f"allocate: expected {budget.what} of at least {budget.total(least):.10g}, got {budget.limit:g} "
                    f"(the nearest that can be met{others})"
                )
        raise RuntimeError("allocate: expected a budget that excludes every choice, got none")

    def _maximise(self, gains: np.ndarray, budgets: Sequence[Budget], total: int | None) -> dict[str, int] | None:
        """The feasible widths of the largest gain, or None if there are none."""
        milp, bounds, constraint = _solver()
        rows = [constraint(self.one_each, 1.0, 1.0)]
        if total is not None:
            rows.append(constraint(np.array([width for _, width in self.variables], dtype=float), total, total))
        for budget in budgets:
            costs = np.array([budget.cost(*variable) for variable in self.variables])
            scale = _SCALE / max(budget.limit, costs.max(), 1e-300)
            rows.append(constraint(costs * scale, -np.inf, budget.limit * scale))
        goal = -gains * (_SCALE / max(np.abs(gains).max(), 1e-300))
        while True:
            result = milp(goal, integrality=1, bounds=bounds(0, 1), constraints=rows, options={"mip_rel_gap": 0.0})
            if result.status == _INFEASIBLE:
                return None
            if result.status != _OPTIMAL:
                raise RuntimeError(f"allocate: expected HiGHS to solve the integer program, got: {result.message}")
            taken = np.rint(result.x)
            widths = {name: width for (name, width), one in zip(self.variables, taken) if one}
            if all(budget.total(widths) <= budget.limit * (1 + _SLACK) for budget in budgets):
                return widths
            rows.append(constraint(taken, -np.inf, len(self.names) - 1))  # within HiGHS's tolerance, but not ours


def _solver():
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
    except ImportError:
        raise ImportError(
            "allocate: expected scipy to be installed for the integer program, got none (quintil[bits])"
        ) from None
    return milp, Bounds, LinearConstraint


def checked_widths(where: str, bits: Sequence[int]) -> tuple[int, ...]:
    """Ascending, different, in 1..8; else TypeError or ValueError that begins with `where`."""
    if not all(isinstance(b, int) and not isinstance(b, bool) for b in bits):
        raise TypeError(f"{where}: expected bits to be integers, got {bits!r}")
    widths = tuple(sorted(bits))
    if not widths or widths[0] < 1 or widths[-1] > 8 or len(set(widths)) < len(widths):
        raise ValueError(f"{where}: expected bits to be different widths in 1..8, got {bits!r}")
    return widths


def _check_traces(traces: Mapping[str, float]) -> None:
    if not traces:
        raise ValueError("allocate: expected traces of at least one layer, got none")
    for name, trace in traces.items():
        if not math.isfinite(trace):
            raise ValueError(f"allocate: expected finite traces, got {trace} for {name!r}")
