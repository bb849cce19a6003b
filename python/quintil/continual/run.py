"""Runs a configuration over its seeds and leaves the run directory of [CIL 7]."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from quintil import data
from quintil.metrics import estimate, read_run
from quintil.models import IncrementalNet

from . import distributed
from .checkpoint import CheckpointFolder
from .config import RunConfig
from .evaluation import evaluate, summarise
from .interrupt import Interrupted, deferred_interrupt
from .learner import Learner
from .learner_state import restore_running
from .observer import Observer
from .position import Position, begin, check_tasks, save, take_state
from .registry import find_learner
from .rundir import SeedDirectory, encode, quintil_version, write_atomic
from .streams import Streams
from .tasks import Task, TaskStream, class_order, task_sizes
from .threads import torch_threads


@dataclass
class SeedSetup:
    """Everything of one seed before training: the data set, its tasks, the learner and its folder."""

    config: RunConfig
    seed: int
    dataset: data.Dataset
    tasks: TaskStream
    learner: Learner
    folder: SeedDirectory
    described: dict | None = None

    @property
    def checkpoints(self) -> CheckpointFolder:
        return CheckpointFolder(self.folder.path / "ckpt")

    def describe(self) -> dict:
        """Content of config.json: resolved options, class order, persons, checksums, version; deterministic.

        Of the net as it was before the first task: some nets grow with every task.
        """
        if self.described is None:
            self.described = self._describe()
        return self.described

    def _describe(self) -> dict:
        persons = {}
        for side in ("train", "test"):
            subjects = getattr(self.dataset, f"subject_{side}")
            persons[f"subjects_{side}"] = None if subjects is None else subjects.unique().tolist()
        return {
            **self.config.resolved(),
            "seed": self.seed,
            "order_seed": order_seed(self.config, self.seed),
            "init_cls": self.tasks.sizes[0],
            "network": self.learner.net.network,
            "features": self.learner.net.backbone.out_features,
            "class_order": self.tasks.order,
            "class_names": list(self.dataset.class_names),
            "task_sizes": self.tasks.sizes,
            "checksums": self.dataset.checksums,
            "data_features": self.dataset.features,
            "learner_variant": self.learner.variant,
            "version": quintil_version(),
            **persons,
        }


def order_seed(config: RunConfig, seed: int) -> int:
    """The seed of the class order: the run's own unless the configuration fixes one."""
    return seed if config.order_seed is None else config.order_seed


def build_net(config: RunConfig, dataset: data.Dataset, streams: Streams) -> IncrementalNet:
    """The float32 net of a configuration for the samples of a data set; ValueError if they do not fit."""
    sample = dataset.transform(dataset.x_train[:1])
    images = sample.dim() == 4
    if config.in_dim not in (None, sample[0].numel()):
        raise ValueError(
            f"build_net: expected in_dim to equal the values per sample of {dataset.name}, got {config.in_dim} and "
            f"{sample[0].numel()} (sample shape {list(sample.shape[1:])})"
        )
    windows = sample.dim() == 3 and sample.is_floating_point()
    model = config.model or ("resnet32" if images and sample.size(1) == 3 else "fcnet")
    if model == "lstm" and not windows:
        raise ValueError(
            f"build_net: expected windows [channels, length] for lstm, got samples {list(sample.shape[1:])} "
            f"(data set {dataset.name})"
        )
    if model.startswith("resnet") and (not images or sample.size(1) != 3):
        raise ValueError(
            f"build_net: expected samples [3, height, width] for {model}, got {list(sample.shape[1:])} "
            f"(data set {dataset.name})"
        )
    generator = streams["init"]
    with torch.random.fork_rng(devices=[]):  # layers first initialise themselves from the default generator
        inputs = sample.size(1) if model == "lstm" else sample[0].numel()
        net = find_learner(config.method).make_net(config, model, inputs, generator)
    return net.to(memory_format=torch.channels_last) if images else net


def data_options(config: RunConfig, seed: int) -> dict:
    """The arguments of `data.load` for one seed; equal ones give equal data."""
    names = ("split", "normalise", "download", "features_file", "subjects_drop", "classes_drop", "validation")
    options = {name: getattr(config, name) for name in names}
    return {"name": config.dataset, "root": config.data_root, "seed": seed, **options}


def prepare(config: RunConfig, seed: int, dataset: data.Dataset | None = None) -> SeedSetup:
    """Load the data, draw the class order and build the learner of one seed; trains nothing.

    dataset: what `data.load` gives for `data_options(config, seed)`, where it is there already.
    """
    dataset = data.load(**data_options(config, seed)) if dataset is None else dataset
    classes = len(dataset.class_names)
    order = class_order(classes, config.class_order, order_seed(config, seed))
    tasks = TaskStream(dataset, order, task_sizes(classes, config.first_classes(classes), config.increment))
    kind = find_learner(config.method)
    if kind.single_task and len(tasks) > 1:
        raise ValueError(
            f"run: expected a single task for method {config.method}, got {len(tasks)} "
            f"(give init_cls {classes} and increment 0)"
        )
    streams = Streams(seed)
    learner = kind(build_net(config, dataset, streams), config, dataset, streams, classes)
    learner.class_names = tuple(str(dataset.class_names[label]) for label in order)
    folder = SeedDirectory(config.directory(classes) / f"seed{seed}")
    return SeedSetup(config, seed, dataset, tasks, learner, folder)


def run(
    config: RunConfig,
    observer: Observer | None = None,
    *,
    force: bool = False,
    resume: bool = True,
    start_from: int | None = None,
    stop_after: int | None = None,
) -> Path:
    """Run every seed that is not finished yet (`force`: all), aggregate, and return the run directory.

    resume: an unfinished seed goes on after its newest checkpoint, with the results of an uninterrupted run; False
        starts it again. start_from: train from this task on, from the checkpoint kept of the task before it, whether
        the seed is finished or not. stop_after: end every seed after this task, unfinished (tasks count from 1).

    Inside a `torch.distributed` process group the processes train every seed together (`continual.distributed`); all
    call `run` with the same options, and the first one writes and tells the observer.

    KeyboardInterrupt passes through after the current batch is done and `last.pt` written (a second Ctrl-C: at once,
    files of finished tasks are whole). ValueError: a directory or checkpoint of another configuration, a damaged
    checkpoint. OSError: a file that cannot be written; what was written before is whole.
    """
    path = None
    for seed in config.seeds:
        path = run_seed(
            config, seed, observer, force=force, resume=resume, start_from=start_from, stop_after=stop_after
        ).parent
        if any(path.glob("seed*/summary.json")):
            aggregate(path)
    assert path is not None
    return path


def run_seed(
    config: RunConfig,
    seed: int,
    observer: Observer | None = None,
    *,
    force: bool = False,
    resume: bool = True,
    start_from: int | None = None,
    stop_after: int | None = None,
) -> Path:
    """Run one seed unless it is finished, and return its folder; the options are those of `run`."""
    observer = Observer() if observer is None or distributed.rank() else observer
    with torch_threads(config.threads):
        setup = prepare(config, seed)
        described = setup.describe()
        check(setup, force=force, start_from=start_from, stop_after=stop_after)
        if setup.folder.finished and not force and start_from is None:
            observer.on_skip(seed, setup.folder.path)
            return setup.folder.path
        with setup.learner.streams.rounding(), deferred_interrupt() as asked:

            def interrupted() -> bool:
                return distributed.anywhere(asked())

            setup.learner.interrupted = interrupted
            position = begin(setup, described, observer, resume=resume and not force, start_from=start_from)
            summary = _train(setup, observer, position, stop_after)
            if summary is not None:
                setup.folder.finish(summary)
                distributed.barrier()
                observer.on_finish(seed, summary)
        if interrupted():
            raise KeyboardInterrupt
    return setup.folder.path


def check(setup: SeedSetup, *, force: bool, start_from: int | None, stop_after: int | None) -> None:
    """ValueError if the options of `run` do not fit the tasks, or the directory holds another configuration."""
    check_tasks(len(setup.tasks), force, start_from, stop_after)
    setup.folder.check_config(setup.describe(), repeated=(setup.seed, *setup.config.seeds) if force else ())


@distributed.in_first
def aggregate(path: Path) -> dict:
    """Write aggregate.json and aggregate.csv of all finished seeds: mean, std (n - 1), 95 % interval; returns it.

    ValueError if no seed of the run directory `path` is finished.
    """
    result = read_run(path)
    if not result.seeds:
        raise ValueError(f"aggregate: expected a finished seed, got only unfinished ones (in {path})")
    scalars = sorted({name for seed in result.seeds.values() for name, v in seed.summary.items() if _is_float(v)})
    table = {name: estimate(list(result.values(name).values())).as_dict() for name in scalars}
    curves = {}
    for head in result.heads():
        rows = zip(*(seed.curve(head, "acc") for seed in result.seeds.values()))
        curves[f"acc_{head}"] = [estimate(row).as_dict() for row in rows]
    content = {"seeds": sorted(result.seeds), "label": result.label, "summary": table, "curves": curves}
    write_atomic(path / "aggregate.json", encode(content) + "\n")
    columns = ("mean", "std", "n", "low", "high")
    lines = [
        ",".join([name, *("" if row[c] is None else f"{row[c]:.6g}" for c in columns)]) for name, row in table.items()
    ]
    write_atomic(path / "aggregate.csv", "\n".join(["name," + ",".join(columns), *lines]) + "\n")
    return content


def _is_float(value: object) -> bool:
    return isinstance(value, float)


def _train(setup: SeedSetup, observer: Observer, position: Position, stop_after: int | None) -> dict | None:
    """All tasks of one seed that are left; returns the summary, or None if it stopped before the last task."""
    tasks = setup.tasks
    last = len(tasks) if stop_after is None else stop_after
    for task in tasks:
        if position.task < task.number <= last:
            _train_task(setup, observer, position, task)
            if setup.learner.interrupted() and task.number < last:
                raise Interrupted
    return summarise(setup, setup.folder.record) if position.task == len(tasks) else None


def _train_task(setup: SeedSetup, observer: Observer, position: Position, task: Task) -> None:
    learner, folder = setup.learner, setup.folder
    start = time.perf_counter()
    learner.begin_task(task)
    epoch = 0
    if position.running is not None:
        epoch = restore_running(learner, position.running, position.path, setup.dataset.x_train)
        position.running = None
    try:
        while epoch < learner.epochs:
            log = learner.train_epoch()
            epoch += 1
            if setup.config.eval_every and epoch % setup.config.eval_every == 0:
                log["test_acc"] = 100.0 * float((learner.predict(task.x_test) == task.y_test).double().mean())
            folder.log_epoch({"task": task.number, "epoch": epoch, **log})
            observer.on_epoch(task, epoch, log)
            if learner.interrupted():
                raise Interrupted
    except Interrupted:
        save(setup, position, epoch)
        raise
    trained = time.perf_counter()
    learner.end_task()
    ended = time.perf_counter()
    record, matrices = evaluate(setup, task, position.history)
    log = folder.last_epoch
    record |= {"lr_last": log["lr"], "loss_last": log["loss"], "train_acc_last": log["train_acc"]}
    evaluated = time.perf_counter()
    timing = {
        "task": task.number,
        "train_s": trained - start,
        "end_task_s": ended - trained,
        "eval_s": evaluated - ended,
        "samples_per_s": learner.trained_samples / (trained - start),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0,
        **{f"{name}_s": seconds for name, seconds in learner.seconds.items()},
    }
    folder.add_task(record, timing)
    position.task, position.state = task.number, take_state(learner)
    save(setup, position)  # first: the other files can be written again from it, not the other way round
    folder.write_task(position.history, matrices)
    observer.on_task(task, record, timing)
