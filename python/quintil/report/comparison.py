"""Which runs belong together, and the numbers of a comparison: curves, paired differences, stored files of a seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from quintil.metrics import SEED_KEYS, Estimate, RunResult, estimate, paired_difference, read_run

HEAD_NAMES = {"cnn": "linear head", "nme": "nearest-mean head"}
HEADLINES = ("last_acc", "avg_inc_acc", "forgetting_class_best_old")
FORGETTINGS = (
    "forgetting_class_best_old", "forgetting_class_best", "forgetting_chaudhry", "forgetting_max_incl",
    "forgetting_init", "forgetting_relative",
)  # fmt: skip
_OWN_OF_A_SEED = ("class_order", "subjects_train", "subjects_test", "checksums")


def find_runs(path: str | Path) -> list[Path]:
    """Run directories at or anywhere below `path` that have a finished seed; FileNotFoundError if there is none."""
    path = Path(path)
    folders = sorted({file.parent.parent for file in path.rglob("seed*/config.json")})
    if not folders and (path / "config.json").is_file() and path.name.startswith("seed"):
        folders = [path.parent]
    runs = [folder for folder in folders if read_run(folder).seeds]
    if not runs:
        raise FileNotFoundError(
            f"report: expected run directories with a finished seed (seed<k>/summary.json), got none (in {path})"
        )
    return runs


def finished(run: RunResult) -> RunResult:
    if not run.seeds:
        raise ValueError(f"write_report: expected a finished seed, got only unfinished ones (in {run.path})")
    return run


def setting(run: RunResult) -> dict:
    """What must be equal for two runs to be compared: everything but the scheme and what belongs to one seed."""
    left_out = (*SEED_KEYS, "scheme", "scheme_label", "version", "bit_widths", "width_epochs")
    return {name: value for name, value in run.config.items() if name not in left_out}


def title(run: RunResult) -> str:
    """Data set, learner and tasks in a few words."""
    sizes = run.config["task_sizes"]
    counts = ", ".join(map(str, sizes))
    return f"{run.config['dataset']}, {run.config['method']}, {len(sizes)} tasks ({counts} classes)"


def groups(runs: Sequence[RunResult]) -> list[list[RunResult]]:
    """Runs of equal settings together, float32 first."""
    found: list[list[RunResult]] = []
    for run in runs:
        for group in found:
            if setting(group[0]) == setting(run):
                group.append(run)
                break
        else:
            found.append([run])
    return [sorted(group, key=lambda run: run.label != "float32") for group in found]


def reference(runs: Sequence[RunResult], run: RunResult) -> RunResult | None:
    """The float32 run to compare with, None for a float32 run or where there is none."""
    if run.label == "float32":
        return None
    return next((r for r in runs if r.label == "float32" and setting(r) == setting(run)), None)


def comparable(run: RunResult, other: RunResult) -> bool:
    """Whether both have the same seeds with the same class orders, persons and data."""
    if set(run.seeds) != set(other.seeds):
        return False
    return all(run.seeds[s].config[key] == other.seeds[s].config[key] for s in run.seeds for key in _OWN_OF_A_SEED)


def difference(run: RunResult, other: RunResult, name: str) -> Estimate | None:
    """Paired run - other of one summary number, None where they cannot be paired or lack it."""
    ours, theirs = run.values(name), other.values(name)
    if not ours or set(ours) != set(theirs) or not comparable(run, other):
        return None
    return paired_difference(ours, theirs)


def difference_curve(run: RunResult, other: RunResult, head: str, name: str) -> list[Estimate] | None:
    """Paired run - other after every task, None where they cannot be paired."""
    if not comparable(run, other) or head not in run.heads() or head not in other.heads():
        return None
    ours, theirs = curve(run, head, name), curve(other, head, name)
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return None
    return [estimate(column.tolist()) for column in (ours - theirs).T]


def curve(run: RunResult, head: str, name: str) -> np.ndarray | None:
    """Values [seeds, tasks] of one metric; NaN where undefined, None if the run does not have it."""
    if any(name not in record.get(head, {}) for seed in run.seeds.values() for record in seed.tasks):
        return None
    return np.array([seed.curve(head, name) for seed in run.seeds.values()], dtype=np.float64)


def heads(group: Sequence[RunResult]) -> list[str]:
    return [head for head in HEAD_NAMES if any(head in run.heads() for run in group)]


# Files of a seed beside metrics.jsonl ------------------------------------------------------------------------------


def seed_folder(run: RunResult, seed: int) -> Path:
    """The folder of a seed; its name may have leading zeros."""
    for folder in sorted(run.path.glob("seed*")):
        if folder.name.removeprefix("seed").isdigit() and int(folder.name.removeprefix("seed")) == seed:
            return folder
    return run.path / f"seed{seed}"


def confusion(run: RunResult, head: str, task: int) -> list[np.ndarray] | None:
    """Confusion counts of every seed after a task; None unless all seeds have stored them."""
    files = [seed_folder(run, seed) / f"confusion_{head}_t{task}.npz" for seed in run.seeds]
    if not all(file.is_file() for file in files):
        return None
    matrices = []
    for file in files:
        with np.load(file, allow_pickle=False) as stored:
            matrices.append(stored["counts"])
    return matrices


def mean_confusion(run: RunResult, head: str) -> np.ndarray | None:
    """Rows true class, percent of its samples predicted as each class after the last task, mean over seeds."""
    matrices = confusion(run, head, len(run.config["task_sizes"]))
    if matrices is None:
        return None
    shares = [100.0 * m / np.maximum(m.sum(axis=1, keepdims=True), 1) for m in matrices]
    return np.mean(shares, axis=0)


def new_sample_share(run: RunResult, head: str) -> np.ndarray | None:
    """Percent of the test samples that belong to the newest task, [tasks], mean over seeds."""
    sizes, shares = run.config["task_sizes"], []
    for task, size in enumerate(sizes, start=1):
        matrices = confusion(run, head, task)
        if matrices is None:
            return None
        shares.append(np.mean([100.0 * m[-size:].sum() / m.sum() for m in matrices]))
    return np.array(shares)


def timings(run: RunResult) -> list[list[dict]] | None:
    """Rows of timing.jsonl of every seed; None unless all seeds have them."""
    files = [seed_folder(run, seed) / "timing.jsonl" for seed in run.seeds]
    if not all(file.is_file() for file in files):
        return None
    return [[json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files]


_WHOLE_STAGES = ("train_s", "end_task_s", "eval_s", "samples_per_s")


def phase_seconds(run: RunResult) -> dict[str, float] | None:
    """Seconds per phase of a whole run, mean over seeds: train, the named stages after it, what is left, test."""
    stored = timings(run)
    if stored is None:
        return None
    named = [key for key in stored[0][0] if key.endswith("_s") and key not in _WHOLE_STAGES]
    total = {key: float(np.mean([sum(row.get(key, 0.0) for row in rows) for rows in stored]))
             for key in ("train_s", *named, "end_task_s", "eval_s")}  # fmt: skip
    rest = max(0.0, total["end_task_s"] - sum(total[key] for key in named))
    stages = {key.removesuffix("_s"): total[key] for key in named}
    return {"train": total["train_s"], **stages, "rest of the task's end": rest, "test": total["eval_s"]}


def saturation(run: RunResult, kind: str) -> tuple[list[str], np.ndarray] | None:
    """Layer names and saturated `kind` ("codes" or "tiles") in percent, [layers, tasks], mean over seeds.

    None where the run has not counted them. NaN for a layer that a task did not have.
    """
    records = [seed.tasks for seed in run.seeds.values()]
    if not all("saturation" in record for tasks in records for record in tasks):
        return None
    layers = list(dict.fromkeys(layer for tasks in records for record in tasks for layer in record["saturation"]))
    if not layers:
        return None
    tables = [
        [[record["saturation"].get(layer, {}).get(kind) for record in tasks] for layer in layers] for tasks in records
    ]
    return layers, np.mean(np.array(tables, dtype=np.float64), axis=0)
