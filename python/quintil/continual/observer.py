"""What a run tells while it goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .tasks import Task

if TYPE_CHECKING:
    from .run import SeedSetup


class Observer:
    """What a run tells while it goes; the base class listens and says nothing."""

    def on_seed(self, setup: SeedSetup) -> None:
        """Before the first task of a seed."""

    def on_skip(self, seed: int, path: Path) -> None:
        """The seed was finished earlier and is left as it is."""

    def on_resume(self, setup: SeedSetup, task: int, epochs: int, path: Path) -> None:
        """After on_seed: the checkpoint `path` holds `task` finished tasks and `epochs` epochs of the next one."""

    def on_epoch(self, task: Task, epoch: int, log: dict) -> None:
        """After every epoch (1-based)."""

    def on_task(self, task: Task, record: dict, timing: dict) -> None:
        """After a task is evaluated and written."""

    def on_finish(self, seed: int, summary: dict) -> None:
        """After the last task of a seed."""
