"""Random widths for the layers of a super-net, wider where rounding hurts: Roulette and HASB [DR D21-D23]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .allocate import checked_widths


def sensitive_layers(traces: Mapping[str, float]) -> set[str]:
    """Layers whose trace is at least the mean over all of them [DR D21]; `traces` holds the quantised layers."""
    if not traces:
        raise ValueError("sensitive_layers: expected traces of at least one layer, got none")
    mean = sum(traces.values()) / len(traces)
    return {name for name, trace in traces.items() if trace >= mean}


class Roulette:
    """Draws widths: a layer that is not sensitive takes each with equal probability, a sensitive one takes b with
    probability b over the sum of all [DR D22].

    bits: widths, in any order. layers: traces of the quantised layers by name, from which [D21] tells the sensitive
    ones; or names alone, none of them sensitive.
    """

    def __init__(self, bits: Sequence[int], layers: Mapping[str, float] | Sequence[str]):
        self.bits = checked_widths("Roulette", bits)
        sensitive = sensitive_layers(layers) if isinstance(layers, Mapping) else set()
        self.layers = tuple(layers)
        self.sensitive = torch.tensor([name in sensitive for name in self.layers])

    def probabilities(self) -> Tensor:
        """float64 [layers, widths], layers in the given order, widths ascending."""
        widths = torch.tensor(self.bits, dtype=torch.float64)
        rows = torch.stack([torch.full_like(widths, 1.0 / len(self.bits)), widths / widths.sum()])
        return rows[self.sensitive.long()]

    def draw(self, generator: torch.Generator | None = None) -> Tensor:
        """One width per layer, int64 [layers]: the first whose cumulative probability reaches r ~ U(0, 1]."""
        r = 1.0 - torch.rand(len(self.layers), 1, dtype=torch.float64, generator=generator)
        place = torch.searchsorted(self.probabilities().cumsum(1), r).clamp_max(len(self.bits) - 1)
        return torch.tensor(self.bits)[place[:, 0]]


class HASB:
    """Widths of one training step of a super-net: the step's own width, replaced by a Roulette draw in more and more
    layers [DR D23].

    roulette: draws the widths. epochs: of the whole training. sigma: share of layers that are redrawn in the last
    epoch; it grows linearly. warmup: first epochs in which none is.
    """

    def __init__(self, roulette: Roulette, *, epochs: int, sigma: float = 0.5, warmup: int = 10):
        if not 0 <= sigma <= 1:
            raise ValueError(f"HASB: expected sigma in 0..1, got {sigma}")
        if epochs < 1 or warmup < 0:
            raise ValueError(f"HASB: expected epochs of at least 1 and warmup of at least 0, got {epochs} and {warmup}")
        self.roulette, self.epochs, self.sigma, self.warmup = roulette, epochs, sigma, warmup

    def share(self, epoch: int) -> float:
        """Probability that a layer is redrawn in `epoch`, which counts from 0."""
        return 0.0 if epoch < self.warmup else self.sigma * (epoch + 1) / self.epochs

    def draw(self, width: int, epoch: int, generator: torch.Generator | None = None) -> dict[str, int]:
        """layer -> width for one step at `width`; weight and activation of a layer share it."""
        redrawn = torch.rand(len(self.roulette.layers), generator=generator) < self.share(epoch)
        widths = torch.where(redrawn, self.roulette.draw(generator), width)
        return dict(zip(self.roulette.layers, widths.tolist()))
