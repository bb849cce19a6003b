"""Widths per layer under budgets: the published example, brute force on small problems, what is refused [DR D24]."""

from __future__ import annotations

import itertools
import math
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quintil.bits import Budget, allocate, candidate_pool, mac_bits, model_bytes, pareto_front, table

WIDTHS = (2, 4, 6, 8)
# ResNet-20 on CIFAR-10, as published, first and last layer included [DR 5].
PUBLISHED = {
    f"layer{number:02}": trace
    for number, trace in enumerate([
        0.1655166950, 0.0312375083, 0.0054636415, 0.0453697426, 0.0087387820, 0.0634773414, 0.0136904735, 0.0447357084,
        0.0009587626, 0.0154754748, 0.0045673437, 0.0128283316, 0.0075508591, 0.0160547835, 0.0022888323, 0.0062765939,
        0.0035778318, 0.0041131298, -0.0004940806, -0.0024140890,
    ])
}  # fmt: skip
INNER = dict(list(PUBLISHED.items())[1:-1])


@pytest.mark.parametrize(
    "traces, mean, widths, objective",
    [
        (PUBLISHED, 4, "8 8 2 8 2 8 2 8 2 6 2 2 2 8 2 2 2 2 2 2", 3.158280),
        (PUBLISHED, 6, "", 3.525658),
        (INNER, 5, "8 2 8 8 8 8 8 2 8 2 8 2 8 2 2 2 2 2", 2.081471),
    ],
)
def test_published_traces(traces, mean, widths, objective):
    """T10: the optimum, and that filling greedily by trace reaches it too."""
    found = allocate(traces, WIDTHS, mean)
    assert found.objective == pytest.approx(objective, abs=5e-7)
    assert found.mean_bits == found.asked_mean_bits == mean
    if widths:
        assert list(found.bits.values()) == list(map(int, widths.split()))
    left, greedy = (mean - 2) * len(traces), dict.fromkeys(traces, 2)
    for name in sorted(traces, key=traces.get, reverse=True):
        greedy[name] += min(6, left)
        left -= min(6, left)
    assert greedy == found.bits


def test_an_average_without_a_sum_is_rounded_and_reported():
    found = allocate(PUBLISHED, WIDTHS, 4.08)
    assert found.asked_mean_bits == 4.08 and found.mean_bits == pytest.approx(4.1)
    assert allocate(PUBLISHED, WIDTHS, 4.55).mean_bits == 4.5  # as near as 4.6, and lower
    assert allocate(INNER, (2, 4, 8), 7.8).mean_bits == pytest.approx(8 - 4 / 18)  # sums skip 8 L - 2


@st.composite
def problems(draw):
    """Up to five layers, up to four widths, two tables of costs that need not grow with the width."""
    layers = [f"l{i}" for i in range(draw(st.integers(1, 5)))]
    widths = draw(st.lists(st.integers(1, 8), min_size=1, max_size=4, unique=True))
    numbers = st.integers(-1000, 1000).map(lambda n: n / 8)
    traces = {name: draw(numbers) for name in layers}
    costs = [
        {name: {b: draw(st.integers(0, 40)) / 4 for b in widths} for name in layers}
        for _ in range(draw(st.integers(0, 2)))
    ]
    limits = [draw(st.integers(0, 10 * len(layers))) for _ in costs]
    mean = draw(st.none() | st.integers(4, 33).map(lambda n: n / 4))
    return (
        traces,
        widths,
        mean,
        draw(st.booleans()),
        [Budget(f"cost {i}", c, m) for i, (c, m) in enumerate(zip(costs, limits))],
    )


@given(problems())
def test_brute_force(problem):
    traces, widths, mean, at_most, budgets = problem
    choices = [dict(zip(traces, choice)) for choice in itertools.product(widths, repeat=len(traces))]
    sums = {sum(choice.values()) for choice in choices}
    target = None if mean is None else mean * len(traces)
    if mean is not None and not at_most:
        fits = min(sums) <= target <= max(sums)
        total = min(sums, key=lambda k: (abs(k - target), k))
        choices = [choice for choice in choices if fits and sum(choice.values()) == total]
    elif mean is not None:
        choices = [choice for choice in choices if sum(choice.values()) <= target]
    choices = [choice for choice in choices if all(budget.total(choice) <= budget.limit for budget in budgets)]
    if not choices:
        with pytest.raises(ValueError, match="^allocate: expected .*, got .*the nearest that can be met"):
            allocate(traces, widths, mean, at_most=at_most, budgets=budgets)
        return
    found = allocate(traces, widths, mean, at_most=at_most, budgets=budgets)
    assert found.bits in choices
    best = max(math.fsum(traces[name] * choice[name] for name in traces) for choice in choices)
    assert found.objective == pytest.approx(best, rel=1e-9, abs=1e-9)
    assert found.used == {budget.what: budget.total(found.bits) for budget in budgets}


@given(problems())
def test_the_named_limit_is_the_nearest(problem):
    """A budget that is refused is met once it is set to the value in the message, and not a little below it."""
    traces, widths, _, _, budgets = problem
    try:
        allocate(traces, widths, budgets=budgets)
    except ValueError as error:
        what, least = str(error).removeprefix("allocate: expected ").split(", got")[0].split(" of at least ")
        place = [budget.what for budget in budgets].index(what)
        before = budgets[:place]
        allocate(traces, widths, budgets=[*before, Budget(what, budgets[place].costs, float(least))])
        with pytest.raises(ValueError, match=f"expected {what} of at least {least}, got"):
            allocate(traces, widths, budgets=[*before, Budget(what, budgets[place].costs, float(least) - 0.125)])


def test_budgets_count_what_they_say():
    widths = {"a": 3, "b": 8}
    assert model_bytes({"a": 9, "b": 100}, 0).total(widths) == 4 + 100  # 27 bits are four bytes
    assert mac_bits({"a": 10, "b": 7}, 0).total(widths) == 30 + 56
    assert table("latency", {"a": {"3": 0.1, "8": 0.2}}, 1).total(widths) == 0.1  # what is left out costs nothing


def test_several_budgets_together():
    traces = {"a": 5.0, "b": 3.0, "c": 1.0}
    latency = table("latency", {"a": {2: 3.0, 4: 2.0, 8: 4.0}, "b": {2: 1.0, 4: 1.0, 8: 5.0}}, 6.0)
    found = allocate(traces, (2, 4, 8), 5.0, at_most=True, budgets=[latency, mac_bits({"c": 10}, 40)])
    assert found.bits == {"a": 8, "b": 4, "c": 2} and found.objective == 54.0
    assert found.used == {"latency": 5.0, "MACs x bits": 20} and found.asked_mean_bits is None
    held = allocate(traces, (2, 4, 8), 5.0, at_most=True, budgets=[latency], fixed={"a": 4})
    assert held.bits == {"a": 4, "b": 4, "c": 4}


TWO = {"a": 1.0, "b": 2.0}
BYTES = model_bytes({"a": 100, "b": 100}, 49)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: allocate(TWO, WIDTHS, 9), ValueError,
         "allocate: expected mean_bits in 2..8, got 9 (the nearest that can be met is 8)"),
        (lambda: allocate(TWO, WIDTHS, 1.5, fixed={"a": 6}), ValueError,
         "allocate: expected mean_bits in 4..7, got 1.5 (the nearest that can be met is 4)"),
        (lambda: allocate(TWO, WIDTHS, budgets=[BYTES]), ValueError,
         "allocate: expected model bytes of at least 50, got 49 (the nearest that can be met)"),
        (lambda: allocate(TWO, WIDTHS, 4, budgets=[BYTES]), ValueError,
         "allocate: expected model bytes of at least 100, got 49 (the nearest that can be met, with the other limits)"),
        (lambda: allocate(TWO, WIDTHS, 1, at_most=True), ValueError,
         "allocate: expected sum of bits of at least 4, got 2 (the nearest that can be met)"),
        (lambda: allocate({}, WIDTHS), ValueError, "allocate: expected traces of at least one layer, got none"),
        (lambda: allocate({"a": float("nan")}, WIDTHS), ValueError,
         "allocate: expected finite traces, got nan for 'a'"),
        (lambda: allocate(TWO, (2, 2)), ValueError, "allocate: expected bits to be different widths in 1..8, got (2, 2)"),
        (lambda: allocate(TWO, (4, 9)), ValueError, "allocate: expected bits to be different widths in 1..8, got (4, 9)"),
        (lambda: allocate(TWO, ()), ValueError, "allocate: expected bits to be different widths in 1..8, got ()"),
        (lambda: allocate(TWO, (4.0,)), TypeError, "allocate: expected bits to be integers, got (4.0,)"),
        (lambda: allocate(TWO, WIDTHS, fixed={"c": 2}), ValueError,
         "allocate: expected fixed to name layers that have a trace, got 'c'"),
        (lambda: allocate(TWO, WIDTHS, fixed={"a": 3}), ValueError,
         "allocate: expected fixed['a'] to be one of (2, 4, 6, 8), got 3"),
        (lambda: allocate(TWO, WIDTHS, budgets=[mac_bits({"c": 1}, 9)]), ValueError,
         "allocate: expected costs of layers that have a trace, got 'c' (MACs x bits)"),
        (lambda: allocate(TWO, WIDTHS, budgets=[table("latency", {"a": {2: 1}}, 9)]), ValueError,
         "Budget: expected costs of 'a' to hold 4 bits, got 2 (latency)"),
        (lambda: table("latency", {"a": {2: -1}}, 9), ValueError,
         "Budget: expected costs to be finite and at least 0, got -1.0 (latency of 'a' at 2 bits)"),
        (lambda: mac_bits({"a": 1}, float("inf")), ValueError,
         "Budget: expected limit to be finite, got inf (MACs x bits)"),
    ],
)  # fmt: skip
def test_refused(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error and str(caught.value) == message


def test_without_scipy_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(
        ImportError, match=r"^allocate: expected scipy to be installed .*, got none \(quintil\[bits\]\)$"
    ):
        allocate(TWO, WIDTHS, 4)


def test_pool():
    """Every neighbour is there: the best choice under each single condition, found by brute force."""
    traces = {"a": 0.9, "b": 0.5, "c": -0.1, "d": 0.2}
    pool = candidate_pool(traces, (2, 4, 6), [4.0, 4.1])
    kept = {tuple(candidate.bits.values()) for candidate in pool}
    assert len(kept) == len(pool) and all(candidate.mean_bits == 4 for candidate in pool)

    def value(choice):
        return math.fsum(t * b for t, b in zip(traces.values(), choice))

    choices = [choice for choice in itertools.product((2, 4, 6), repeat=4) if sum(choice) == 16]
    best = max(choices, key=value)
    assert best in kept and best == tuple(pool[0].bits.values())
    conditions = [(i, b) for i in range(4) for b in (2, 4) if b != best[i]]
    wanted = {max(value(c) for c in choices if c[i] == b) for i, b in conditions}
    assert {round(value(choice), 9) for choice in kept - {best}} == {round(v, 9) for v in wanted}


def test_pool_keeps_its_limits():
    pool = candidate_pool(TWO, WIDTHS, [None], budgets=[model_bytes({"a": 100, "b": 100}, 100)], fixed={"a": 2})
    assert [candidate.bits for candidate in pool] == [{"a": 2, "b": 6}, {"a": 2, "b": 2}, {"a": 2, "b": 4}]
    assert candidate_pool({"a": 1.0}, WIDTHS, [6]) == [allocate({"a": 1.0}, WIDTHS, 6)]  # no other width has this sum


def test_pareto_front():
    points = [(4, 60.0), (3, 61.0), (5, 61.0), (3, 61.0), (6, 70.0), (2, 10.0), (2, 20.0)]
    assert pareto_front(points) == [6, 1, 4] and pareto_front([]) == []


def test_a_solve_of_resnet50_takes_less_than_a_second():
    """Processor time, since other programs may share the machine."""
    traces = {f"l{i}": 0.95**i for i in range(53)}
    sizes = {name: 1000 + 977 * i * i for i, name in enumerate(traces)}
    latency = {name: {b: (b + i * b % 7) / 53 for b in WIDTHS} for i, name in enumerate(traces)}
    budgets = [model_bytes(sizes, 0.5 * sum(sizes.values())), table("latency", latency, 7.0)]
    start = time.process_time()
    allocate(traces, WIDTHS, 5.0, budgets=budgets)
    assert time.process_time() - start < 1.0
