"""Runs a configuration over its seeds and leaves the run directory of [CIL 7]."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from quintil import data
from quintil.metrics import accuracy_matrix, confusion_counts, estimate, read_run, task_metrics
from quintil.models import IncrementalNet
from quintil.nn import saturation
from quintil.schemes import HDQT

from .config import RunConfig
from .learner import Learner, find_learner
from .rundir import HEAD_FILES, SeedDirectory, encode, quintil_version, write_atomic
from .streams import Streams
from .tasks import Task, TaskStream, class_order, task_sizes


class Observer:
    """What a run tells while it goes; the base class listens and says nothing."""

    def on_seed(self, setup: SeedSetup) -> None:
        """Before the first task of a seed."""

    def on_skip(self, seed: int, path: Path) -> None:
        """The seed was finished earlier and is left as it is."""

    def on_epoch(self, task: Task, epoch: int, log: dict) -> None:
        """After every epoch (1-based)."""

    def on_task(self, task: Task, record: dict, timing: dict) -> None:
        """After a task is evaluated and written."""

    def on_finish(self, seed: int, summary: dict) -> None:
        """After the last task of a seed."""


@dataclass
class SeedSetup:
    """Everything of one seed before training: the data set, its tasks, the learner and its folder."""

    config: RunConfig
    seed: int
    dataset: data.Dataset
    tasks: TaskStream
    learner: Learner
    folder: SeedDirectory

    def describe(self) -> dict:
        """Content of config.json: resolved options, class order, persons, checksums, version; deterministic."""
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
    model = config.model or ("resnet32" if images and sample.size(1) == 3 else "fcnet")
    if model != "fcnet" and (not images or sample.size(1) != 3):
        raise ValueError(
            f"build_net: expected samples [3, height, width] for {model}, got {list(sample.shape[1:])} "
            f"(data set {dataset.name})"
        )
    generator = streams["init"]
    with torch.random.fork_rng(devices=[]):  # layers first initialise themselves from the default generator
        net = find_learner(config.method).make_net(config, model, sample[0].numel(), generator)
    return net.to(memory_format=torch.channels_last) if images else net


def prepare(config: RunConfig, seed: int) -> SeedSetup:
    """Load the data, draw the class order and build the learner of one seed; trains nothing."""
    dataset = data.load(
        config.dataset,
        config.data_root,
        split=config.split,
        normalise=config.normalise,
        seed=seed,
        download=config.download,
        features_file=config.features_file,
        subjects_drop=config.subjects_drop,
        classes_drop=config.classes_drop,
    )
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
    folder = SeedDirectory(config.directory(classes) / f"seed{seed}")
    return SeedSetup(config, seed, dataset, tasks, learner, folder)


def run(config: RunConfig, observer: Observer | None = None, *, force: bool = False) -> Path:
    """Run every seed that is not finished yet (`force`: all), aggregate, and return the run directory.

    KeyboardInterrupt passes through after the files of the finished tasks are whole; the interrupted seed starts
    again on the next call. A directory that holds seeds of another configuration raises ValueError.
    """
    path = None
    for seed in config.seeds:
        path = run_seed(config, seed, observer, force=force).parent
        aggregate(path)
    assert path is not None
    return path


def run_seed(config: RunConfig, seed: int, observer: Observer | None = None, *, force: bool = False) -> Path:
    """Run one seed unless it is finished (`force`: in any case, over whatever is there), and return its folder."""
    observer = Observer() if observer is None else observer
    with _threads(config.threads):
        setup = prepare(config, seed)
        described = setup.describe()
        setup.folder.check_config(described, repeated=(seed, *config.seeds) if force else ())
        if setup.folder.finished and not force:
            observer.on_skip(seed, setup.folder.path)
            return setup.folder.path
        setup.folder.start(described)
        observer.on_seed(setup)
        with setup.learner.streams.rounding():
            summary = _train(setup, observer)
        setup.folder.finish(summary)
        observer.on_finish(seed, summary)
    return setup.folder.path


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


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(setup: SeedSetup, observer: Observer) -> dict:
    """All tasks of one seed; returns the summary."""
    learner, config, tasks = setup.learner, setup.config, setup.tasks
    history: dict[str, list[np.ndarray]] = {}
    record: dict = {}
    for task in tasks:
        start = time.perf_counter()
        learner.begin_task(task)
        for epoch in range(1, learner.epochs + 1):
            log = learner.train_epoch()
            if config.eval_every and epoch % config.eval_every == 0:
                log["test_acc"] = 100.0 * float((learner.predict(task.x_test) == task.y_test).double().mean())
            setup.folder.log_epoch({"task": task.number, "epoch": epoch, **log})
            observer.on_epoch(task, epoch, log)
        trained = time.perf_counter()
        learner.end_task()
        ended = time.perf_counter()
        record, matrices = _evaluate(setup, task, history)
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
        setup.folder.finish_task(record, timing, history, matrices)
        observer.on_task(task, record, timing)
    return _summary(setup, record)


def _evaluate(setup: SeedSetup, task: Task, history: dict[str, list[np.ndarray]]) -> tuple[dict, dict[str, np.ndarray]]:
    """Record of metrics.jsonl after one task and the accuracy tables; appends the confusion counts to `history`."""
    learner, sizes, config = setup.learner, setup.tasks.sizes, setup.config
    record: dict = {"task": task.number, "classes": task.last, "new_classes": task.last - task.first}
    record |= {"n_train": task.y.numel(), "n_test": task.y_test.numel(), **_memory_sizes(learner)}
    if isinstance(config.scheme, HDQT):
        record["saturation"] = _saturation(learner, task)
    record |= learner.record()
    matrices = {}
    for head, scores in learner.scores(task.x_test).items():
        tag = HEAD_FILES[head]
        predicted = scores.argmax(1)
        history.setdefault(head, []).append(confusion_counts(task.y_test.numpy(), predicted.numpy(), task.last))
        best = scores.topk(min(5, task.last), dim=1).indices
        values = task_metrics(history[head], sizes, hdqt_rounding=config.hdqt_rounding)
        values["top5"] = 100.0 * float((best == task.y_test.unsqueeze(1)).any(1).double().mean())
        record[tag] = values
        record[f"acc_{tag}"] = values["acc"]
        matrices[head] = accuracy_matrix(history[head], sizes)
    return record, matrices


def _saturation(learner: Learner, task: Task) -> dict[str, dict[str, float]]:
    """Saturated codes and tiles per layer on one batch, evenly spaced over the task's test samples [CIL R9]."""
    size = min(learner.config.batch_size, task.x_test.size(0))
    places = torch.linspace(0, task.x_test.size(0) - 1, size).long()
    return saturation(learner.net, learner._inputs(task.x_test.index_select(0, places)))


def _memory_sizes(learner: Learner) -> dict:
    """Bytes of the net (float32, and with weights at the scheme's bits) and of the exemplars."""
    net, scheme = learner.net, learner.config.scheme
    state = [*net.parameters(), *net.buffers()]
    weights = [m.weight for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    in_weights = sum(w.numel() for w in weights)
    total = sum(t.numel() * t.element_size() for t in state)
    bits = getattr(scheme, "bits", 32)
    memory = learner.memory
    return {
        "model_bytes": total,
        "model_bytes_at_scheme_bits": total - 4 * in_weights + (in_weights * bits + 7) // 8,
        "trainable_params": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "exemplars": 0 if memory is None else len(memory),
        "exemplars_per_class": 0 if memory is None else max(memory.counts, default=0),
        "exemplar_bytes": 0 if memory is None else memory.bytes,
    }


def _summary(setup: SeedSetup, record: dict) -> dict:
    """summary.json: the last task's numbers as <name>_<head>, `acc` under the name last_acc."""
    summary = {name: value for name, value in record.items() if not isinstance(value, (dict, float))}
    for tag in HEAD_FILES.values():
        for name, value in record.get(tag, {}).items():
            if name != "per_class":
                summary[f"last_acc_{tag}" if name == "acc" else f"{name}_{tag}"] = value
    summary |= {"seed": setup.seed, "tasks": len(setup.tasks), "version": quintil_version()}
    summary |= {"method": setup.config.method, "learner_variant": setup.learner.variant}
    summary["data_features"] = setup.dataset.features
    return summary
