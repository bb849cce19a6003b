"""The tables of a report as rows of cells, and as markdown and terminal text."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from quintil.metrics import RunResult, estimate

from . import comparison as compare
from .comparison import FORGETTINGS, HEAD_NAMES, HEADLINES
from .published import published_rows

Rows = list[list[str]]
_SPLIT = ("acc_old", "acc_new", "pred_new_share", "macro_f1")


def summary_rows(runs: Sequence[RunResult]) -> Rows:
    """The headline numbers of both heads, and below them the paired differences to float32."""
    rows = [["arithmetic", "head", "seeds", *(f"`{name}`" for name in HEADLINES)]]
    rows += [_values(run, head, HEADLINES) for run in runs for head in run.heads()]
    for run in runs:
        reference = compare.reference(runs, run)
        if reference is None:
            continue
        for head in run.heads():
            cells = [_difference(run, reference, f"{name}_{head}") for name in HEADLINES]
            rows.append([f"{run.label} − float32", HEAD_NAMES[head], str(len(run.seeds)), *cells])
    return rows


def _values(run: RunResult, head: str, names: Sequence[str]) -> list[str]:
    values = [list(run.values(f"{name}_{head}").values()) for name in names]
    cells = [_number(name, v) for name, v in zip(names, values)]
    return [run.label, HEAD_NAMES[head], str(len(run.seeds)), *cells]


def _number(name: str, values: Sequence[float]) -> str:
    if not values:
        return "–"
    found = estimate(values)
    if name != "forgetting_relative":
        return str(found)
    return f"{found.mean:.4f}" if found.std is None else f"{found.mean:.4f} ± {found.std:.4f}"


def _difference(run: RunResult, reference: RunResult, name: str) -> str:
    found = compare.difference(run, reference, name)
    if found is None:
        return "not comparable"
    if found.std is None:
        return f"{found.mean:+.2f}"
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _named_rows(runs: Sequence[RunResult], names: Sequence[str]) -> Rows:
    """Numbers after the last task, a column per name that any run has; no rows where none has any."""
    names = [n for n in names if any(run.values(f"{n}_{head}") for run in runs for head in run.heads())]
    if not names:
        return []
    rows = [_values(run, head, names) for run in runs for head in run.heads()]
    return [["arithmetic", "head", "seeds", *(f"`{name}`" for name in names)], *rows]


def forgetting_rows(runs: Sequence[RunResult]) -> Rows:
    """Every formula of forgetting after the last task: a row per formula, a column per run and head."""
    rows = _named_rows(runs, (*FORGETTINGS, "bwt"))
    if not rows:
        return []
    names = ["formula", *(f"{label}, {head}" for label, head, *_ in rows[1:])]
    return [names, *([name, *cells] for name, *cells in zip(*(row[3:] for row in rows)))]


def split_rows(runs: Sequence[RunResult]) -> Rows:
    """Old against new classes after the last task."""
    return _named_rows(runs, _SPLIT)


def task_rows(runs: Sequence[RunResult]) -> Rows:
    """Mean accuracy after each task; published curves of the same protocol below."""
    tasks = len(runs[0].config["task_sizes"])
    rows = [["arithmetic", "head", *(f"t={t}" for t in range(1, tasks + 1))]]
    for run in runs:
        for head in run.heads():
            values = compare.curve(run, head, "acc")
            if values is not None:
                rows.append([run.label, HEAD_NAMES[head], *(f"{value:.2f}" for value in values.mean(axis=0))])
    published = dict.fromkeys(row for run in runs for row in published_rows(run))
    rows += [[row.label, HEAD_NAMES[row.head], *(f"{v:.2f}" for v in row.curve)] for row in published]
    return rows


def width_rows(runs: Sequence[RunResult]) -> Rows:
    """Mean accuracy after each task at every bit width that a run was tested at; no rows where none was."""
    rows = []
    for run in runs:
        widths = run.config.get("bit_widths") or []
        for head in run.heads() if widths else []:
            for width in widths:
                tables = [[t["bit_widths"][str(width)][head] for t in seed.tasks] for seed in run.seeds.values()]
                means = np.mean(np.array(tables, dtype=np.float64), axis=0)
                rows.append([run.label, HEAD_NAMES[head], str(width), *(f"{value:.2f}" for value in means)])
    tasks = len(runs[0].config["task_sizes"])
    return [["arithmetic", "head", "bits", *(f"t={t}" for t in range(1, tasks + 1))], *rows] if rows else []


def published_table(runs: Sequence[RunResult]) -> Rows:
    """Ours and the published rows of the same data set, learner and protocol; no rows where there is none."""
    names = ("last_acc", "avg_inc_acc", "forgetting_class_best")
    rows = []
    for run in runs:
        for published in published_rows(run):
            ours = _values(run, published.head, names)
            last = f"{published.last:.2f}" + ("" if published.std is None else f" ± {published.std:.2f}")
            forgetting = "–" if published.forgetting is None else f"{published.forgetting:.2f}"
            theirs = [last, f"{published.average:.2f}", forgetting]
            rows += [ours, [published.label, ours[1], str(published.seeds), *theirs]]
    return [["arithmetic", "head", "seeds", *(f"`{name}`" for name in names)], *rows] if rows else []


def cost_rows(runs: Sequence[RunResult]) -> Rows:
    """Seconds by phase and sizes after the last task, mean over seeds; only what the run directories hold."""
    table = []
    for run in runs:
        cells: dict[str, str] = {"arithmetic": run.label, "seeds": str(len(run.seeds))}
        for name, seconds in (compare.phase_seconds(run) or {}).items():
            cells[f"{name} (s)"] = f"{seconds:.3g}" if seconds < 1000 else f"{seconds:.0f}"
        stored = compare.timings(run)
        if stored is not None and all("peak_rss_mb" in row for rows in stored for row in rows):
            cells["peak memory (MB)"] = f"{max(row['peak_rss_mb'] for rows in stored for row in rows):.0f}"
        for name, title in (
            ("model_bytes", "model, float32 (kB)"),
            ("model_bytes_at_scheme_bits", "model, weights at the scheme's bits (kB)"),
            ("exemplar_bytes", "exemplars (kB)"),
        ):
            values = list(run.values(name).values())
            if values:
                cells[title] = f"{np.mean(values) / 1000:,.1f}"
        values = list(run.values("exemplars").values())
        if values:
            cells["exemplars"] = f"{np.mean(values):.4g}"
        table.append(cells)
    titles = list(dict.fromkeys(title for cells in table for title in cells))
    if len(titles) == 2:
        return []
    return [titles, *([cells.get(title, "–") for title in titles] for cells in table)]


def markdown(rows: Rows) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def summary_table(runs: Sequence[RunResult]) -> str:
    """Markdown table of the headline numbers of both heads, and the paired differences to float32.

    Differences appear under a run whose settings equal those of a float32 run in `runs`; runs with other seeds than
    that one are marked instead of compared.
    """
    return markdown(summary_rows(runs))


def plain_table(runs: Sequence[RunResult]) -> str:
    """`summary_table` with aligned columns for a terminal; a titled one per setting where there are several."""
    groups = compare.groups(runs)
    if len(groups) > 1:
        return "\n\n".join(f"{compare.title(group[0])}\n{plain_table(group)}" for group in groups)
    lines = [[re.sub("`", "", cell) for cell in row] for row in summary_rows(runs)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    return "\n".join([text[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *text[1:]])
