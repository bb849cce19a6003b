"""What a run of VecQ is: its options, checked once, and what follows from them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quintil import data
from quintil.bits import SwitchConfig
from quintil.data import TensorBatches
from quintil.models import CnnLstm, lenet5, vgg_like
from quintil.schemes import VecQ

from .stage_config import StageRun, drawn_model

STAGES = ("float", "vecq", "post")
_IMAGE_SIZES = {"lenet5": 28, "vgg_like": 32}
_IN_LABEL = ("weight_bits", "activation_bits")
_SPELLED = {  # fields of the scheme in names of folders, others as <field>-<value>
    ("per_channel", True): "per_channel",
    ("quantize_bias", False): "float_bias",
    ("ema_debias", True): "ema_debias",
    ("ema_debias", False): "no_debias",
    ("levels", "ul2q"): "ul2q",
    ("lambda_mode", "search"): "search",
    ("activation_place", "output"): "output",
    ("activation_place", "before_activation"): "before_activation",
}


class TwoClassCnnLstm(CnnLstm):
    """CnnLstm whose logit stands beside a 0, as logits of two classes [N, 2]: cross entropy is that of the one logit.

    Files and state dicts are those of CnnLstm.
    """

    def __init__(self, classes: int, *, generator: torch.Generator | None = None):
        if classes != 2:
            raise ValueError(f"TwoClassCnnLstm: expected 2 classes, got {classes}")
        super().__init__(generator=generator)

    def forward(self, words: Tensor) -> Tensor:
        logit = super().forward(words)
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


MODELS = {"lenet5": lenet5, "vgg_like": vgg_like, "cnn_lstm": TwoClassCnnLstm}


@dataclass(frozen=True)
class VecQRun(StageRun):
    """One run: `StageRun`, and

    dataset: of `quintil.data.load`; images are scaled to what the model takes. model: one of MODELS.
    stage: 'float' trains in float32; 'vecq' with quantised forwards; 'post' quantises what was trained, and trains
        nothing. The last takes the values of `start`, which the others may: float32 trained on from there is what
        fine-tuning is to be compared with.
    validation: test on a part of the training side instead (`quintil.data.load`).
    scheme: of the stages 'vecq' and 'post'. training: of `SwitchConfig` epochs, lr and weight_decay count.
    calibration: training samples that the stage 'post' looks at where activations are quantised.
    """

    dataset: str = "mnist"
    model: str = "lenet5"
    stage: str = "vecq"
    scheme: VecQ = VecQ()
    training: SwitchConfig = SwitchConfig()
    batch_size: int = 128
    calibration: int = 2048
    validation: bool = False
    exp_name: str = "vecq"

    def __post_init__(self) -> None:
        self.check(tuple(MODELS), STAGES, ("test_every", "calibration"))
        if self.stage == "post" and self.start is None:
            raise ValueError("VecQRun: expected a checkpoint to start from in the stage post, got none")

    @property
    def label(self) -> str:
        """Widths of weights and activations: '2a8', 32 for float32."""
        if self.stage == "float":
            return "32a32"
        return f"{self.scheme.weight_bits}a{self.scheme.activation_bits or 32}"

    @property
    def options(self) -> list[str]:
        """What the scheme has beside its widths that is not usual in the stage, a word each: 'ul2q', 'tie-away'."""
        usual = VecQ(ema_debias=self.stage == "post")
        changed = [
            (field.name, getattr(self.scheme, field.name))
            for field in dataclasses.fields(VecQ)
            if field.name not in _IN_LABEL and getattr(self.scheme, field.name) != getattr(usual, field.name)
        ]
        return [_SPELLED.get((name, value), f"{name}-{value}") for name, value in changed]

    @property
    def folder(self) -> Path:
        """<results_dir>/<exp_name>/<data>_<model>_<stage>[_w<label>[_<option>...]]/seed<k>.

        A float stage with a start is tuned.
        """
        if self.stage != "float":
            return self.folder_of("_".join(["", f"w{self.label}", *self.options]))
        return self.folder_of("" if self.start is None else "_tuned")

    def resolved(self) -> dict[str, Any]:
        """The options that decide a result, as JSON values."""
        found = super().resolved()
        training = {name: found["training"][name] for name in ("epochs", "lr", "weight_decay")}
        return {**found, "training": None if self.stage == "post" else training}


def make_batches(run: VecQRun) -> TensorBatches:
    """The data of a run; ValueError where they do not fit its model."""
    loaded = data.load(run.dataset, run.data_root, seed=run.seed, validation=run.validation)
    options = {"shape": (1, 8, 8) if run.dataset == "digits" else None, "limit": run.limit_batches}
    batches = TensorBatches(loaded, run.batch_size, **options)
    size = _IMAGE_SIZES.get(run.model)
    fits = len(batches.sample_shape) == 3 if size else loaded.x_train.dtype == torch.int64
    if not fits:
        raise ValueError(
            f"make_batches: expected {'images [channels, height, width]' if size else 'words [length], int64'} for "
            f"{run.model}, got samples {list(batches.sample_shape)} of {loaded.x_train.dtype} (data set {run.dataset})"
        )
    if size and batches.sample_shape[1:] != (size, size):
        return TensorBatches(_scaled(loaded, batches.sample_shape, size), run.batch_size, limit=run.limit_batches)
    return batches


def _scaled(loaded: data.Dataset, shape: tuple[int, ...], size: int) -> data.Dataset:
    """Images of `shape`, [size, size] when a network sees them."""

    def scaled(x: Tensor) -> Tensor:
        return F.interpolate(x.reshape(len(x), *shape), (size, size), mode="bilinear", align_corners=False)

    augment = loaded.augment
    return dataclasses.replace(
        loaded,
        transform=lambda raw: scaled(loaded.transform(raw)),
        augment=None if augment is None else lambda raw, generator: scaled(augment(raw, generator)),
    )


def make_model(run: VecQRun, batches: TensorBatches) -> nn.Module:
    """The float network of a run, its values drawn from the seed."""
    options = {} if run.model == "cnn_lstm" else {"in_channels": batches.sample_shape[0]}
    return drawn_model(MODELS[run.model], batches.classes, run.seed, **options)
