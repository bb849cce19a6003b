"""Trains or quantises a network under VecQ and leaves its folder (`stage_run.py`), with model.safetensors: what
`save_quantized` makes of it, or float32 tensors of a float stage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from quintil.bits import WidthTrainer, evaluate
from quintil.continual.streams import stream_seed
from quintil.nn import calibrate, quantize_, save_quantized
from quintil.nn.tensor_file import write_tensors

from .stage_run import Row, Stage, read_checkpoint, train_stage
from .vecq_config import VecQRun, make_batches, make_model


class VecQTrainer(WidthTrainer):
    """Trains a model of one width; its losses carry the run's label. ValueError for one that is not finite."""

    def __init__(self, model: nn.Module, run: VecQRun):
        super().__init__(model, run.training)
        self.label = run.label

    def train_epoch(self, batches: Iterable, epoch: int, generator: torch.Generator | None = None) -> dict[str, float]:
        (loss,) = super().train_epoch(batches, epoch, generator).values()
        if not math.isfinite(loss):
            raise ValueError(
                f"train_vecq: expected a finite loss, got {loss} in epoch {epoch + 1} (a lower lr may help)"
            )
        return {self.label: loss}


class VecQStage(Stage):
    kind = "a run of VecQ"

    def accuracies(self) -> dict[str, float]:
        return {self.run.label: evaluate(self.trainer.model, self.batches.test())}

    def finish(self, rows: list[Row]) -> dict[str, Any]:
        """The file of the model, and the summary."""
        run, model = self.run, self.trainer.model.eval()
        if run.stage == "post" and run.scheme.activation_bits is not None:
            generator = torch.Generator().manual_seed(stream_seed(run.seed, "calibration"))
            calibrate(model, self.batches.sample(run.calibration, generator))
        path = run.folder / "model.safetensors"
        if run.stage == "float":
            write_tensors(path, model.state_dict(), {"model": run.model})
        else:
            save_quantized(model, path)
        tested = [row["accuracy"][run.label] for row in rows if "accuracy" in row]
        accuracy = tested[-1] if tested else self.accuracies()[run.label]
        return {"accuracy": {run.label: accuracy}, "bytes": path.stat().st_size, "epochs": len(rows)}


def train_vecq(run: VecQRun, *, force: bool = False, on_epoch: Callable[[Row], None] | None = None) -> dict:
    """`train_stage` of a run of VecQ."""
    return train_stage(run, _stage, force=force, on_epoch=on_epoch)


def _stage(run: VecQRun) -> VecQStage:
    """The model of the run's stage, with the values of the stage before."""
    batches = make_batches(run)
    model = make_model(run, batches)
    if run.start is not None:
        _take_values(model, run)
    if run.stage != "float":
        quantize_(model, run.scheme)
    return VecQStage(run, batches, VecQTrainer(model, run), 0 if run.stage == "post" else run.training.epochs)


def _take_values(model: nn.Module, run: VecQRun) -> None:
    """The float values of a checkpoint, whichever stage it is of; quantisers are left behind."""
    state = read_checkpoint(run.start, VecQStage.kind)["state"]["model"]
    own = model.state_dict()
    for name, value in own.items():
        if name not in state or state[name].shape != value.shape:
            got = list(state[name].shape) if name in state else "none"
            raise ValueError(f"train_vecq: expected {run.start} to have {name} {list(value.shape)}, got {got}")
    model.load_state_dict({name: state[name] for name in own})
