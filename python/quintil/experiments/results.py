"""The numbers of a study as rows, as markdown and as JSON values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from quintil.metrics import Estimate, RunResult, estimate, paired_difference
from quintil.report.tables import markdown as markdown_table

from .run_energy import run_joules
from .study import Cell, Study

COLUMNS = {
    "last_acc_cnn": "last, linear",
    "avg_inc_acc_cnn": "average, linear",
    "forgetting_class_best_cnn": "forgetting, linear",
    "last_acc_nme": "last, NME",
    "avg_inc_acc_nme": "average, NME",
}
HEADLINE = "last_acc_cnn"
_NUMBERS = (*COLUMNS, "forgetting_class_best_old_cnn")
_ACCURACIES = (
    "Percent, mean ± standard deviation (n - 1) over seeds. Differences are paired seed by seed, with 95 % intervals."
)
_MEASURED = "Means over tasks, then mean ± standard deviation (n - 1) over seeds."


@dataclass(frozen=True)
class ArmResult:
    """One arm on one data set with one learner: every number by seed.

    config: the settings of the runs, and what differs between seeds for one of them.
    joules: of a run's training steps, by count and price; and of the same steps in float32. None where not counted.
    """

    dataset: str
    learner: str
    label: str
    line: str
    x: str | None
    published: str
    numbers: Mapping[str, Mapping[int, float]]
    config: Mapping[str, Any]
    joules: tuple[float, float] | None = None

    @property
    def seeds(self) -> list[int]:
        return sorted(self.numbers[HEADLINE])

    def estimate(self, name: str) -> Estimate | None:
        values = list(self.numbers.get(name, {}).values())
        return estimate(values) if values else None

    def difference(self, other: ArmResult, name: str) -> Estimate | None:
        """Paired self - other over the seeds that both have; None where there is none."""
        ours, theirs = self.numbers.get(name, {}), other.numbers.get(name, {})
        both = ours.keys() & theirs.keys()
        return paired_difference({s: ours[s] for s in both}, {s: theirs[s] for s in both}) if both else None


def result(study: Study, cell: Cell, run: RunResult) -> ArmResult:
    """What the finished seeds of a run say; `run` holds those that the cell asks for, and perhaps others."""
    numbers = {name: {s: v for s, v in run.values(name).items() if s in cell.config.seeds} for name in _NUMBERS}
    published = study.published.get((cell.dataset, cell.learner, cell.arm.label), "")
    own = {name: value for name, value in run.config.items() if name not in ("class_order", "checksums")}
    joules = run_joules(cell.config) if study.energy else None
    return ArmResult(
        cell.dataset, cell.learner, cell.arm.label, cell.arm.line, cell.arm.x, published, numbers, own, joules
    )  # fmt: skip


def groups(found: Sequence[ArmResult]) -> Iterator[tuple[str, list[ArmResult]]]:
    """'<data set>, <learner>' and its arms."""
    for (dataset, learner), arms in groupby(found, key=lambda arm: (arm.dataset, arm.learner)):
        yield f"{dataset}, {learner}", list(arms)


def rows(study: Study, arms: Sequence[ArmResult]) -> list[list[str]]:
    """The table of one data set and learner: a row per arm, means and the difference to the reference."""
    reference = next(arm for arm in arms if arm.label == study.reference)
    names = [name for name in COLUMNS if any(arm.numbers.get(name) for arm in arms)]
    with_published = any(arm.published for arm in arms)
    table = [["", "seeds", *(COLUMNS[n] for n in names), f"last, linear − {study.reference}"]]
    table[0] += ["published last"] if with_published else []
    table[0] += ["J per run (counted)", "float32 / own"] if study.energy else []
    for arm in arms:
        cells = [str(arm.estimate(name) or "") for name in names]
        gap = "" if arm is reference else _signed(arm.difference(reference, HEADLINE))
        cells += [gap, *([arm.published] if with_published else []), *(_joules(arm) if study.energy else [])]
        table.append([arm.label, str(len(arm.seeds)), *cells])
    return table


def _joules(arm: ArmResult) -> list[str]:
    if arm.joules is None:
        return ["", ""]
    own, reference = arm.joules
    return [f"{own:.3g}", f"{reference / own:.2f}"]


def _signed(found: Estimate | None) -> str:
    if found is None:
        return ""
    return f"{found.mean:+.2f}" if found.low is None else f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def markdown(study: Study, tables: Sequence[tuple[str, list[list[str]]]], *, picture: str, footer: str) -> str:
    """The study as a page: question, a titled table per data set and learner, picture, how it was made."""
    parts = [f"# {study.title}", study.question, _MEASURED if study.measure else _ACCURACIES]
    for title, table in tables:
        parts += [f"## {title}", markdown_table(table)]
    return "\n\n".join([*parts, f"![{study.title}]({picture})", footer]) + "\n"


def as_json(study: Study, found: Sequence[ArmResult], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that `from_json` reads, as JSON values."""
    arms = []
    for arm in found:
        numbers = {name: {str(s): v for s, v in seeds.items()} for name, seeds in arm.numbers.items()}
        arms.append({**dataclasses.asdict(arm), "numbers": numbers})
    return {"study": study.name, "question": study.question, "facts": dict(facts), "arms": arms}


def from_json(value: Mapping[str, Any]) -> list[ArmResult]:
    """The arms of a file that `as_json` made; ValueError if it is none."""
    try:
        arms = [dict(arm) for arm in value["arms"]]
        for arm in arms:
            arm["numbers"] = {n: {int(s): v for s, v in seeds.items()} for n, seeds in arm["numbers"].items()}
            arm["joules"] = None if arm.get("joules") is None else tuple(arm["joules"])
        return [ArmResult(**arm) for arm in arms]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"study: expected a file that a study wrote, got another content ({error})") from None


def pooled(found: Sequence[ArmResult], others: Sequence[ArmResult]) -> list[ArmResult]:
    """`found` with the seeds of `others` added, arm by arm; ValueError where both have a seed."""
    known = {(arm.dataset, arm.learner, arm.label): arm for arm in others}
    merged = []
    for arm in found:
        other = known.get((arm.dataset, arm.learner, arm.label))
        if other is None:
            merged.append(arm)
            continue
        twice = sorted(set(arm.seeds) & set(other.seeds))
        if twice:
            raise ValueError(
                f"study: expected other seeds in the pooled file, got {twice[0]} twice "
                f"({arm.dataset}, {arm.learner}, {arm.label})"
            )
        numbers = {n: {**arm.numbers.get(n, {}), **other.numbers.get(n, {})} for n in _NUMBERS}
        merged.append(dataclasses.replace(arm, numbers=numbers))
    return merged
