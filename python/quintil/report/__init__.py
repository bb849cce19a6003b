"""Reports of finished runs, from the files of run directories alone: tables, pictures, markdown and HTML pages.

quintil.report.write_report(["runs/demo/digits_icarl_B2_Inc2", "runs/demo/digits_icarl_B2_Inc2_hdqt_w4a4acc8"],
                            "runs/demo")
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from quintil.metrics import FORMULAS, RunResult, estimate, read_run

from . import comparison as compare
from . import tables
from .comparison import FORGETTINGS, HEAD_NAMES, HEADLINES, find_runs
from .export import export_qc
from .figures import pictures
from .page import Block, Heading, Image, Listing, Table, Text, as_html, as_markdown
from .published import published_rows, verdicts
from .render import draw
from .tables import plain_table, summary_table
from .tensorboard import export_tensorboard

__all__ = [
    "FORGETTINGS",
    "HEADLINES",
    "HEAD_NAMES",
    "export_qc",
    "export_tensorboard",
    "find_runs",
    "plain_table",
    "summary_table",
    "write_report",
]

_WIDTHS = (
    "A copy of the net after each task as layers of Double Rounding, at one width after the other; inputs and weights "
    "have the same width, the first and the last layer are float32."
)
_TITLE = "Class-incremental runs"
_LEGEND = (
    "All values in percent, mean ± standard deviation (n - 1) over seeds. a[t,j] is the accuracy on task j after task "
    "t; predictions choose among all classes seen so far. Differences are paired: the same seeds, splits and class "
    "orders on both sides; in brackets their 95 % t-interval."
)


def write_report(run_dirs: Sequence[str | Path], out_dir: str | Path) -> Path:
    """Write report.md, report.html, report.json and the pictures as PNG and SVG into `out_dir`; returns report.md.

    run_dirs: directories of runs with at least one finished seed. Runs that differ only in their scheme are drawn
    together and compared with the float32 run of the same settings where there is one. The same files give the same
    bytes. FileNotFoundError for a directory without a run, ValueError for one without a finished seed.
    """
    runs = [compare.finished(read_run(path)) for path in run_dirs]
    if not runs:
        raise ValueError("write_report: expected at least one run directory, got none")
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    blocks: list[Block] = []
    content: list[dict] = []
    stems: set[str] = set()
    for group in compare.groups(runs):
        stem = _unused(_slug(group[0]), stems)
        stems.add(stem)
        images = {}
        for picture in pictures(group):
            drawn = draw(picture, out_dir / f"{stem}_{picture.name}")
            images[picture.name] = Image(drawn, f"{stem}_{picture.name}.png")
        blocks += _section(group, images)
        content += [_as_json(run, compare.reference(group, run)) for run in group]
    blocks += [Heading("Formulas"), Text(_LEGEND), Listing(FORMULAS)]
    (out_dir / "report.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (out_dir / "report.html").write_text(as_html(_TITLE, blocks), encoding="utf-8")
    path = out_dir / "report.md"
    path.write_text(as_markdown(_TITLE, blocks), encoding="utf-8")
    return path


def _slug(run: RunResult) -> str:
    """Name of the run's folder without its scheme."""
    return run.path.name.removesuffix(f"_{run.label}")


def _unused(stem: str, stems: Collection[str]) -> str:
    """`stem` itself, or with a number: runs of different experiments may have folders of one name."""
    names = (stem, *(f"{stem}_{number}" for number in range(2, len(stems) + 2)))
    return next(name for name in names if name not in stems)


def _section(group: Sequence[RunResult], images: dict[str, Image]) -> list[Block]:
    """Everything about one group of equal settings: what it is, numbers, curves, matrices, costs."""
    blocks: list[Block] = [Heading(compare.title(group[0])), Text(_about(group))]
    unfinished = [f"{run.label}: {', '.join(map(str, run.unfinished))}" for run in group if run.unfinished]
    if unfinished:
        blocks.append(Text(f"Unfinished seeds, not counted: {'; '.join(unfinished)}."))

    def part(heading: str, rows: tables.Rows, names: Sequence[str], *texts: str) -> None:
        shown = [images[name] for name in names if name in images]
        if rows or shown:
            found = [Table(rows)] if rows else []
            blocks.extend([Heading(heading, 3), *map(Text, texts), *found, *shown])

    blocks.append(Table(tables.summary_rows(group)))
    part("Published values of this protocol", tables.published_table(group), (), *_published_texts(group))
    part("Accuracy after each task", tables.task_rows(group), ("acc",))
    part("Accuracy by bit width", tables.width_rows(group), (), _WIDTHS)
    part("Difference to float32", [], ("differences", "difference"))
    old = "After the last task; every formula has its own name, because they measure different things."
    part("Forgetting", tables.forgetting_rows(group), FORGETTINGS, old)
    part("Old and new classes", tables.split_rows(group), ("old_new",), "After the last task:")
    part("Confusion", [], ("confusion",))
    part("Saturation", [], ("saturation",))
    part("Time and memory", tables.cost_rows(group), ("seconds",), "Times of one seed; sizes after the last task.")
    return blocks


def _about(group: Sequence[RunResult]) -> str:
    config = group[0].config
    memory = f", {config['memory_size']} exemplars ({config['memory_policy']})" if "nme" in group[0].heads() else ""
    milestones = ", ".join(map(str, config["milestones"]))
    falls = f"x{config['lr_decay']:g} at {milestones}" if milestones else "constant"
    return (
        f"{config['learner_variant']}; {config['network']}{memory}; {config['epochs']} epochs per task, batch "
        f"{config['batch_size']}, lr {config['lr']:g} {falls}, split {config['split'] or 'default'}; "
        f"{_seeds_text(group)}."
    )


def _seeds_text(group: Sequence[RunResult]) -> str:
    """The seeds of all runs, or of each run where they differ."""
    texts = {run.label: f"seeds {', '.join(map(str, sorted(run.seeds)))}" for run in group}
    if len(set(texts.values())) == 1:
        return texts[group[0].label]
    return "; ".join(f"{label}: {seeds}" for label, seeds in texts.items())


def _published_texts(group: Sequence[RunResult]) -> list[str]:
    config = group[0].config
    text = (
        "Published by the HDQT authors for this data set, learner and protocol, named as published; their "
        "`avg_inc_acc` and `forgetting_class_best` follow the formulas below."
    )
    if config["dataset"] != "cifar100":
        text += (
            " Persons are drawn by the seed and the authors' feature table is their own, so absolute values differ "
            "from seed to seed and from table to table: judge the paired difference."
        )
    if config["method"] == "bic":
        text += " Their BiC trains its second stage on softmax outputs."
    found = [sentence for run in group for sentence in verdicts(run)]
    return [text, *([" ".join(found)] if found else [])]


def _as_json(run: RunResult, reference: RunResult | None) -> dict:
    """Every summary number of a run as mean, std, n, interval, and the paired differences of the headlines."""
    names = sorted({name for seed in run.seeds.values() for name, v in seed.summary.items() if isinstance(v, float)})
    entry = {
        "label": run.label,
        "path": run.path.name,
        "setting": compare.setting(run),
        "seeds": sorted(run.seeds),
        "summary": {name: estimate(list(run.values(name).values())).as_dict() for name in names},
        "by_seed": {name: run.values(name) for name in names if name.startswith(HEADLINES)},
    }
    if reference is not None:
        keys = [f"{name}_{head}" for head in run.heads() for name in HEADLINES]
        pairs = {key: compare.difference(run, reference, key) for key in keys}
        entry["minus_float32"] = {key: None if pair is None else pair.as_dict() for key, pair in pairs.items()}
    published = [
        {"label": row.label, "head": row.head, "last_acc": row.last, "avg_inc_acc": row.average, "curve": row.curve}
        for row in published_rows(run)
    ]
    return {**entry, "published": published} if published else entry
