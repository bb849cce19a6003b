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


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write to a temporary name beside `path` and rename: readers see the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
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

    def start(self, config: dict) -> None:
        """Create the folder with config.json and env.json; results of an earlier attempt are cleared.

        summary.json goes first: what is cleared only in part must not look finished.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for old in ("summary.json", "metrics.jsonl", "timing.jsonl", "train_log.csv"):
            (self.path / old).unlink(missing_ok=True)
        for pattern in ("acc_matrix_*.csv", "confusion_*.npz"):
            for old in self.path.glob(pattern):
                old.unlink()
        write_atomic(self.path / "config.json", pretty(config))
        write_atomic(self.path / "env.json", pretty(_environment()))

    def log_epoch(self, row: dict) -> None:
        self._log.append(row)

    def finish_task(
        self,
        record: dict,
        timing: dict,
        history: dict[str, list[np.ndarray]],
        matrices: dict[str, np.ndarray],
    ) -> None:
        """Write everything of one finished task; metrics.jsonl comes last and so marks it finished.

        history: head -> confusion matrices of all tasks so far; matrices: head -> accuracy table.
        """
        for head, counts in history.items():
            tag = HEAD_FILES[head]
            buffer = io.BytesIO()
            np.savez_compressed(buffer, counts=counts[-1])
            write_atomic(self.path / f"confusion_{tag}_t{len(counts)}.npz", buffer.getvalue())
            write_atomic(self.path / f"acc_matrix_{tag}.csv", _matrix_csv(matrices[head]))
        self._metrics.append(encode(record))
        self._timing.append(encode(timing))
        write_atomic(self.path / "train_log.csv", _log_csv(self._log))
        write_atomic(self.path / "timing.jsonl", "\n".join(self._timing) + "\n")
        write_atomic(self.path / "metrics.jsonl", "\n".join(self._metrics) + "\n")

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


def _environment() -> dict:
    return {
        "command": sys.argv,
        "cpu": platform.processor() or platform.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git_revision": _git_revision(),
        "host": platform.node(),
        "isa": active_isa(),
        "numpy": np.__version__,
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
