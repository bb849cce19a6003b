"""Separate random streams of one run, each seeded from (seed, stream name) [CIL R11]."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .distributed import rank


def stream_seed(seed: int, name: str) -> int:
    """A 63-bit seed for the stream `name` of the run `seed`: the same on every platform, unrelated between names."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class Streams:
    """Generators of one run by name: init, shuffle, augment, exemplars. Draws from one never move another."""

    def __init__(self, seed: int):
        self.seed = seed
        self._generators: dict[str, torch.Generator] = {}
        self._rounding: Tensor | None = None  # loaded state of the rounding stream, None = its seed
        self._inside = False

    def __getitem__(self, name: str) -> torch.Generator:
        if name not in self._generators:
            generator = torch.Generator()
            generator.manual_seed(stream_seed(self.seed, name))
            self._generators[name] = generator
        return self._generators[name]

    def start_epoch(self, task: int, epoch: int) -> None:
        """In a process other than the first of several: its own rounding stream, a new one for every epoch.

        So no state of it has to be kept: a run that goes on after a checkpoint draws what it would have drawn.
        """
        if rank() > 0:
            torch.manual_seed(stream_seed(self.seed, f"rounding/rank{rank()}/task{task}/epoch{epoch}"))

    @contextmanager
    def rounding(self) -> Iterator[None]:
        """Inside, torch's default generator is the stream of stochastic rounding; afterwards it is as before.

        Quantised layers draw one seed per training forward from the default generator; nothing else in a run does.
        """
        with torch.random.fork_rng(devices=[]):
            if self._rounding is None:
                torch.manual_seed(stream_seed(self.seed, "rounding"))
            else:
                torch.set_rng_state(self._rounding)
            self._inside = True
            try:
                yield
            finally:
                self._inside = False

    def state(self) -> dict[str, Tensor | None]:
        """The states of all streams by name; that of "rounding" is None unless it was loaded or is in use."""
        states = {name: generator.get_state() for name, generator in self._generators.items()}
        return {**states, "rounding": torch.get_rng_state() if self._inside else self._rounding}

    def load_state(self, state: dict[str, Tensor | None]) -> None:
        """Set every stream to a state from `state()`; streams that are not in it start from their seeds."""
        self._generators.clear()
        for name, value in state.items():
            if name != "rounding":
                self[name].set_state(value)
        self._rounding = state["rounding"]
        if self._inside and self._rounding is not None:
            torch.set_rng_state(self._rounding)
