"""How far a seed is: where it starts or goes on, and the checkpoints on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quintil.metrics import accuracy_matrix

from .checkpoint import check_same_config, run_state
from .distributed import barrier
from .learner import Learner
from .learner_state import learner_state, restore_learner, running_state
from .observer import Observer

if TYPE_CHECKING:
    from .run import SeedSetup


@dataclass
class Position:
    """How far a seed is: finished tasks, their confusion counts and the learner's state then, and the next task's."""

    task: int = 0
    history: dict[str, list[np.ndarray]] = field(default_factory=dict)
    state: dict | None = None
    running: dict | None = None
    path: Path | None = None  # the checkpoint it came from


def begin(setup: SeedSetup, described: dict, observer: Observer, *, resume: bool, start_from: int | None) -> Position:
    """Start the folder of a seed, or take up its checkpoint; nothing is changed before the checkpoint fits."""
    learner, folder, checkpoints = setup.learner, setup.folder, setup.checkpoints
    found = None
    if start_from is not None:
        found = checkpoints.of_task(start_from - 1) if start_from > 1 else None
    elif resume:
        found = checkpoints.newest()
    barrier()  # every process has read what is there before the first one changes it
    if found is None:
        folder.start(described)
        observer.on_seed(setup)
        return Position(state=take_state(learner))
    path, content = found
    check_same_config(content, described, path)
    restore_learner(learner, content, path, setup.dataset.x_train)
    history = {head: [counts.numpy() for counts in tables] for head, tables in content["history"].items()}
    matrices = {head: accuracy_matrix(tables, setup.tasks.sizes) for head, tables in history.items()}
    rows, running = content["rows"], content["running"]
    if running is None:
        rows = {**rows, "log": [row for row in rows["log"] if row["task"] <= content["task"]]}
    folder.restore(described, rows, history, matrices)
    if path.name != "last.pt":  # killed before it was replaced, or asked to go back
        checkpoints.write(content, keep=False)
    if start_from is not None:
        checkpoints.clear(after=content["task"])
    observer.on_seed(setup)
    observer.on_resume(setup, content["task"], 0 if running is None else running["epoch"], path)
    return Position(content["task"], history, take_state(learner), running, path)


def take_state(learner: Learner) -> dict | None:
    """The learner between two tasks, for the checkpoints until the next task ends; None if there will be none."""
    if learner.config.save_checkpoint == "none":
        return None
    return learner_state(learner, self_contained=learner.config.self_contained)


def save(setup: SeedSetup, position: Position, epoch: int | None = None) -> None:
    """Write the checkpoint of a position; `epoch`: of an interruption after so many epochs of the next task."""
    if position.state is None:
        return
    content = run_state(setup, position.task, position.state, position.history)
    if epoch is not None:
        content["running"] = running_state(setup.learner, epoch, self_contained=setup.config.self_contained)
    setup.checkpoints.write(content, keep=setup.config.save_checkpoint == "task" and epoch is None)


def check_tasks(tasks: int, force: bool, start_from: int | None, stop_after: int | None) -> None:
    for name, number in (("start_from", start_from), ("stop_after", stop_after)):
        if number is not None and not 1 <= number <= tasks:
            raise ValueError(f"run: expected {name} in 1..{tasks}, got {number}")
    if start_from is not None and stop_after is not None and start_from > stop_after:
        raise ValueError(f"run: expected start_from of at most stop_after, got {start_from} and {stop_after}")
    if start_from is not None and force:
        raise ValueError(f"run: expected start_from without force, got {start_from} and force")
