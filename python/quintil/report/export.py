"""Results in the layout of the PyCIL family, for its plot scripts [CIL 7]."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path

from quintil.metrics import RunResult, SeedResult, read_run

from . import comparison as compare

#: Prefixes under which the family writes the memory size into each row.
_WITH_MEMORY = ("fair", "auc")


def export_qc(run_dirs: Sequence[str | Path], out_dir: str | Path, *, prefix: str = "benchmark") -> list[Path]:
    """Write <out_dir>/results/<prefix>/{cnn,nme}_{top1,top5}/<dataset>_<seed>_<net>_B<init>_Inc<inc>.csv.

    One row per learner and arithmetic: start time, method (with the scheme's label where there is one), [memory size
    under the prefixes fair and auc,] the accuracy after each task in percent. As in the family, B0 stands for a first
    task as large as the others, and results/times/<prefix>/ has the seconds. pred.npy and target.npy are not written:
    a run directory keeps confusion counts, not single predictions. Returns the files; each is written anew.
    """
    rows: dict[Path, list[str]] = {}
    root = Path(out_dir) / "results"
    for run in [compare.finished(read_run(path)) for path in run_dirs]:
        for seed in run.seeds.values():
            name = _file_name(seed)
            method = seed.config["method"] + ("" if run.label == "float32" else f"_{run.label}")
            start = [_start_time(run, seed), method]
            for head in run.heads():
                for top, key in (("top1", "acc"), ("top5", "top5")):
                    if all(key in record.get(head, {}) for record in seed.tasks):
                        cells = [f"{value:.2f}" for value in seed.curve(head, key)]
                        memory = [str(seed.config["memory_size"])] if prefix in _WITH_MEMORY else []
                        file = root / prefix / f"{head}_{top}" / name
                        rows.setdefault(file, []).append(",".join([*start, *memory, *cells]))
            seconds = _seconds(run, seed)
            if seconds is not None:
                rows.setdefault(root / "times" / prefix / name, []).append(",".join([*start, f"{seconds:.3f}"]))
    for file, lines in rows.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line} \n" for line in lines), encoding="utf-8")
    return sorted(rows)


def _file_name(seed: SeedResult) -> str:
    config = seed.config
    net = config.get("model") or ("fcnet" if config["network"] == "FCNet" else "resnet32")
    first, increment = config["task_sizes"][0], config.get("increment", config["task_sizes"][-1])
    name = f"{config['dataset']}_{seed.seed}_{net}_B{0 if first == increment else first}_Inc{increment}"
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name) + ".csv"


def _start_time(run: RunResult, seed: SeedResult) -> str:
    """Month, day and time of env.json in the family's format; zeros where it is not known."""
    file = compare.seed_folder(run, seed.seed) / "env.json"
    if not file.is_file():
        return "0000-00-00-00-000"
    date = datetime.datetime.fromisoformat(json.loads(file.read_text(encoding="utf-8"))["date"])
    return date.strftime("%m%d-%H-%M-%S-000")


def _seconds(run: RunResult, seed: SeedResult) -> float | None:
    file = compare.seed_folder(run, seed.seed) / "timing.jsonl"
    if not file.is_file():
        return None
    stages = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return sum(row.get(name, 0.0) for row in stages for name in ("train_s", "end_task_s", "eval_s"))
