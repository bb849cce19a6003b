"""What every run of a stage has: where it reads and writes, its checks, and the network it starts from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quintil.continual.rundir import folder_name
from quintil.schemes import Scheme

_NO_RESULT = ("data_root", "workers", "threads", "results_dir", "exp_name", "start")


@dataclass(frozen=True)
class StageRun:
    """The options that all kinds of runs share.

    dataset: of `quintil.data.load`, or what the kind of run adds. model, stage: of the lists of the kind of run.
    limit_batches: batches per epoch and of the test, 0 = all.
    test_every: epochs from one test to the next; the last epoch is always tested.
    start: checkpoint of an earlier stage whose values the run starts from.
    """

    dataset: str
    model: str
    stage: str
    exp_name: str
    scheme: Scheme
    batch_size: int = 256
    seed: int = 0
    limit_batches: int = 0
    test_every: int = 1
    start: str | None = None
    data_root: str | None = None
    threads: int | None = None
    results_dir: str = "runs"

    def check(self, models: Sequence[str], stages: Sequence[str], at_least_one: Sequence[str]) -> None:
        """ValueError for a model or stage that is not listed, and for a field below 1."""
        kind = type(self).__name__
        for name, allowed in (("model", models), ("stage", stages)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{kind}: expected {name} to be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        for name in at_least_one:
            if getattr(self, name) < 1:
                raise ValueError(f"{kind}: expected {name} of at least 1, got {getattr(self, name)}")

    def folder_of(self, options: str) -> Path:
        """<results_dir>/<exp_name>/<data>_<model>_<stage><options>/seed<k>."""
        name = f"{self.dataset}_{self.model}_{self.stage}{options}"
        return Path(self.results_dir) / self.exp_name / folder_name(name) / f"seed{self.seed}"

    def resolved(self) -> dict[str, Any]:
        """The options that decide a result, as JSON values; the scheme only where the stage has one."""
        plain = dataclasses.asdict(dataclasses.replace(self, scheme=type(self.scheme)()))
        kept = {name: value for name, value in plain.items() if name not in _NO_RESULT}
        return {**kept, "scheme": None if self.stage == "float" else self.scheme.to_dict()}


def drawn_model(make: Callable[..., nn.Module], classes: int, seed: int, **options: Any) -> nn.Module:
    """The float network, its values drawn from the seed, channels last."""
    with torch.random.fork_rng(devices=[]):  # layers first initialise themselves from the default generator
        torch.manual_seed(seed)
        net = make(classes, generator=torch.Generator().manual_seed(seed), **options)
    return net.to(memory_format=torch.channels_last)
