"""Trains a network at several widths and leaves its folder; goes on after an interruption.

config.json    options that decide the result          log.jsonl      a row per epoch: loss, tested accuracy by width
last.pt        checkpoint after every epoch            timing.jsonl   seconds per epoch
traces.json    trace of the Hessian per layer          summary.json   accuracy by width; the run is finished
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from quintil.bits import WidthTrainer, evaluate, hessian_trace, set_bits
from quintil.continual.interrupt import Interrupted, deferred_interrupt
from quintil.continual.rundir import pretty, quintil_version, write_atomic
from quintil.continual.streams import stream_seed
from quintil.nn import quantize_, transitional_

from .width_config import WidthRun, make_batches, make_model

FORMAT = 1
Row = dict[str, Any]


def train_widths(run: WidthRun, *, force: bool = False, on_epoch: Callable[[Row], None] | None = None) -> dict:
    """Train one run, or go on after its newest checkpoint (`force`: anew), and return its summary.

    A finished run returns its summary as it is. KeyboardInterrupt passes through after the current batch; the epoch it
    hit is repeated next time, with the results of an uninterrupted run. ValueError for a folder of other options.
    """
    folder = run.folder
    with _threads(run.threads), torch.random.fork_rng(devices=[]), deferred_interrupt() as asked:
        batches = make_batches(run)
        trainer = _trainer(run, batches)
        position = _begin(run, trainer, force)
        if (folder / "summary.json").is_file():
            return json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        rows = position["rows"]
        for epoch in range(len(rows), run.training.epochs):
            started = time.perf_counter()
            generator = torch.Generator().manual_seed(stream_seed(run.seed, f"epoch{epoch}"))
            torch.manual_seed(stream_seed(run.seed, f"dropout{epoch}"))
            losses = trainer.train_epoch(_until(batches.train(generator), asked), epoch, generator)
            row = {"epoch": epoch + 1, "lr": run.training.rate(epoch), "loss": losses}
            if (epoch + 1) % run.test_every == 0 or epoch + 1 == run.training.epochs:
                row["accuracy"] = _accuracies(trainer, batches)
            rows.append(row)
            _save(run, trainer, rows)
            with (folder / "timing.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"epoch": epoch + 1, "seconds": time.perf_counter() - started}) + "\n")
            if on_epoch is not None:
                on_epoch(row)
            if asked() and epoch + 1 < run.training.epochs:
                raise Interrupted
        return _finish(run, trainer.model, batches, rows)


def read_traces(path: str | Path) -> dict[str, float]:
    """The traces beside a checkpoint; FileNotFoundError if it has none."""
    file = _checkpoint(path).parent / "traces.json"
    if not file.is_file():
        raise FileNotFoundError(f"read_traces: expected {file} (a float stage writes it), got no file")
    return json.loads(file.read_text(encoding="utf-8"))


def read_state(path: str | Path) -> dict:
    """A checkpoint's content: config, rows, and the trainer's state. FileNotFoundError or ValueError if it is none."""
    path = _checkpoint(path)
    try:
        content = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the broken bytes lead to
        raise ValueError(f"read_state: expected {path} to be a whole checkpoint, got {type(error).__name__}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"read_state: expected {path} to be a checkpoint of a run over widths, got another file")
    return content


def restored_model(content: dict, classes: int, channels: int) -> nn.Module:
    """The network of a checkpoint, swapped if it was, with its values."""
    run = WidthRun.from_resolved(content["config"])
    model = make_model(run, classes, channels)
    if run.stage != "float":
        quantize_(model, run.scheme)
    model.load_state_dict(content["state"]["model"])
    return model


def _trainer(run: WidthRun, batches: Any) -> WidthTrainer:
    """The model of the run's stage, with the values of the stage before."""
    classes, channels = batches.classes, batches.sample_shape[0]
    before = None if run.start is None else read_state(run.start)
    if before is None:
        model = make_model(run, classes, channels)
    else:
        model = restored_model(before, classes, channels)
    traces = None
    if run.stage != "float":
        if before is None or before["config"]["stage"] == "float":
            quantize_(model, run.scheme)
        elif run.scheme.transitional_norm:
            transitional_(model)
        _check_scheme(run, model)
        if run.training.sampling == "hasb":
            if run.start is None:
                raise ValueError("train_widths: expected a checkpoint to start from with sampling hasb, got none")
            traces = read_traces(run.start)
    return WidthTrainer(model, run.training, samples=batches.samples, classes=classes, traces=traces)


def _check_scheme(run: WidthRun, model: nn.Module) -> None:
    found = next(m.scheme for m in model.modules() if hasattr(m, "input_quantizers"))
    if found != run.scheme:
        raise ValueError(f"train_widths: expected {run.start} to be of {run.scheme.summary()}, got {found.summary()}")


def _begin(run: WidthRun, trainer: WidthTrainer, force: bool) -> dict:
    """Where the run stands; writes config.json of a new one, and copies the traces of the stage before."""
    folder, described = run.folder, _described(run)
    if force:
        for name in ("summary.json", "last.pt", "log.jsonl", "timing.jsonl", "config.json"):
            (folder / name).unlink(missing_ok=True)
    if (folder / "config.json").is_file():
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        different = sorted(key for key in stored.keys() | described.keys() if stored.get(key) != described.get(key))
        if different:
            raise ValueError(
                f"train_widths: expected {folder} to hold a run of the same options, got {different[0]} = "
                f"{stored.get(different[0])!r} instead of {described.get(different[0])!r} (choose another exp_name, or "
                "--force)"
            )
        if (folder / "last.pt").is_file():
            content = read_state(folder)
            trainer.load_state(content["state"])
            return content
        return {"rows": []}
    folder.mkdir(parents=True, exist_ok=True)
    if run.start is not None and run.stage != "float":
        traces = _checkpoint(run.start).parent / "traces.json"
        if traces.is_file():
            write_atomic(folder / "traces.json", traces.read_bytes())
    write_atomic(folder / "config.json", pretty(described))
    return {"rows": []}


def _described(run: WidthRun) -> dict:
    start = None if run.start is None else hashlib.sha256(_checkpoint(run.start).read_bytes()).hexdigest()
    return json.loads(json.dumps({**run.resolved(), "start": start, "version": quintil_version()}))


def _checkpoint(path: str | Path) -> Path:
    """The checkpoint of a folder, or the file itself; FileNotFoundError if there is none."""
    file = Path(path) / "last.pt" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"read_state: expected {file} to be a checkpoint, got no file")
    return file


def _accuracies(trainer: WidthTrainer, batches: Any) -> dict[str, float]:
    """Test accuracy by width, all layers at the same."""
    found = {}
    for width in trainer.widths:
        if width is not None:
            set_bits(trainer.model, width)
        found[str(width or 32)] = evaluate(trainer.model, batches.test())
    return found


def _save(run: WidthRun, trainer: WidthTrainer, rows: list[Row]) -> None:
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "config": run.resolved(), "rows": rows, "state": trainer.state()}, buffer)
    write_atomic(run.folder / "last.pt", buffer.getvalue())
    write_atomic(run.folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _finish(run: WidthRun, model: nn.Module, batches: Any, rows: list[Row]) -> dict:
    """Traces of a float stage, and the summary."""
    if run.stage == "float" and run.trace_images:
        generator = torch.Generator().manual_seed(stream_seed(run.seed, "traces"))
        sample = batches.sample(run.trace_images, generator)
        traces = hessian_trace(model, F.cross_entropy, sample, most_draws=run.trace_draws, generator=generator)
        write_atomic(run.folder / "traces.json", pretty(traces))
    tested = [row for row in rows if "accuracy" in row]
    means = [sum(row["accuracy"].values()) / len(row["accuracy"]) for row in tested]
    summary = {
        "accuracy": tested[-1]["accuracy"],
        "mean_accuracy": means[-1],
        "best_mean_accuracy": max(means),
        "best_epoch": tested[means.index(max(means))]["epoch"],
        "epochs": len(rows),
    }
    write_atomic(run.folder / "summary.json", pretty(summary))
    return summary


def _until(batches: Iterable, asked: Callable[[], bool]) -> Iterator:
    for batch in batches:
        if asked():
            raise Interrupted
        yield batch


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
