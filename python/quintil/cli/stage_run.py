"""A stage of training in a folder of its own: epochs, checkpoints and files, whatever is trained.

config.json    options that decide the result          log.jsonl      a row per epoch: loss, tested accuracy
last.pt        checkpoint after every epoch            timing.jsonl   seconds per epoch
summary.json   what the stage ended with; the run is finished
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from quintil.bits import WidthTrainer
from quintil.continual.interrupt import Interrupted, deferred_interrupt
from quintil.continual.rundir import pretty, quintil_version, write_atomic
from quintil.continual.streams import stream_seed
from quintil.continual.threads import torch_threads

Row = dict[str, Any]
_FILES = ("summary.json", "last.pt", "log.jsonl", "timing.jsonl", "config.json")
_FORMATS = {"a run over widths": 1, "a run of VecQ": "vecq 1"}  # what checkpoints of a kind of run are marked with


class Stage:
    """What `train_stage` trains; a kind of run derives from it.

    run: has folder, seed, threads, test_every, start and resolved(). batches: of `quintil.data`. epochs: may be 0.
    """

    kind = ""  # of _FORMATS

    def __init__(self, run: Any, batches: Any, trainer: WidthTrainer, epochs: int):
        self.run, self.batches, self.trainer, self.epochs = run, batches, trainer, epochs

    def begin(self) -> None:
        """Called once the folder of a new run exists."""

    def accuracies(self) -> dict[str, float]:
        """On the test side, in percent."""
        raise NotImplementedError

    def finish(self, rows: list[Row]) -> dict[str, Any]:
        """Leave what else belongs into the folder; the summary."""
        raise NotImplementedError


def train_stage(
    run: Any, make: Callable[[Any], Stage], *, force: bool = False, on_epoch: Callable[[Row], None] | None = None
) -> dict[str, Any]:
    """Train one run, or go on after its newest checkpoint (`force`: anew), and return its summary.

    A finished run returns its summary as it is. KeyboardInterrupt passes through after the current batch; the epoch it
    hit is repeated next time, with the results of an uninterrupted run. ValueError for a folder of other options.
    """
    folder = run.folder
    with torch_threads(run.threads), torch.random.fork_rng(devices=[]), deferred_interrupt() as asked:
        stage = make(run)
        rows = _begin(stage, force)
        if (folder / "summary.json").is_file():
            return json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        for epoch in range(len(rows), stage.epochs):
            started = time.perf_counter()
            generator = torch.Generator().manual_seed(stream_seed(run.seed, f"epoch{epoch}"))
            torch.manual_seed(stream_seed(run.seed, f"dropout{epoch}"))
            losses = stage.trainer.train_epoch(_until(stage.batches.train(generator), asked), epoch, generator)
            row = {"epoch": epoch + 1, "lr": stage.trainer.config.rate(epoch), "loss": losses}
            if (epoch + 1) % run.test_every == 0 or epoch + 1 == stage.epochs:
                row["accuracy"] = stage.accuracies()
            rows.append(row)
            _save(stage, rows)
            with (folder / "timing.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"epoch": epoch + 1, "seconds": time.perf_counter() - started}) + "\n")
            if on_epoch is not None:
                on_epoch(row)
            if asked() and epoch + 1 < stage.epochs:
                raise Interrupted
        summary = stage.finish(rows)
        write_atomic(folder / "summary.json", pretty(summary))
        return summary


def read_checkpoint(path: str | Path, kind: str) -> dict:
    """A checkpoint's content: config, rows, and the trainer's state. FileNotFoundError or ValueError if it is none."""
    path = checkpoint_file(path)
    try:
        content = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the broken bytes lead to
        raise ValueError(f"read_state: expected {path} to be a whole checkpoint, got {type(error).__name__}") from None
    if not isinstance(content, dict) or content.get("format") != _FORMATS[kind]:
        raise ValueError(f"read_state: expected {path} to be a checkpoint of {kind}, got another file")
    return content


def checkpoint_file(path: str | Path) -> Path:
    """The checkpoint of a folder, or the file itself; FileNotFoundError if there is none."""
    file = Path(path) / "last.pt" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"read_state: expected {file} to be a checkpoint, got no file")
    return file


def _begin(stage: Stage, force: bool) -> list[Row]:
    """Rows of the epochs that are done; the trainer stands behind them. Writes config.json of a new run."""
    run, folder = stage.run, stage.run.folder
    start = None if run.start is None else hashlib.sha256(checkpoint_file(run.start).read_bytes()).hexdigest()
    described = json.loads(json.dumps({**run.resolved(), "start": start, "version": quintil_version()}))
    if force:
        for name in _FILES:
            (folder / name).unlink(missing_ok=True)
    if (folder / "config.json").is_file():
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        different = sorted(key for key in stored.keys() | described.keys() if stored.get(key) != described.get(key))
        if different:
            raise ValueError(
                f"train_stage: expected {folder} to hold a run of the same options, got {different[0]} = "
                f"{stored.get(different[0])!r} instead of {described.get(different[0])!r} (choose another exp_name, or "
                "--force)"
            )
        if not (folder / "last.pt").is_file():
            return []
        content = read_checkpoint(folder, stage.kind)
        stage.trainer.load_state(content["state"])
        return content["rows"]
    folder.mkdir(parents=True, exist_ok=True)
    stage.begin()
    write_atomic(folder / "config.json", pretty(described))
    return []


def _save(stage: Stage, rows: list[Row]) -> None:
    buffer, config = io.BytesIO(), stage.run.resolved()
    state = stage.trainer.state()
    torch.save({"format": _FORMATS[stage.kind], "config": config, "rows": rows, "state": state}, buffer)
    write_atomic(stage.run.folder / "last.pt", buffer.getvalue())
    write_atomic(stage.run.folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _until(batches: Iterable, asked: Callable[[], bool]) -> Iterator:
    for batch in batches:
        if asked():
            raise Interrupted
        yield batch
