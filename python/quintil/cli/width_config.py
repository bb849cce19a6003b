"""What a training run over widths is: its options, checked once, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from quintil import data
from quintil.bits import SwitchConfig
from quintil.data import PhotoBatches, TensorBatches
from quintil.models import mobilenet_v2, preact_resnet18, preact_resnet20, preact_resnet50
from quintil.schemes import DoubleRounding

from .stage_config import StageRun, drawn_model

MODELS = {
    "resnet20": preact_resnet20,
    "resnet18": preact_resnet18,
    "resnet50": preact_resnet50,
    "mobilenet_v2": mobilenet_v2,
}
STAGES = ("float", "multi", "mixed")


@dataclass(frozen=True)
class WidthRun(StageRun):
    """One training run: `StageRun`, and

    dataset: of `quintil.data.load`, or "photos:DIR" for ImageNet's folders. model: one of MODELS.
    stage: 'float' trains in float32; 'multi' all layers at one width after the other; 'mixed' a super-net.
    method: a name of `quintil.bits.BASELINES`. scheme, training: what `baseline` made of them.
    image_size: of photographs. workers: processes that read them.
    trace_images, trace_draws: of the traces that a float stage leaves behind; 0 images = none.
    """

    dataset: str = "cifar100"
    model: str = "resnet20"
    stage: str = "multi"
    method: str = "double_rounding"
    scheme: DoubleRounding = DoubleRounding()
    training: SwitchConfig = SwitchConfig()
    image_size: int = 224
    trace_images: int = 1024
    trace_draws: int = 30
    workers: int = 0
    exp_name: str = "widths"

    def __post_init__(self) -> None:
        self.check(tuple(MODELS), STAGES, ("test_every",))

    @property
    def folder(self) -> Path:
        """<results_dir>/<exp_name>/<data>_<model>_<stage>[_<method>_w<widths>]/seed<k>."""
        widths = "" if self.stage == "float" else f"_{self.method}_w{''.join(map(str, self.scheme.bits))}"
        return self.folder_of(widths)

    @classmethod
    def from_resolved(cls, values: dict[str, Any], **paths: Any) -> WidthRun:
        """The run of a checkpoint; `paths`: data_root and what else does not decide a result."""
        scheme = DoubleRounding() if values["scheme"] is None else DoubleRounding.from_dict(values["scheme"])
        return cls(**{**values, "scheme": scheme, "training": SwitchConfig(**values["training"]), **paths})


def make_batches(run: WidthRun) -> TensorBatches | PhotoBatches:
    """The data of a run; ValueError where they are no images or do not fit."""
    if run.dataset.startswith("photos:"):
        folder = run.dataset.removeprefix("photos:")
        options = {"size": run.image_size, "workers": run.workers, "limit": run.limit_batches}
        return PhotoBatches(folder, run.batch_size, **options)
    loaded = data.load(run.dataset, run.data_root, seed=run.seed)
    shape = (1, 8, 8) if run.dataset == "digits" else None
    batches = TensorBatches(loaded, run.batch_size, shape=shape, limit=run.limit_batches)
    if len(batches.sample_shape) != 3:
        raise ValueError(
            f"make_batches: expected images [channels, height, width], got samples {list(batches.sample_shape)} "
            f"(data set {run.dataset})"
        )
    return batches


def make_model(run: WidthRun, classes: int, channels: int) -> nn.Module:
    """The float network of a run, its values drawn from the seed."""
    return drawn_model(MODELS[run.model], classes, run.seed, in_channels=channels)
