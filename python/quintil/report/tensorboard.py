"""Event files for TensorBoard, written from finished runs; needs the package tensorboard, not TensorFlow."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from quintil.metrics import RunResult, SeedResult, read_run

from . import comparison as compare

_FILE = "events.out.tfevents.0000000000.quintil"


def export_tensorboard(run_dirs: Sequence[str | Path], out_dir: str | Path) -> list[Path]:
    """Write <out_dir>/<run>/seed<k>/events.out.tfevents.* with every scalar of every finished seed; returns the files.

    Tags cnn/<metric>, nme/<metric>, size/<what> and time/<stage> have the task as step; train/<column> has the epoch,
    counted through all tasks. Each file is written anew, with steps as times, so that equal runs give equal bytes.
    ImportError where tensorboard is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        raise ImportError(
            "export_tensorboard: expected the package tensorboard, got none (pip install 'quintil[tensorboard]')"
        ) from None
    files = []
    for run in [compare.finished(read_run(path)) for path in run_dirs]:
        for seed in run.seeds.values():
            folder = Path(out_dir) / run.path.name / f"seed{seed.seed}"
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / _FILE, "wb") as file:
                writer = RecordWriter(file)
                writer.write(Event(wall_time=0.0, step=0, file_version="brain.Event:2").SerializeToString())
                for tag, step, value in _scalars(run, seed):
                    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
                    writer.write(Event(wall_time=float(step), step=step, summary=summary).SerializeToString())
                writer.flush()
            files.append(folder / _FILE)
    return files


def _scalars(run: RunResult, seed: SeedResult) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of every defined number."""
    for record in seed.tasks:
        task = record["task"]
        for head in run.heads():
            yield from ((f"{head}/{k}", task, v) for k, v in sorted(record[head].items()) if _is_number(v))
        sizes = ("model_bytes", "model_bytes_at_scheme_bits", "exemplars", "exemplar_bytes")
        yield from ((f"size/{name}", task, record[name]) for name in sizes if _is_number(record.get(name)))
        for layer, shares in sorted(record.get("saturation", {}).items()):
            yield from ((f"saturation_{k}/{layer}", task, v) for k, v in sorted(shares.items()) if _is_number(v))
    stored = compare.timings(run)
    if stored is not None:
        for row in stored[list(run.seeds).index(seed.seed)]:
            yield from ((f"time/{k}", row["task"], v) for k, v in sorted(row.items()) if k != "task")
    log = compare.seed_folder(run, seed.seed) / "train_log.csv"
    if log.is_file():
        with open(log, encoding="utf-8", newline="") as file:
            for step, row in enumerate(csv.DictReader(file), start=1):
                yield from ((f"train/{k}", step, float(v)) for k, v in row.items() if v and k not in ("task", "epoch"))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
