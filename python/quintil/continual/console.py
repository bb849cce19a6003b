"""The text a run shows: the plan before training, a progress bar, one line per task, and the final table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from .config import scheme_label
from .observer import Observer
from .run import SeedSetup
from .tasks import Task

_MAX_PLAN_ROWS = 20


def plan_text(setup: SeedSetup) -> str:
    """What will be trained: data, tasks with classes and samples, exemplars, sizes, schedule, scheme."""
    config, tasks, learner, dataset = setup.config, setup.tasks, setup.learner, setup.dataset
    sample = dataset.transform(dataset.x_train[:1])
    what = f" ({dataset.features})" if dataset.features else ""
    lines = [
        f"plan  {config.dataset}, {config.method} ({learner.variant}), {scheme_label(config.scheme)}",
        f"  data      {len(dataset.y_train)} training and {len(dataset.y_test)} test samples of shape "
        f"{list(sample.shape[1:])}{what}, split {config.split or 'default'}, normalise {config.normalise or 'default'}",
        f"  seeds     {' '.join(map(str, config.seeds))} (first: {setup.seed}; class order from "
        f"{'the seed' if config.order_seed is None else config.order_seed})",
        f"  network   {learner.net.network}, {learner.net.backbone.out_features} features, "
        f"{sum(p.numel() for p in learner.net.backbone.parameters()):,} parameters without the head",
    ]
    for first in (True, False)[: len(tasks)]:
        epochs, lr, milestones, decay, weight_decay = config.schedule(first)
        falls = f"x{decay:g} at {', '.join(map(str, milestones))}" if milestones else "constant"
        which = "first task" if first else "later tasks"
        lines.append(
            f"  {which:<12}{epochs} epochs, batch {config.batch_size}, SGD lr {lr:g} {falls}, momentum "
            f"{config.momentum:g}, weight decay {weight_decay:g}"
        )
    lines += _task_rows(setup)
    lines.append(f"  results   {setup.folder.path.parent}")
    return "\n".join(lines)


def _task_rows(setup: SeedSetup) -> list[str]:
    tasks, memory = setup.tasks, setup.learner.memory
    rows, seen = [], 0
    sample = setup.dataset.x_train[0]
    for number, size in enumerate(tasks.sizes, start=1):
        seen += size
        train, test = tasks.counts(number)
        labels = [str(setup.dataset.class_names[c]) for c in tasks.order[seen - size : seen]]
        names = ", ".join(labels[:4]) + (", ..." if size > 4 else "")
        row = f"  task {number:<5}{size} classes ({names}), {train} training and {test} test samples"
        if memory is not None:
            kept, samples = memory.planned(seen)
            row += f", then {kept} ({samples * memory.samples.bytes_of(sample) / 1e6:.2f} MB at most)"
        rows.append(row)
    if len(rows) > _MAX_PLAN_ROWS:
        rows = [*rows[: _MAX_PLAN_ROWS - 1], f"  ... {len(rows) - _MAX_PLAN_ROWS} more tasks", rows[-1]]
    return rows


def task_line(task: Task, tasks: int, record: dict, timing: dict) -> str:
    """One line per task, both heads beside each other [CIL 7]."""

    def both(name: str) -> str:
        return " ".join(f"{tag.upper()} {record[tag][name]:.2f}" for tag in ("cnn", "nme") if tag in record)

    linear = record["cnn"]
    parts = [f"task {task.number}/{tasks}", f"classes 0-{task.last - 1} | {both('acc')}"]
    if task.first:
        parts.append(f"| old {linear['acc_old']:.1f} new {linear['acc_new']:.1f}")
    parts.append(f"| AIA {linear['avg_inc_acc']:.2f}")
    if task.first:
        parts.append(f"| forget(old best) {linear['forgetting_class_best_old']:.1f}")
    seconds = timing["train_s"] + timing["end_task_s"] + timing["eval_s"]
    whole = ("end_task_s", "eval_s", "samples_per_s")
    stages = [name for name in timing if name.endswith("_s") and name not in whole]
    told = " ".join(f"{name.removesuffix('_s')} {_clock(timing[name])}" for name in stages)
    parts.append(f"| {_clock(seconds)} ({told})")
    if "bic" in record:
        parts.append(f"| alpha {record['bic']['alpha']:.3f} beta {record['bic']['beta']:.3f}")
    if "wa_gamma" in record:
        parts.append(f"| gamma {record['wa_gamma']:.3f}")
    if record["exemplars"]:
        parts.append(f"| mem {record['exemplars']} ex {record['exemplar_bytes'] / 1e6:.2f} MB")
    return "  ".join(parts[:2]) + " " + " ".join(parts[2:])


def summary_line(summary: dict) -> str:
    """Accuracy after the last task and averaged over tasks, both heads beside each other."""

    def both(name: str) -> str:
        return " ".join(
            f"{tag.upper()} {summary[f'{name}_{tag}']:.2f}" for tag in ("cnn", "nme") if f"{name}_{tag}" in summary
        )

    return f"last {both('last_acc')} | AIA {both('avg_inc_acc')}"


def _clock(seconds: float) -> str:
    return (
        f"{int(seconds) // 60}:{seconds % 60:04.1f}"
        if seconds < 600
        else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
    )


class Console(Observer):
    """Prints the plan once, a progress bar over all epochs of a seed, and a line per task.

    quiet: no plan and no task lines, only the bar. `label` stands before the bar's text.
    """

    def __init__(self, *, label: str = "", quiet: bool = False, stream: TextIO | None = None):
        self.label, self.quiet = label, quiet
        self.stream = sys.stdout if stream is None else stream
        self._planned = False
        self._bar: tqdm | None = None
        self._tasks = 0

    def write(self, text: str) -> None:
        tqdm.write(text, file=self.stream)

    def on_seed(self, setup: SeedSetup) -> None:
        if not self._planned and not self.quiet:
            self.write(plan_text(setup))
        self._planned = True
        self._tasks = len(setup.tasks)
        epochs = sum(setup.config.schedule(number == 0)[0] for number in range(self._tasks))
        self._bar = tqdm(
            total=epochs,
            desc=f"{self.label}seed {setup.seed}",
            unit="epoch",
            dynamic_ncols=True,
            leave=False,
            disable=None,
        )
        if not self.quiet:
            self.write(f"seed {setup.seed}")

    def on_skip(self, seed: int, path: Path) -> None:
        if not self.quiet:
            self.write(f"seed {seed}  already finished, kept ({path})")

    def on_resume(self, setup: SeedSetup, task: int, epochs: int, path: Path) -> None:
        done = sum(setup.config.schedule(number == 0)[0] for number in range(task)) + epochs
        self._bar.update(done)
        if not self.quiet:
            inside = f" and {epochs} epochs of task {task + 1}" if epochs else ""
            self.write(f"seed {setup.seed}  goes on after task {task}{inside} ({path})")

    def on_epoch(self, task: Task, epoch: int, log: dict) -> None:
        self._bar.set_postfix(task=f"{task.number}/{self._tasks}", loss=f"{log['loss']:.3f}", refresh=False)
        self._bar.update()

    def on_task(self, task: Task, record: dict, timing: dict) -> None:
        if not self.quiet:
            self.write(task_line(task, self._tasks, record, timing))

    def on_finish(self, seed: int, summary: dict) -> None:
        self.close()
        if not self.quiet:
            self.write(summary_line(summary))

    def close(self) -> None:
        """Remove the progress bar (also after an interrupt)."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
