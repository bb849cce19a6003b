"""Trains a network at several widths and leaves its folder (`stage_run.py`), a float stage with traces.json too: the
trace of the Hessian per layer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from quintil.bits import WidthTrainer, evaluate, hessian_trace, set_bits
from quintil.continual.rundir import pretty, write_atomic
from quintil.continual.streams import stream_seed
from quintil.nn import quantize_, transitional_

from .stage_run import Row, Stage, checkpoint_file, read_checkpoint, train_stage
from .width_config import WidthRun, make_batches, make_model


class WidthStage(Stage):
    kind = "a run over widths"

    def begin(self) -> None:
        """The traces of the stage before go along."""
        if self.run.start is not None and self.run.stage != "float":
            traces = checkpoint_file(self.run.start).parent / "traces.json"
            if traces.is_file():
                write_atomic(self.run.folder / "traces.json", traces.read_bytes())

    def accuracies(self) -> dict[str, float]:
        """By width, all layers at the same."""
        found = {}
        for width in self.trainer.widths:
            if width is not None:
                set_bits(self.trainer.model, width)
            found[str(width or 32)] = evaluate(self.trainer.model, self.batches.test())
        return found

    def finish(self, rows: list[Row]) -> dict[str, Any]:
        """Traces of a float stage, and the summary."""
        run = self.run
        if run.stage == "float" and run.trace_images:
            generator = torch.Generator().manual_seed(stream_seed(run.seed, "traces"))
            sample = self.batches.sample(run.trace_images, generator)
            options = {"most_draws": run.trace_draws, "generator": generator}
            traces = hessian_trace(self.trainer.model, F.cross_entropy, sample, **options)
            write_atomic(run.folder / "traces.json", pretty(traces))
        tested = [row for row in rows if "accuracy" in row]
        means = [sum(row["accuracy"].values()) / len(row["accuracy"]) for row in tested]
        return {
            "accuracy": tested[-1]["accuracy"],
            "mean_accuracy": means[-1],
            "best_mean_accuracy": max(means),
            "best_epoch": tested[means.index(max(means))]["epoch"],
            "epochs": len(rows),
        }


def train_widths(run: WidthRun, *, force: bool = False, on_epoch: Callable[[Row], None] | None = None) -> dict:
    """`train_stage` of a run over widths."""
    return train_stage(run, _stage, force=force, on_epoch=on_epoch)


def read_traces(path: str | Path) -> dict[str, float]:
    """The traces beside a checkpoint; FileNotFoundError if it has none."""
    file = checkpoint_file(path).parent / "traces.json"
    if not file.is_file():
        raise FileNotFoundError(f"read_traces: expected {file} (a float stage writes it), got no file")
    return json.loads(file.read_text(encoding="utf-8"))


def read_state(path: str | Path) -> dict:
    """A checkpoint's content: config, rows, and the trainer's state. FileNotFoundError or ValueError if it is none."""
    return read_checkpoint(path, WidthStage.kind)


def restored_model(content: dict, classes: int, channels: int) -> nn.Module:
    """The network of a checkpoint, swapped if it was, with its values."""
    run = WidthRun.from_resolved(content["config"])
    model = make_model(run, classes, channels)
    if run.stage != "float":
        quantize_(model, run.scheme)
    model.load_state_dict(content["state"]["model"])
    return model


def _stage(run: WidthRun) -> WidthStage:
    batches = make_batches(run)
    return WidthStage(run, batches, _trainer(run, batches), run.training.epochs)


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
