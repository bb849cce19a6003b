"""What a study is: arms that differ in one thing, trained on the same seeds, and the runs it asks for."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from quintil.continual import PRESETS, RunConfig, preset
from quintil.schemes import Scheme


@dataclass(frozen=True)
class Arm:
    """One row of a study.

    label: its name in the table. scheme: None = float32. changes: what else of the run's configuration differs.
    line, x: the curve and the place on it where a study has an axis; an arm without x stands beside the axis.
    """

    label: str
    scheme: Scheme | None
    changes: Mapping[str, Any] = field(default_factory=dict)
    line: str = ""
    x: str | None = None


@dataclass(frozen=True)
class Study:
    """A question, and the arms whose comparison answers it.

    name, title, question: of the command, of the picture, and what is asked. arms: the rows; `reference` is the label
        of the one that differences are taken to.
    datasets, learners: what it runs on unless told otherwise. seeds: how many of the protocol's seeds.
    published: (data set, learner, arm) -> what the authors print for the last accuracy of the linear head.
    axis: name of the axis of a sweep; without one every arm is a bar.
    common: options of all runs that differ from the protocol; they then lie in folders named after the study.
    energy: whether the energy of every arm's runs is counted and drawn against its accuracy.
    measure: "" for accuracies; or what is measured in the networks after each task, by a name of `inside.MEASURES`.
    """

    name: str
    title: str
    question: str
    arms: tuple[Arm, ...]
    reference: str = "float32"
    datasets: tuple[str, ...] = ("dsads",)
    learners: tuple[str, ...] = ("icarl",)
    seeds: int = 5
    published: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    axis: str = ""
    common: Mapping[str, Any] = field(default_factory=dict)
    energy: bool = False
    measure: str = ""

    def __post_init__(self) -> None:
        labels = [arm.label for arm in self.arms]
        if len(set(labels)) < len(labels) or self.reference not in labels:
            raise ValueError(f"Study: expected different labels with {self.reference!r} among them, got {labels}")

    def chosen(self, patterns: Sequence[str]) -> Study:
        """The same study with the arms that match a pattern, and its reference; ValueError for one that fits none."""
        for pattern in patterns:
            if not any(fnmatch(arm.label, pattern) for arm in self.arms):
                names = ", ".join(arm.label for arm in self.arms)
                raise ValueError(f"study: expected arms to match one of {names}, got {pattern!r}")
        kept = (a for a in self.arms if a.label == self.reference or any(fnmatch(a.label, p) for p in patterns))
        return dataclasses.replace(self, arms=tuple(kept)) if patterns else self


@dataclass(frozen=True)
class Cell:
    """One arm on one data set with one learner, and the configuration of its runs."""

    dataset: str
    learner: str
    arm: Arm
    config: RunConfig


def cells(
    study: Study,
    *,
    datasets: Sequence[str] = (),
    learners: Sequence[str] = (),
    seeds: int | None = None,
    first_seed: int = 0,
    epochs: int | None = None,
    **options: Any,
) -> list[Cell]:
    """The runs of a study, data set by data set, learner by learner.

    datasets, learners, seeds: instead of the study's own. first_seed: leave out so many seeds of the protocol, which
        another machine has. epochs: per task, the milestones of the learning rate moved alike; in folders of their own.
    options: of every run, such as data_root and results_dir. An arm that trains what another study has trained finds
        its runs finished: the experiment's folder is named after the data set, the learner and what an arm changes.
    """
    length = [] if epochs is None else [f"{epochs}-epochs"]
    length += ["validation"] if options.get("validation") else []
    found = []
    for dataset in datasets or study.datasets:
        for learner in learners or study.learners:
            base = protocol(dataset, learner)
            count = min(study.seeds, len(base.seeds)) if seeds is None else seeds
            if not 0 <= first_seed < count <= len(base.seeds):
                raise ValueError(
                    f"study: expected first_seed < seeds <= {len(base.seeds)} (the seeds of {dataset}), "
                    f"got {first_seed} and {count}"
                )
            base = base.replace(seeds=base.seeds[first_seed:count], **{**study.common, **options})
            for arm in study.arms:
                name = "_".join(
                    [*([study.name] if study.common else []), dataset, learner, *length, *_words(arm.changes)]
                )
                config = base.replace(scheme=arm.scheme, exp_name=name).replace(**arm.changes)
                found.append(Cell(dataset, learner, arm, config if epochs is None else _of_length(config, epochs)))
    return found


def _of_length(config: RunConfig, epochs: int) -> RunConfig:
    milestones = tuple(max(1, m * epochs // config.epochs) for m in config.milestones)
    return config.replace(epochs=epochs, milestones=milestones)


def protocol(dataset: str, learner: str) -> RunConfig:
    """The HDQT authors' settings of a data set with a learner; 'bic-compat' is their variant of BiC."""
    known = next((n for n in (dataset, f"hdqt-{dataset.replace('_', '-')}") if n in PRESETS), None)
    if known is None:
        names = ", ".join(sorted(name.removeprefix("hdqt-") for name in PRESETS if "intended" not in name))
        raise ValueError(f"study: expected dataset to be one of {names}, got {dataset!r}")
    method = learner.removesuffix("-compat")
    return preset(known, method).replace(method=method, bic_compat=learner.endswith("-compat"))


def _words(changes: Mapping[str, Any]) -> Iterator[str]:
    for name, value in changes.items():
        yield f"{name}-{re.sub(r'[^0-9A-Za-z.]+', '-', str(value)).strip('-')}"
