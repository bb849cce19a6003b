"""Reports of finished runs: tables, curves and a markdown page, from the files of run directories alone.

quintil.report.write_report(["runs/demo/digits_icarl_B2_Inc2", "runs/demo/digits_icarl_B2_Inc2_hdqt_w4a4acc8"],
                            "runs/demo")
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from quintil.metrics import FORMULAS, SEED_KEYS, Estimate, RunResult, estimate, paired_difference, read_run

HEAD_NAMES = {"cnn": "linear head", "nme": "nearest-mean head"}
HEADLINES = ("last_acc", "avg_inc_acc", "forgetting_class_best_old")
_CURVES = ("acc", "forgetting_class_best_old", "forgetting_chaudhry")
_TITLES = {
    "acc": "Accuracy over all seen classes",
    "forgetting_class_best_old": "Forgetting, per old class",
    "forgetting_chaudhry": "Forgetting, per old task (Chaudhry)",
}
_UNITS = {
    "acc": "accuracy (%)",
    "forgetting_class_best_old": "forgetting (percentage points)",
    "forgetting_chaudhry": "forgetting (percentage points)",
}
_COLOURS = ("#1f5fa8", "#d1661c", "#2f8f5b", "#8d4bab", "#7a6a58", "#c2356b", "#1a9a9a", "#9a8a12")
_STYLE = {
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8a8a",
    "axes.labelcolor": "#333333",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}


def write_report(run_dirs: Sequence[str | Path], out_dir: str | Path) -> Path:
    """Write report.md, report.json and the curves as PNG into `out_dir`; returns the path of report.md.

    run_dirs: directories of runs with at least one finished seed. Runs that differ only in their scheme are drawn
    together and compared with the float32 run of the same settings where there is one. FileNotFoundError for a
    directory without a run, ValueError for one without a finished seed.
    """
    runs = [_finished(read_run(path)) for path in run_dirs]
    if not runs:
        raise ValueError("write_report: expected at least one run directory, got none")
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    sections, content, stems = [], [], set()
    for group in _groups(runs):
        stem = _unused(_slug(group[0]), stems)
        stems.add(stem)
        pictures = {name: f"{stem}_{name}.png" for name in _CURVES if len(group[0].config["task_sizes"]) > 1}
        for name, file in pictures.items():
            _draw(group, name, out_dir / file)
        sections.append(_section(group, pictures))
        content += [_as_json(run, _reference(group, run)) for run in group]
    (out_dir / "report.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    formulas = "\n".join(f"* `{name}`: {FORMULAS[name]}." for name in (*HEADLINES, "forgetting_chaudhry", "acc"))
    page = "\n\n".join(["# Class-incremental runs", *sections, "## Formulas", _LEGEND + "\n\n" + formulas]) + "\n"
    path = out_dir / "report.md"
    path.write_text(page, encoding="utf-8")
    return path


_LEGEND = (
    "All values in percent, mean ± standard deviation (n - 1) over seeds. a[t,j] is the accuracy on task j after task "
    "t; predictions choose among all classes seen so far. Differences are paired: the same seeds, splits and class "
    "orders on both sides; in brackets their 95 % t-interval."
)


def summary_table(runs: Sequence[RunResult]) -> str:
    """Markdown table of the headline numbers of both heads, and the paired differences to float32.

    Differences appear under a run whose settings equal those of a float32 run in `runs`; runs with other seeds than
    that one are marked instead of compared.
    """
    header = ["arithmetic", "head", "seeds", *(f"`{name}`" for name in HEADLINES)]
    rows = []
    for run in runs:
        for head in run.heads():
            values = [run.values(f"{name}_{head}") for name in HEADLINES]
            cells = [str(estimate(list(v.values()))) if v else "–" for v in values]
            rows.append([run.label, HEAD_NAMES[head], str(len(run.seeds)), *cells])
    for run in runs:
        reference = _reference(runs, run)
        if reference is None:
            continue
        for head in run.heads():
            cells = [_difference_text(run, reference, f"{name}_{head}") for name in HEADLINES]
            rows.append([f"{run.label} − float32", HEAD_NAMES[head], str(len(run.seeds)), *cells])
    return _markdown([header, *rows])


def plain_table(runs: Sequence[RunResult]) -> str:
    """`summary_table` with aligned columns for a terminal."""
    lines = [re.split(r"\s*\|\s*", line.strip("| ")) for line in summary_table(runs).replace("`", "").splitlines()]
    del lines[1]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    return "\n".join([text[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *text[1:]])


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _finished(run: RunResult) -> RunResult:
    if not run.seeds:
        raise ValueError(f"write_report: expected a finished seed, got only unfinished ones (in {run.path})")
    return run


def _setting(run: RunResult) -> dict:
    """What must be equal for two runs to be compared: everything but the scheme and what belongs to one seed."""
    left_out = (*SEED_KEYS, "scheme", "scheme_label", "version")
    return {name: value for name, value in run.config.items() if name not in left_out}


def _groups(runs: Sequence[RunResult]) -> list[list[RunResult]]:
    """Runs of equal settings together, float32 first."""
    groups: list[list[RunResult]] = []
    for run in runs:
        for group in groups:
            if _setting(group[0]) == _setting(run):
                group.append(run)
                break
        else:
            groups.append([run])
    return [sorted(group, key=lambda run: run.label != "float32") for group in groups]


def _reference(runs: Sequence[RunResult], run: RunResult) -> RunResult | None:
    """The float32 run to compare with, None for a float32 run or where there is none."""
    if run.label == "float32":
        return None
    return next((r for r in runs if r.label == "float32" and _setting(r) == _setting(run)), None)


def _difference(run: RunResult, reference: RunResult, name: str) -> Estimate | None:
    """Paired run - reference, None if the seeds or their class orders and persons differ or the value is absent."""
    ours, theirs = run.values(name), reference.values(name)
    if not ours or set(ours) != set(theirs):
        return None
    for key in ("class_order", "subjects_train", "subjects_test", "checksums"):
        if any(run.seeds[s].config[key] != reference.seeds[s].config[key] for s in ours):
            return None
    return paired_difference(ours, theirs)


def _difference_text(run: RunResult, reference: RunResult, name: str) -> str:
    difference = _difference(run, reference, name)
    if difference is None:
        return "not comparable"
    if difference.std is None:
        return f"{difference.mean:+.2f}"
    return f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"


def _slug(run: RunResult) -> str:
    return re.sub(r"_hdqt_.*$", "", run.path.name) if run.label != "float32" else run.path.name


def _unused(stem: str, stems: Collection[str]) -> str:
    """`stem` itself, or with a number: runs of different experiments may have folders of one name."""
    names = (stem, *(f"{stem}_{number}" for number in range(2, len(stems) + 2)))
    return next(name for name in names if name not in stems)


def _section(group: Sequence[RunResult], pictures: Mapping[str, str]) -> str:
    config = group[0].config
    sizes = config["task_sizes"]
    title = f"## {config['dataset']}, {config['method']}, {len(sizes)} tasks ({', '.join(map(str, sizes))} classes)"
    memory = f", {config['memory_size']} exemplars ({config['memory_policy']})" if "nme" in group[0].heads() else ""
    milestones = ", ".join(map(str, config["milestones"]))
    falls = f"x{config['lr_decay']:g} at {milestones}" if milestones else "constant"
    about = (
        f"{config['learner_variant']}; {config['network']}{memory}; {config['epochs']} epochs per task, batch "
        f"{config['batch_size']}, lr {config['lr']:g} {falls}, split {config['split'] or 'default'}; "
        f"{_seeds_text(group)}."
    )
    unfinished = [f"{run.label}: {', '.join(map(str, run.unfinished))}" for run in group if run.unfinished]
    notes = [f"Unfinished seeds, not counted: {'; '.join(unfinished)}."] if unfinished else []
    images = ["\n".join(f"![{_TITLES[name]}]({file})" for name, file in pictures.items())] if pictures else []
    per_task = "\n\n".join(["Accuracy after each task:", _per_task_table(group)])
    return "\n\n".join([title, about, *notes, summary_table(group), *images, per_task])


def _seeds_text(group: Sequence[RunResult]) -> str:
    """The seeds of all runs, or of each run where they differ."""
    texts = {run.label: f"seeds {', '.join(map(str, sorted(run.seeds)))}" for run in group}
    if len(set(texts.values())) == 1:
        return texts[group[0].label]
    return "; ".join(f"{label}: {seeds}" for label, seeds in texts.items())


def _per_task_table(group: Sequence[RunResult]) -> str:
    tasks = len(group[0].config["task_sizes"])
    rows = [["arithmetic", "head", *(f"t={t}" for t in range(1, tasks + 1))]]
    for run in group:
        for head in run.heads():
            means = _curve(run, head, "acc").mean(axis=0)
            rows.append([run.label, HEAD_NAMES[head], *(f"{value:.2f}" for value in means)])
    return _markdown(rows)


def _curve(run: RunResult, head: str, name: str) -> np.ndarray:
    """Values [seeds, tasks] of one metric; NaN where undefined."""
    return np.array([seed.curve(head, name) for seed in run.seeds.values()], dtype=np.float64)


def _draw(group: Sequence[RunResult], name: str, path: Path) -> None:
    """One figure: a panel per head, a line per scheme (mean over seeds) with a band of one standard deviation."""
    heads = [head for head in HEAD_NAMES if any(head in run.heads() for run in group)]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.2 * len(heads), 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(heads), sharey=True, squeeze=False)[0]
        lines: dict[str, Artist] = {}
        for panel, head in zip(panels, heads):
            for colour, run in zip(cycle(_COLOURS), group):
                if head in run.heads():
                    line = _line(panel, run, _curve(run, head, name), colour, top=100.0 if name == "acc" else None)
                    lines.setdefault(line.get_label(), line)
            panel.set_title(HEAD_NAMES[head])
            panel.set_xlabel("task")
            panel.set_xlim(0.8, len(group[0].config["task_sizes"]) + 0.2)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].set_ylabel(_UNITS[name])
        bands = "; bands: ± 1 std over seeds" if any(len(run.seeds) > 1 for run in group) else ""
        figure.suptitle(f"{_TITLES[name]}{bands}\n{FORMULAS[name]}", fontsize=9.5, color="#555555")
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=2 * len(heads) - 1)
        figure.savefig(path, dpi=150, metadata={"Software": None})


def _line(panel: Axes, run: RunResult, values: np.ndarray, colour: str, top: float | None) -> Artist:
    """Draw the mean over seeds of `values` [seeds, tasks] with its band, cut to 0..top where there is a top."""
    defined = ~np.isnan(values).any(axis=0)
    tasks = np.arange(1, values.shape[1] + 1)[defined]
    values = values[:, defined]
    mean = values.mean(axis=0)
    seeds = "seed" if len(values) == 1 else "seeds"
    dashes = "-" if run.label == "float32" else "--"
    (line,) = panel.plot(tasks, mean, dashes, color=colour, marker="o", markersize=4, linewidth=1.8,
                         label=f"{run.label} ({len(values)} {seeds})")  # fmt: skip
    if len(values) > 1:
        std = values.std(axis=0, ddof=1)
        low, high = mean - std, mean + std
        if top is not None:
            low, high = np.maximum(low, 0.0), np.minimum(high, top)
        panel.fill_between(tasks, low, high, color=colour, alpha=0.12, linewidth=0)
    return line


def _as_json(run: RunResult, reference: RunResult | None) -> dict:
    """Every summary number of a run as mean, std, n, interval, and the paired differences of the headlines."""
    names = sorted({name for seed in run.seeds.values() for name, v in seed.summary.items() if isinstance(v, float)})
    entry = {
        "label": run.label,
        "path": run.path.name,
        "setting": _setting(run),
        "seeds": sorted(run.seeds),
        "summary": {name: estimate(list(run.values(name).values())).as_dict() for name in names},
        "by_seed": {name: run.values(name) for name in names if name.startswith(HEADLINES)},
    }
    if reference is not None:
        keys = [f"{name}_{head}" for head in run.heads() for name in HEADLINES]
        pairs = {key: _difference(run, reference, key) for key in keys}
        entry["minus_float32"] = {key: None if pair is None else pair.as_dict() for key, pair in pairs.items()}
    return entry
