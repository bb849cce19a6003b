"""Checkpoint files: plain tensors and JSON values, in a file that is whole or absent.

A checkpoint is a dict, written with `torch.save` and read with `weights_only=True`:

    format, version       of the file and of the package
    config, config_hash   what config.json holds
    seed, task            finished tasks
    input                 shape, dtype and transform of a sample: what a net for predictions needs without the data set
    learner               state between two tasks: net, teacher ("net" = equal to it), memory, class means, streams
                          (the rounding stream included), and what the learner adds by `extra_state`
    running               None, or inside task + 1: epochs done, epoch under way, net, optimizer, scheduler, streams
    history, rows         confusion counts and the rows of all files so far; the files can be written again from them
    checksum              SHA-256 of everything above: a flipped bit in a tensor is not noticed by torch

It is the last file that changes while a task ends and the first to be read afterwards: the run's other files follow
from it. So a process killed at any moment loses the task it was in and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .distributed import in_first
from .rundir import pretty, quintil_version, write_atomic

if TYPE_CHECKING:
    from .run import SeedSetup

FORMAT = 1
_KEYS = ("version", "config", "config_hash", "seed", "task", "input", "learner", "running", "history", "rows")


# Files ------------------------------------------------------------------------------------------------------------


def write_checkpoint(path: Path, content: dict) -> None:
    """Write to a temporary name, fsync, rename. OSError if it does not fit; what was at `path` is then still there."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content, "checksum": digest(content)}, buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
    except OSError as error:
        raise OSError(
            f"write_checkpoint: expected to write {len(buffer.getvalue())} bytes to {path}, got "
            f"{error.strerror or error} (earlier checkpoints and the files of finished tasks are whole)"
        ) from error


def read_checkpoint(path: str | Path) -> dict:
    """The content of a checkpoint; FileNotFoundError if there is none, ValueError saying what is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"load_checkpoint: expected {path} to be a checkpoint, got no file")
    data = io.BytesIO(path.read_bytes())
    try:
        content = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the broken bytes lead to
        reason = (str(error).splitlines() or [""])[0][:120]
        raise ValueError(
            f"load_checkpoint: expected {path} to be a whole checkpoint, got {type(error).__name__}: {reason}"
        ) from None
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError(f"load_checkpoint: expected {path} to be a checkpoint of quintil, got another file of torch")
    if content.pop("format") != FORMAT:
        raise ValueError(f"load_checkpoint: expected {path} to have format {FORMAT}, got another one")
    checksum = content.pop("checksum", None)
    absent = [key for key in _KEYS if key not in content]
    if absent:
        raise ValueError(f"load_checkpoint: expected {path} to hold {absent[0]}, got {', '.join(map(str, content))}")
    if digest(content) != checksum:
        raise ValueError(f"load_checkpoint: expected {path} to be a whole checkpoint, got contents that were changed")
    return content


class CheckpointFolder:
    """The folder ckpt of a seed: task<t>.pt and last.pt."""

    def __init__(self, path: Path):
        self.path = path

    @in_first
    def write(self, content: dict, *, keep: bool) -> None:
        """Write last.pt, and before it task<t>.pt if the file is to be kept."""
        for name in ([f"task{content['task']}.pt"] if keep else []) + ["last.pt"]:
            write_checkpoint(self.path / name, content)

    def newest(self) -> tuple[Path, dict] | None:
        """The checkpoint that is furthest in the run; None if there is none."""
        last, kept = self.path / "last.pt", self._kept()
        content = read_checkpoint(last) if last.is_file() else None
        if kept and (content is None or content["task"] < max(kept)):
            return kept[max(kept)], read_checkpoint(kept[max(kept)])
        return None if content is None else (last, content)

    def of_task(self, task: int) -> tuple[Path, dict]:
        """The checkpoint after task `task`; FileNotFoundError if it was not kept."""
        path = self.path / f"task{task}.pt"
        if not path.is_file() and (self.path / "last.pt").is_file():
            content = read_checkpoint(self.path / "last.pt")
            if content["task"] == task:
                return self.path / "last.pt", {**content, "running": None}
        if not path.is_file():
            kept = ", ".join(str(number) for number in sorted(self._kept())) or "none"
            raise FileNotFoundError(
                f"run: expected {path} to start from task {task + 1}, got no file (kept after tasks: {kept}; "
                "save_checkpoint task keeps all)"
            )
        return path, read_checkpoint(path)

    @in_first
    def clear(self, after: int = 0) -> None:
        """Remove checkpoints of tasks past `after`; 0 removes all of them."""
        for number, path in self._kept().items():
            if number > after:
                path.unlink()
        if after == 0:
            (self.path / "last.pt").unlink(missing_ok=True)

    def _kept(self) -> dict[int, Path]:
        named = [(re.fullmatch(r"task(\d+)\.pt", path.name), path) for path in self.path.glob("task*.pt")]
        return {int(match[1]): path for match, path in named if match}


def digest(content: object) -> str:
    """SHA-256 of nested dicts, lists and tuples of tensors and JSON values; TypeError for anything else."""
    hasher = hashlib.sha256()
    _feed(content, hasher, "checkpoint")
    return hasher.hexdigest()


def _feed(value: Any, hasher: Any, where: str) -> None:
    if isinstance(value, Tensor):
        hasher.update(f"{value.dtype}{list(value.shape)}".encode())
        hasher.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    elif type(value) is dict:
        hasher.update(f"dict{len(value)}".encode())
        for key, item in value.items():
            if not isinstance(key, (str, int)):
                raise TypeError(f"write_checkpoint: expected keys to be text or integers, got {key!r} (in {where})")
            hasher.update(repr(key).encode())
            _feed(item, hasher, f"{where}.{key}")
    elif type(value) in (list, tuple):
        hasher.update(f"{type(value).__name__}{len(value)}".encode())
        for number, item in enumerate(value):
            _feed(item, hasher, f"{where}[{number}]")
    elif value is None or type(value) in (bool, int, float, str):
        hasher.update(f"{type(value).__name__}{value!r};".encode())
    else:
        kind = type(value).__name__
        raise TypeError(f"write_checkpoint: expected plain tensors and JSON values, got {kind} (at {where})")


def frozen(value: Any) -> Any:
    """A copy that later training does not change: tensors cloned, every mapping a plain dict."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: frozen(item) for key, item in value.items()}
    return type(value)(map(frozen, value)) if isinstance(value, (list, tuple)) else value


# A run ------------------------------------------------------------------------------------------------------------


def run_state(setup: SeedSetup, task: int, learner: dict, history: Mapping[str, list[np.ndarray]]) -> dict:
    """Content of a checkpoint after task `task`, whose learner state was taken then."""
    config = json.loads(pretty(setup.describe()))
    return {
        "version": quintil_version(),
        "config": config,
        "config_hash": hashlib.sha256(pretty(config).encode()).hexdigest(),
        "seed": setup.seed,
        "task": task,
        "input": {
            "shape": list(setup.dataset.x_train.shape[1:]),
            "dtype": str(setup.dataset.x_train.dtype).removeprefix("torch."),
            "transform": setup.dataset.transform.__name__,
        },
        "learner": learner,
        "running": None,
        "history": {head: [torch.from_numpy(counts) for counts in tables] for head, tables in history.items()},
        "rows": frozen(setup.folder.rows),
    }


def check_same_config(content: dict, described: dict, path: Path) -> None:
    """ValueError naming the options in which the run of a checkpoint differs from the one described."""
    stored, wanted = content["config"], json.loads(pretty(described))
    different = sorted(key for key in stored.keys() | wanted.keys() if stored.get(key) != wanted.get(key))
    if different:
        key = different[0]
        raise ValueError(
            f"load_checkpoint: expected {path} to be of the same configuration, got {key} = {stored.get(key)!r} "
            f"instead of {wanted.get(key)!r} (differing: {', '.join(different)})"
        )
