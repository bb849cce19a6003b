"""What a report draws of a group of runs with equal settings; how it becomes files is in render.py."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.ticker import MaxNLocator

from quintil.metrics import FORMULAS, RunResult

from . import comparison as compare
from .comparison import FORGETTINGS, HEAD_NAMES, HEADLINES
from .render import COLOURS, INK, MUTED, Panel, Picture

TITLES = {
    "acc": "Accuracy over all seen classes",
    "forgetting_class_best_old": "Forgetting, per old class",
    "forgetting_class_best": "Forgetting, per seen class (HDQT)",
    "forgetting_chaudhry": "Forgetting, per old task (Chaudhry)",
    "forgetting_max_incl": "Forgetting, per old task, current task in the maximum",
    "forgetting_init": "Forgetting, per old task, since it was learned (= -BWT)",
    "forgetting_relative": "Forgetting, relative",
}
_UNITS = {"acc": "accuracy (%)", "forgetting_relative": "forgetting (fraction)"}
_HEAT = LinearSegmentedColormap.from_list("heat", ["#ffffff", "#c9dcf0", "#6a9fd4", "#1f5fa8", "#0b2c57"])
_LINE = "#b4b4ba"  # on the tables of colours, which are the same on a dark page
_MOST_NUMBERS, _MOST_NAMES = 12, 24  # classes up to which cells hold numbers, axes hold every class


def pictures(group: Sequence[RunResult]) -> list[Picture]:
    """All pictures that the stored files allow, the accuracy first. One task has no curves."""
    tasks = len(group[0].config["task_sizes"])
    found = []
    if tasks > 1:
        found = [_curves(group, name) for name in ("acc", *FORGETTINGS)]
        found += [_old_new(group), _difference_curves(group)]
    found += [_differences(group), _confusion(group), _seconds(group), _saturation(group)]
    return [picture for picture in found if picture is not None]


def _seeds(run: RunResult) -> str:
    return f"{run.label} ({len(run.seeds)} {'seed' if len(run.seeds) == 1 else 'seeds'})"


def _task_axis(axes: Axes, tasks: int, first: int = 1) -> None:
    axes.set_xlabel("task")
    axes.set_xlim(first - 0.2, tasks + 0.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _band(axes: Axes, values: np.ndarray, colour: str, dashes: str, label: str, top: float | None = None) -> None:
    """Mean over seeds of `values` [seeds, tasks] with one standard deviation, cut to 0..top where there is a top.

    Tasks without a value are left out: there is no old class after the first.
    """
    defined = ~np.isnan(values).any(axis=0)
    tasks, values = np.arange(1, values.shape[1] + 1)[defined], values[:, defined]
    mean = values.mean(axis=0)
    axes.plot(tasks, mean, dashes, color=colour, marker="o", markersize=3.5, linewidth=1.8, label=label)
    if len(values) > 1:
        std = values.std(axis=0, ddof=1)
        low, high = mean - std, mean + std
        if top is not None:
            low, high = np.maximum(low, 0.0), np.minimum(high, top)
        axes.fill_between(tasks, low, high, color=colour, alpha=0.14, linewidth=0)


# Curves -------------------------------------------------------------------------------------------------------------


def _curves(group: Sequence[RunResult], name: str) -> Picture | None:
    """A panel per head, a line per scheme."""
    heads = [h for h in compare.heads(group) if any(compare.curve(run, h, name) is not None for run in group)]
    if not heads:
        return None

    def draw(head: str, axes: Axes) -> None:
        for colour, run in zip(cycle(COLOURS), group):
            values = compare.curve(run, head, name) if head in run.heads() else None
            if values is not None:
                dashes = "-" if run.label == "float32" else "--"
                _band(axes, values, colour, dashes, _seeds(run), 100.0 if name == "acc" else None)
        axes.set_ylabel(_UNITS.get(name, "forgetting (percentage points)"))
        _task_axis(axes, len(group[0].config["task_sizes"]), first=1 if name == "acc" else 2)

    several = any(len(run.seeds) > 1 for run in group)
    formula = f"{name} = {FORMULAS[name]}" + ("; bands: ± 1 std over seeds" if several else "")
    return Picture(name, TITLES[name], formula, [Panel(HEAD_NAMES[h], partial(draw, h)) for h in heads], len(heads))


def _old_new(group: Sequence[RunResult]) -> Picture | None:
    """Recency bias: a panel per run and head."""
    lines = {
        "acc_old": (COLOURS[0], "-", "accuracy on old classes (acc_old)"),
        "acc_new": (COLOURS[1], "-", "accuracy on new classes (acc_new)"),
        "pred_new_share": (COLOURS[3], "--", "predictions that name a new class (pred_new_share)"),
    }

    def draw(run: RunResult, head: str, axes: Axes) -> None:
        for name, (colour, dashes, label) in lines.items():
            values = compare.curve(run, head, name)
            values[:, 0] = np.nan  # before there are old classes
            _band(axes, values, colour, dashes, label, 100.0)
        share = compare.new_sample_share(run, head)
        tasks = np.arange(1, len(run.config["task_sizes"]) + 1)
        if share is not None:
            axes.plot(tasks[1:], share[1:], ":", color=MUTED, linewidth=1.5, label="test samples of new classes")
        axes.set_ylabel("%")
        axes.set_ylim(-3, 103)
        _task_axis(axes, len(tasks), first=2)

    pairs = [(run, h) for run in group for h in run.heads()]
    pairs = [(r, h) for r, h in pairs if all(compare.curve(r, h, name) is not None for name in lines)]
    panels = [Panel(f"{run.label}, {HEAD_NAMES[head]}", partial(draw, run, head)) for run, head in pairs]
    text = "without a bias towards the newest task its classes are predicted as often as they occur"
    return Picture("old_new", "Old and new classes", text, panels, 2) if panels else None


def _difference_curves(group: Sequence[RunResult]) -> Picture | None:
    """Paired differences to float32 after every task: a panel per head, a line per scheme."""
    drawn = {}
    for head in compare.heads(group):
        for colour, run in zip(cycle(COLOURS), group):
            other = compare.reference(group, run)
            values = None if other is None else compare.difference_curve(run, other, head, "acc")
            if values is not None:
                drawn.setdefault(head, []).append((run, colour, values))
    if not drawn:
        return None

    def draw(head: str, axes: Axes) -> None:
        tasks = np.arange(1, len(group[0].config["task_sizes"]) + 1)
        axes.axhline(0.0, color=MUTED, linewidth=1.0)
        for run, colour, values in drawn[head]:
            means = [value.mean for value in values]
            axes.plot(tasks, means, "--", color=colour, marker="o", markersize=3.5, linewidth=1.8,
                      label=f"{run.label} − float32")  # fmt: skip
            if values[0].low is not None:
                axes.fill_between(tasks, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.14,
                                  linewidth=0)  # fmt: skip
        axes.set_ylabel("percentage points")
        _task_axis(axes, len(tasks))

    several = any(len(run.seeds) > 1 for run in group)
    title = "Difference of acc to float32"
    text = "paired: the same seeds, splits and class orders" + ("; bands: 95 % t-interval" if several else "")
    panels = [Panel(HEAD_NAMES[h], partial(draw, h)) for h in drawn]
    return Picture("difference", title, text, panels, len(panels))


def _differences(group: Sequence[RunResult]) -> Picture | None:
    """Paired differences of the headline numbers: a row per number and head, a mark per scheme."""
    keys = [(name, head) for name in HEADLINES for head in compare.heads(group)]
    marks = []
    for colour, run in zip(cycle(COLOURS), group):
        other = compare.reference(group, run)
        values = {} if other is None else {k: compare.difference(run, other, f"{k[0]}_{k[1]}") for k in keys}
        if any(value is not None for value in values.values()):
            marks.append((run, colour, values))
    if not marks:
        return None
    step = 0.7 / len(marks)

    def draw(axes: Axes) -> None:
        axes.axvline(0.0, color=MUTED, linewidth=1.0)
        for number, (run, colour, values) in enumerate(marks):
            rows = [row for row, key in enumerate(keys) if values[key] is not None]
            places = [row + (number - (len(marks) - 1) / 2) * step for row in rows]
            found = [values[keys[row]] for row in rows]
            axes.plot([v.mean for v in found], places, "o", color=colour, markersize=5, label=f"{run.label} − float32")
            for value, place in zip(found, places):
                if value.low is not None:
                    axes.plot([value.low, value.high], [place, place], "-", color=colour, linewidth=1.8)
        axes.set_yticks(range(len(keys)), [f"{name}\n{HEAD_NAMES[head]}" for name, head in keys], fontsize=8)
        axes.set_ylim(len(keys) - 0.5, -0.5)
        axes.set_xlabel("percentage points")
        axes.grid(axis="y", visible=False)

    several = any(len(run.seeds) > 1 for run in group)
    text = "after the last task, paired over seeds" + ("; lines: 95 % t-interval" if several else "")
    size = (5.2, max(0.42, 0.16 * len(marks)) * len(keys) + 0.8)
    panels = [Panel("", draw)]
    return Picture("differences", "Differences to float32", text, panels, 1, size, 1.75)


# Tables as pictures -------------------------------------------------------------------------------------------------


def _confusion(group: Sequence[RunResult]) -> Picture | None:
    """Confusion matrix after the last task: a panel per run and head."""
    found = [(run, h, compare.mean_confusion(run, h)) for run in group for h in run.heads()]
    found = [(run, head, matrix) for run, head, matrix in found if matrix is not None]
    if not found:
        return None
    panels = [Panel(f"{run.label}, {HEAD_NAMES[h]}", partial(_draw_confusion, run, m)) for run, h, m in found]
    mean = "; mean over seeds" if any(len(run.seeds) > 1 for run in group) else ""
    names = _class_names(group[0])
    order = "classes in their order of arrival" if names is None else "classes by name, as they arrived"
    left = 0.6 if names is None else 0.5 + 0.065 * max(map(len, names))
    wide = len(found[0][2]) > _MOST_NAMES
    colours = "; colours stretched, so that small shares show" if wide else ""
    text = f"percent of each true class{mean}; {order}; lines part the tasks{colours}"
    title = "Confusion matrix after the last task"
    return Picture("confusion", title, text, panels, 2, (4.75, 4.3), left, 0.8, heat=True)


def _class_names(run: RunResult) -> list[str] | None:
    """Names of the classes in order of arrival, where that order is the same for all seeds and the names are short."""
    orders = {tuple(seed.config.get("class_order") or ()) for seed in run.seeds.values()}
    names = run.config.get("class_names")
    if len(orders) > 1 or not names or len(names) > _MOST_NAMES:
        return None
    (order,) = orders
    ordered = [str(names[place]) for place in order] if sorted(order) == list(range(len(names))) else None
    return ordered if ordered and max(map(len, ordered)) <= 14 else None


def _draw_confusion(run: RunResult, matrix: np.ndarray, axes: Axes) -> None:
    classes = len(matrix)
    norm = Normalize(0.0, 100.0) if classes <= _MOST_NAMES else PowerNorm(0.45, 0.0, 100.0)
    image = axes.imshow(matrix, cmap=_HEAT, norm=norm, interpolation="none", aspect="equal")
    axes.grid(visible=False)
    for edge in np.cumsum(run.config["task_sizes"])[:-1]:
        axes.axhline(edge - 0.5, color=_LINE, linewidth=0.6)
        axes.axvline(edge - 0.5, color=_LINE, linewidth=0.6)
    if classes <= _MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(matrix):
            if value >= 0.5:
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7.5,
                          color="#ffffff" if value > 50 else "#1a1a1a")  # fmt: skip
    names = _class_names(run)
    step = 1 if classes <= _MOST_NAMES else 5 if classes <= 60 else 10
    places = list(range(0, classes, step))
    labels = [str(place) for place in places] if names is None else names
    long = max(map(len, labels)) > 2
    small = 7 if classes > _MOST_NUMBERS or long else None
    axes.set_xticks(places, labels, fontsize=small, rotation=90 if long and names is not None else 0)
    axes.set_yticks(places, labels, fontsize=small)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    _colour_bar(axes, image, "%")


def _colour_bar(axes: Axes, image: object, label: str) -> None:
    inset = axes.inset_axes([1.03, 0.1, 0.04, 0.8])
    bar = axes.figure.colorbar(image, cax=inset)
    bar.outline.set_visible(False)
    bar.set_label(label)


def _short(layer: str) -> str:
    return layer.removeprefix("backbone.")


def _saturation(group: Sequence[RunResult]) -> Picture | None:
    """Saturated codes and accumulator tiles, layer by task: two panels per run that counted them."""
    kinds = {"codes": "codes", "tiles": "accumulator tiles"}
    found = [(run, kind, compare.saturation(run, kind)) for run in group for kind in kinds]
    found = [(run, kind, table) for run, kind, table in found if table is not None]
    if not found:
        return None

    def draw(layers: list[str], table: np.ndarray, axes: Axes) -> None:
        top = max(1.0, float(np.nanmax(table)))
        image = axes.imshow(table, cmap=_HEAT, vmin=0.0, vmax=top, interpolation="none", aspect="auto")
        axes.grid(visible=False)
        axes.set_yticks(range(len(layers)), map(_short, layers), fontsize=7.5)
        tasks = table.shape[1]
        axes.set_xticks(range(tasks), range(1, tasks + 1))
        axes.set_xlabel("after task")
        if tasks <= 10 and len(layers) <= 40:
            for (row, column), value in np.ndenumerate(table):
                if value == value:
                    axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7,
                              color="#ffffff" if value > 0.5 * top else "#1a1a1a")  # fmt: skip
        _colour_bar(axes, image, "%")

    panels = [Panel(f"{run.label}, {kinds[kind]}", partial(draw, *table)) for run, kind, table in found]
    layers = max(len(table[0]) for _, _, table in found)
    left = 0.3 + 0.065 * max(len(_short(layer)) for _, _, table in found for layer in table[0])
    text = "percent beyond the range of the codes, and of tile sums beyond the accumulator's limit, per layer and task"
    return Picture("saturation", "Saturation", text, panels, 2, (4.8, 0.24 * layers + 1.0), left, 0.85, heat=True)


def _seconds(group: Sequence[RunResult]) -> Picture | None:
    """Seconds of a whole run by phase: a stacked bar per run."""
    found = [(run, compare.phase_seconds(run)) for run in group]
    found = [(run, phases) for run, phases in found if phases is not None]
    if not found:
        return None
    names = list(dict.fromkeys(name for _, phases in found for name in phases))

    def draw(axes: Axes) -> None:
        left = np.zeros(len(found))
        for colour, name in zip(cycle(COLOURS), names):
            width = np.array([phases.get(name, 0.0) for _, phases in found])
            axes.barh(range(len(found)), width, left=left, height=0.62, color=colour)
            axes.plot([], [], "s", color=colour, label=name)
            left += width
        for row, total in enumerate(left):
            axes.text(total, row, f" {total:.4g} s", va="center", fontsize=8.5, color=INK)
        axes.set_yticks(range(len(found)), [run.label for run, _ in found])
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_xlim(0, 1.18 * max(left.max(), 1e-9))
        axes.set_xlabel("seconds")
        axes.grid(axis="y", visible=False)

    text = "all tasks of one seed, mean over seeds"
    left = 0.3 + 0.08 * max(len(run.label) for run, _ in found)
    return Picture("seconds", "Time by phase", text, [Panel("", draw)], 1, (5.8, 0.4 * len(found) + 0.9), left)
