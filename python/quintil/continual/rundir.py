"""Files of one seed, written atomically task by task: what is finished stays whole [CIL 7].

Numbers are written in one fixed format with sorted keys and without times, so that equal runs give equal bytes;
what differs from run to run (times, host, versions) is in env.json and timing.jsonl.
"""

from __future__ import annotations

import datetime
import io
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from quintil._library import _bindings, active_isa
from quintil.metrics import SEED_KEYS

from .distributed import in_first, world_size

HEAD_FILES = {"linear": "cnn", "nme": "nme"}
_LOG_COLUMNS = (
    "task", "epoch", "lr", "loss", "ce", "kd", "bce", "train_acc", "replayed",
    "aux", "less_forget", "margin",
    "test_acc",
)  # fmt: skip


def encode(value: object) -> str:
    """JSON with sorted keys and six decimals for every float; NaN and infinities become null."""
    if isinstance(value, float):
        return f"{value:.6f}" if math.isfinite(value) else "null"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(k))}: {encode(value[k])}" for k in sorted(value)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(encode(item) for item in value) + "]"
    return json.dumps(value)


def folder_name(text: str) -> str:
    """`text` with a hyphen for everything but letters, digits, dots, underscores and hyphens."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in text)


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write to a temporary name beside `path`, fsync, rename: readers see the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def quintil_version() -> str:
    """Version of the loaded library."""
    return _bindings.build_flags()["version"]


def pretty(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


class SeedDirectory:
    """The folder `seed<k>` of a run and the rows collected for its files so far."""

    def __init__(self, path: Path):
        self.path = path
        self._log: list[dict] = []
        self._metrics: list[str] = []
        self._timing: list[str] = []

    @property
    def finished(self) -> bool:
        return (self.path / "summary.json").is_file()

    def check_config(self, config: dict, repeated: Sequence[int] = ()) -> None:
        """ValueError if this folder or that of another seed beside it holds other settings; names those that differ.

        repeated: seeds whose folders will be written anew and may hold anything.
        """
        config = json.loads(pretty(config))
        for file in sorted(self.path.parent.glob("seed*/config.json")):
            if file.parent.name in [f"seed{seed}" for seed in repeated]:
                continue
            stored = json.loads(file.read_text(encoding="utf-8"))
            own = () if file.parent == self.path else SEED_KEYS
            keys = (stored.keys() | config.keys()) - set(own)
            different = sorted(key for key in keys if stored.get(key) != config.get(key))
            if different:
                key = different[0]
                raise ValueError(
                    f"run: expected {file.parent} to hold a run of the same configuration, got {key} = "
                    f"{stored.get(key)!r} instead of {config.get(key)!r} (differing: {', '.join(different)}; choose "
                    "another exp_name)"
                )

    @property
    def rows(self) -> dict[str, list]:
        """The rows of train_log.csv, metrics.jsonl and timing.jsonl so far, for a checkpoint."""
        return {"log": self._log, "metrics": self._metrics, "timing": self._timing}

    @property
    def record(self) -> dict:
        """The record of the last finished task; empty before the first."""
        return json.loads(self._metrics[-1]) if self._metrics else {}

    @property
    def last_epoch(self) -> dict:
        """The last row of the training log."""
        return self._log[-1]

    @in_first
    def start(self, config: dict) -> None:
        """Create the folder with config.json and env.json; results of an earlier attempt are cleared.

        summary.json goes first: what is cleared only in part must not look finished.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._remove("summary.json", "ckpt/*.pt", "metrics.jsonl", "timing.jsonl", "train_log.csv")
        self._remove("acc_matrix_*.csv", "confusion_*.npz", ".*.tmp", "ckpt/.*.tmp")
        write_atomic(self.path / "config.json", pretty(config))
        write_atomic(self.path / "env.json", pretty(_environment()))

    def restore(
        self,
        config: dict,
        rows: dict[str, list],
        history: dict[str, list[np.ndarray]],
        matrices: dict[str, np.ndarray],
    ) -> None:
        """Go on from a checkpoint: all files are written again from its rows, and what is past it is removed."""
        self._log, self._metrics, self._timing = (list(rows[name]) for name in ("log", "metrics", "timing"))
        self._write_again(config, history, matrices)

    @in_first
    def _write_again(self, config: dict, history: dict, matrices: dict) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._remove("summary.json", ".*.tmp", "ckpt/.*.tmp")
        write_atomic(self.path / "config.json", pretty(config))
        write_atomic(self.path / "env.json", pretty({**_environment(), "resumed_after_task": len(self._metrics)}))
        written = set()
        for head, tables in history.items():
            for task, counts in enumerate(tables, start=1):
                written.add(self._write_confusion(head, task, counts))
        for old in set(self.path.glob("confusion_*.npz")) - written:
            old.unlink()
        if self._metrics:
            self._write_tables(matrices)
        else:
            self._remove("metrics.jsonl", "timing.jsonl", "train_log.csv", "acc_matrix_*.csv")

    def log_epoch(self, row: dict) -> None:
        self._log.append(row)

    def add_task(self, record: dict, timing: dict) -> None:
        """Add the rows of a finished task; `write_task` writes them."""
        self._metrics.append(encode(record))
        self._timing.append(encode(timing))

    @in_first
    def write_task(self, history: dict[str, list[np.ndarray]], matrices: dict[str, np.ndarray]) -> None:
        """Write everything of the task added last; metrics.jsonl comes last.

        history: head -> confusion matrices of all tasks so far; matrices: head -> accuracy table.
        """
        for head, counts in history.items():
            self._write_confusion(head, len(counts), counts[-1])
        self._write_tables(matrices)

    def _write_confusion(self, head: str, task: int, counts: np.ndarray) -> Path:
        path = self.path / f"confusion_{HEAD_FILES[head]}_t{task}.npz"
        buffer = io.BytesIO()
        np.savez_compressed(buffer, counts=counts)
        write_atomic(path, buffer.getvalue())
        return path

    def _write_tables(self, matrices: dict[str, np.ndarray]) -> None:
        for head, matrix in matrices.items():
            write_atomic(self.path / f"acc_matrix_{HEAD_FILES[head]}.csv", _matrix_csv(matrix))
        finished = [row for row in self._log if row["task"] <= len(self._metrics)]
        write_atomic(self.path / "train_log.csv", _log_csv(finished))
        write_atomic(self.path / "timing.jsonl", "\n".join(self._timing) + "\n")
        write_atomic(self.path / "metrics.jsonl", "\n".join(self._metrics) + "\n")

    def _remove(self, *patterns: str) -> None:
        for pattern in patterns:
            for old in self.path.glob(pattern):
                old.unlink()

    @in_first
    def finish(self, summary: dict) -> None:
        """Write summary.json, which marks the seed finished."""
        write_atomic(self.path / "summary.json", encode(summary) + "\n")


def _matrix_csv(matrix: np.ndarray) -> str:
    rows = [",".join("" if math.isnan(v) else f"{v:.6f}" for v in row) for row in matrix.tolist()]
    header = "after_task," + ",".join(f"task_{j}" for j in range(1, len(matrix) + 1))
    return "\n".join([header, *(f"{t},{row}" for t, row in enumerate(rows, start=1))]) + "\n"


def _log_csv(rows: Sequence[dict]) -> str:
    def cell(value: object) -> str:
        return f"{value:.8g}" if isinstance(value, float) else "" if value is None else str(value)

    lines = [",".join(cell(row.get(column)) for column in _LOG_COLUMNS) for row in rows]
    return "\n".join([",".join(_LOG_COLUMNS), *lines]) + "\n"


def processor() -> str:
    """Name of this machine's processor as the system gives it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _environment() -> dict:
    return {
        "command": sys.argv,
        "cpu": processor(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git_revision": _git_revision(),
        "host": platform.node(),
        "isa": active_isa(),
        "numpy": np.__version__,
        "processes": world_size(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _git_revision() -> str | None:
    """Revision of the source tree this package lies in; None for an installed package."""
    here = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
