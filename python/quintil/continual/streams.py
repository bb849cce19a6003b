"""Separate random streams of one run, each seeded from (seed, stream name) [CIL R11]."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stream_seed(seed: int, name: str) -> int:
    """A 63-bit seed for the stream `name` of the run `seed`: the same on every platform, unrelated between names."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class Streams:
    """Generators of one run by name: init, shuffle, augment, exemplars. Draws from one never move another."""

    def __init__(self, seed: int):
        self.seed = seed
        self._generators: dict[str, torch.Generator] = {}

    def __getitem__(self, name: str) -> torch.Generator:
        if name not in self._generators:
            generator = torch.Generator()
            generator.manual_seed(stream_seed(self.seed, name))
            self._generators[name] = generator
        return self._generators[name]

    @contextmanager
    def rounding(self) -> Iterator[None]:
        """Inside, torch's default generator is the stream of stochastic rounding; afterwards it is as before.

        Quantised layers draw one seed per training forward from the default generator; nothing else in a run does.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(self.seed, "rounding"))
            yield
