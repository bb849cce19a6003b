"""Roulette and HASB: probabilities, the published sensitivities, the growing share [DR D21-D23]."""

from __future__ import annotations

import math

import pytest
import torch
from quintil.bits import HASB, Roulette, sensitive_layers
from test_allocate import INNER


def test_published_sensitivity():
    """T9: of the 18 inner layers of ResNet-20."""
    assert sum(INNER.values()) / 18 == pytest.approx(0.015884, abs=5e-7)
    names = list(INNER)
    assert sorted(names.index(name) for name in sensitive_layers(INNER)) == [0, 2, 4, 6, 12]
    assert sensitive_layers({"a": 2.0, "b": 2.0}) == {"a", "b"}  # at least the mean


@pytest.mark.parametrize(
    "bits, percent, mean", [((8, 6, 4, 2), (10, 20, 30, 40), 6.0), ((4, 3, 2), (22.2222, 33.3333, 44.4444), 29 / 9)]
)
def test_frequencies(bits, percent, mean):
    """T8: a million draws within three standard errors, sensitive and not."""
    count = 1_000_000
    traces = {**{i: 1.0 for i in range(count)}, **{-1 - i: 0.0 for i in range(count)}}
    roulette = Roulette(bits, traces)
    widths = roulette.draw(torch.Generator().manual_seed(5))
    for drawn, wanted in ((widths[:count], percent), (widths[count:], [100 / len(bits)] * len(bits))):
        for width, share in zip(sorted(bits), wanted):
            error = math.sqrt(count * share / 100 * (1 - share / 100))
            assert abs(int((drawn == width).sum()) - count * share / 100) < 3 * error
    assert widths[:count].double().mean() == pytest.approx(mean, abs=0.01)
    assert widths[count:].double().mean() == pytest.approx(sum(bits) / len(bits), abs=0.01)


@pytest.mark.parametrize("rand, width", [(0.0, 8), (0.39, 8), (0.41, 6), (0.69, 6), (0.71, 4), (0.89, 4), (0.91, 2)])
def test_width_of_a_number(monkeypatch, rand, width):
    """r = 1 - rand lies in (0, 1]: ends of the cumulative sum .1 .3 .6 1 of the ascending list."""
    roulette = Roulette((8, 2, 6, 4), {"a": 1.0})
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, rand, dtype=torch.float64))
    assert roulette.draw().item() == width


def test_a_cumulative_sum_that_ends_below_one(monkeypatch):
    roulette = Roulette((2, 3, 4), {"a": 1.0})
    ends = roulette.probabilities() * (1 - 1e-9)
    monkeypatch.setattr(roulette, "probabilities", lambda: ends)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.zeros(size, dtype=torch.float64))
    assert roulette.draw().item() == 4


def test_names_alone_are_not_sensitive():
    assert torch.equal(Roulette((2, 8), ["a", "b"]).probabilities(), torch.full((2, 2), 0.5, dtype=torch.float64))


def test_share_grows_after_the_warm_up():
    hasb = HASB(Roulette((2, 8), {"a": 1.0}), epochs=20, sigma=0.5, warmup=10)
    assert [hasb.share(epoch) for epoch in (0, 9, 10, 19)] == [0.0, 0.0, 0.5 * 11 / 20, 0.5]


def test_draws_of_a_step():
    traces = {f"l{i}": float(i % 2) for i in range(20_000)}
    hasb = HASB(Roulette((2, 4, 6, 8), traces), epochs=10, sigma=0.4, warmup=2)
    assert set(hasb.draw(6, 1).values()) == {6}
    drawn = hasb.draw(6, 4, torch.Generator().manual_seed(1))
    assert list(drawn) == list(traces) and drawn == hasb.draw(6, 4, torch.Generator().manual_seed(1))
    assert drawn != hasb.draw(6, 4, torch.Generator().manual_seed(2))
    sensitive = [width for name, width in drawn.items() if traces[name] == 1.0]
    share = 0.4 * 5 / 10
    for width, probability in ((2, 0.1), (4, 0.2), (6, 0.3), (8, 0.4)):
        wanted = share * probability + (1 - share) * (width == 6)
        assert sensitive.count(width) / len(sensitive) == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: Roulette((2, 9), {"a": 1.0}), ValueError,
         "Roulette: expected bits to be different widths in 1..8, got (2, 9)"),
        (lambda: Roulette((2, 4), {}), ValueError, "sensitive_layers: expected traces of at least one layer, got none"),
        (lambda: HASB(Roulette((2,), {"a": 1.0}), epochs=3, sigma=1.5), ValueError,
         "HASB: expected sigma in 0..1, got 1.5"),
        (lambda: HASB(Roulette((2,), {"a": 1.0}), epochs=0), ValueError,
         "HASB: expected epochs of at least 1 and warmup of at least 0, got 0 and 10"),
    ],
)  # fmt: skip
def test_refused(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error and str(caught.value) == message
