"""All options of one class-incremental run, checked once, and the names derived from them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quintil.schemes import HDQT, DoubleRounding, Scheme

from .exemplars import POLICIES, SELECTIONS
from .rundir import folder_name
from .samples import BITS

MODELS = ("fcnet", "lstm", "resnet20", "resnet32")
NORMS = ("none", "layer", "batch")
BIC_LAYERS = ("one", "per_task")
HEADS = ("linear", "cosine")
SCHEDULERS = ("steplr", "cosine")


@dataclass(frozen=True)
class RunConfig:
    """Options of a run; names are those of the command line [CIL 6].

    dataset, data_root, split, normalise, features_file, subjects_drop, classes_drop, download, validation: see
        `quintil.data.load`.
    method: a learner's name. model: fcnet, lstm (windows of signals), resnet20 or resnet32, None = by
        the data (RGB images: resnet32, others: fcnet).
    init_cls, increment: classes of the first and of every later task; init_cls None = increment; increment 0 with
        init_cls None = one task with all classes.
    seeds: one run each. order_seed draws the class order (None = the run's own seed); class_order: None (drawn),
        "icarl", "identity", or a list of class indices.
    memory_size, memory_policy, exemplar_selection: exemplars; `memory_size` counts per class if the policy is
        per_class. minibatch_size: er draws so many memory samples for every step (None = batch_size).
        exemplar_bits: 8 or 4 keeps float exemplars as codes with a scale each (None = as they are).
    epochs, lr, milestones, lr_decay, weight_decay: every task; the init_* values replace them in the first task
        (None = the same). SGD with `momentum`; the rate is multiplied by lr_decay at each milestone (epochs,
        integers); no milestones = constant rate.
    T, lamda, kd_tau2: temperature, weight of the distillation (None = the learner's own) and whether it is
        multiplied by T^2. all_outputs: fine-tuning with the cross-entropy over all seen classes.
    split_ratio: BiC's share of the memory for validation, between 0 and 1. bic_layers: "one" correction, of the newest
        classes, or one "per_task". bic_epochs: of its second stage (None = 200, with bic_compat those of the first).
        bic_compat: the HDQT authors' variant, always per_task; bic_compat_double_softmax: only its loss.
    scheduler: "steplr" (milestones) or "cosine", which falls to 0 over the epochs of each task.
    fc_hid_dim, fc_nr_hid, half_dims, norm: FCNet; fc_hid_dim is also the width of an LSTM (None = 64). in_dim: values
        per sample, only checked. head: linear or cosine classifier (None = the learner's own, linear for all but
        lucir). bias: gives a linear classifier a bias.
    alpha_aux, train_base: der and memo, weight of the auxiliary head; memo, whether the base trains after task 1.
    imprint_weights, less_forget, mr_loss, lw_mr, mr_margin, mr_nearest, rs_ratio: lucir, its parts on or off, weight,
        margin and number of nearest new classes of the margin ranking, least share of exemplars in an epoch.
    finetune_epochs, finetune_lr_factor, noise_grad: eeil, epochs of the balanced phase and its rate as a share of
        lr; noise on the gradients.
    scheme: quantisation, e.g. quintil.HDQT(); None = float32. skip: layers left in float32. fuse: convolution,
        BatchNorm, residual and ReLU in one op (`quintil.nn.fuse_`), for HDQT.
    bit_widths: after each task also test a copy of the net at these widths, e.g. (8, 6, 4, 2) (`continual.bit_widths`),
        after width_epochs of training towards the net's logits. The net of the last task is kept in a file.
    eval_every: measure the linear head's test accuracy every so many epochs (0 = only after a task); nothing is
        ever selected by it. limit_batches: stop every epoch after so many batches (0 = whole epochs).
    hdqt_rounding: forgetting_class_best rounded as in the HDQT authors' code.
    save_checkpoint: "last" keeps the newest checkpoint of a seed, "task" also that of every task, "none" writes none.
        self_contained: checkpoints hold the exemplars themselves, not only their places in the data set.
    threads: torch threads while the run lasts (None = as set). results_dir, exp_name: where the run goes.
    """

    dataset: str
    method: str = "icarl"
    model: str | None = None
    init_cls: int | None = None
    increment: int = 2
    seeds: tuple[int, ...] = (0,)
    order_seed: int | None = None
    class_order: str | tuple[int, ...] | None = None
    memory_size: int = 2000
    memory_policy: str = "total"
    exemplar_selection: str = "herding"
    minibatch_size: int | None = None
    exemplar_bits: int | None = None
    epochs: int = 100
    lr: float = 0.1
    milestones: tuple[int, ...] = ()
    lr_decay: float = 0.1
    weight_decay: float = 2e-4
    init_epoch: int | None = None
    init_lr: float | None = None
    init_milestones: tuple[int, ...] | None = None
    init_lr_decay: float | None = None
    init_weight_decay: float | None = None
    momentum: float = 0.9
    batch_size: int = 128
    T: float = 2.0
    lamda: float | None = None
    kd_tau2: bool = False
    all_outputs: bool = False
    split_ratio: float = 0.1
    bic_layers: str = "one"
    bic_epochs: int | None = None
    bic_compat: bool = False
    bic_compat_double_softmax: bool = False
    in_dim: int | None = None
    fc_hid_dim: int | None = None
    fc_nr_hid: int = 0
    half_dims: bool = False
    norm: str = "none"
    bias: bool = False
    head: str | None = None
    scheduler: str = "steplr"
    alpha_aux: float = 1.0
    train_base: bool = False
    imprint_weights: bool = True
    less_forget: bool = True
    mr_loss: bool = True
    lw_mr: float = 1.0
    mr_margin: float = 0.5
    mr_nearest: int = 2
    rs_ratio: float = 0.0
    finetune_epochs: int = 40
    finetune_lr_factor: float = 0.01
    noise_grad: bool = False
    scheme: Scheme | None = None
    skip: tuple[str, ...] = ()
    fuse: bool = False
    data_root: str | None = None
    split: str | None = None
    normalise: str | None = None
    features_file: str | None = None
    subjects_drop: tuple[int, ...] | None = None
    classes_drop: tuple[int, ...] | None = None
    download: bool = False
    validation: bool = False
    bit_widths: tuple[int, ...] = ()
    width_epochs: int = 0
    eval_every: int = 0
    limit_batches: int = 0
    hdqt_rounding: bool = False
    save_checkpoint: str = "last"
    self_contained: bool = False
    threads: int | None = None
    results_dir: str = "runs"
    exp_name: str = "default"

    def __post_init__(self) -> None:
        for name in ("milestones", "init_milestones"):
            value = getattr(self, name)
            if value is not None:
                _require_integers(name, value)
                object.__setattr__(self, name, tuple(value))
        for name, low in _INTEGER_MINIMA.items():
            _require(name, getattr(self, name), int, low)
        for name, low in _NUMBER_MINIMA.items():
            _require(name, getattr(self, name), (int, float), low)
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ValueError(
                    f"RunConfig: expected {name} to be one of {', '.join(map(str, allowed))}, got {value!r}"
                )
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"RunConfig: expected {name} to be True or False, got {getattr(self, name)!r}")
        if not 0 < self.split_ratio < 1:
            raise ValueError(f"RunConfig: expected split_ratio between 0 and 1, got {self.split_ratio}")
        if self.rs_ratio >= 1:
            raise ValueError(f"RunConfig: expected rs_ratio below 1, got {self.rs_ratio}")
        if self.fuse and not isinstance(self.scheme, HDQT):
            raise ValueError(f"RunConfig: expected fuse only with scheme HDQT, got {scheme_label(self.scheme)}")
        if self.bias and self.head == "cosine":
            raise ValueError("RunConfig: expected bias only with a linear head, got head cosine")
        if self.bit_widths:
            object.__setattr__(self, "bit_widths", DoubleRounding(bits=self.bit_widths).bits)
        _require_integers("seeds", self.seeds)
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if not self.seeds or min(self.seeds) < 0 or max(self.seeds) >= 2**32 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"RunConfig: expected seeds to be different integers in 0..2^32-1, got {self.seeds}")

    def replace(self, **changes: Any) -> RunConfig:
        """A copy with some options changed; unknown names raise ValueError."""
        known = {field.name for field in dataclasses.fields(self)}
        unknown = sorted(set(changes) - known)
        if unknown:
            raise ValueError(f"RunConfig: expected known options, got {', '.join(unknown)}")
        return dataclasses.replace(self, **changes)

    def schedule(self, first_task: bool) -> tuple[int, float, tuple[int, ...], float, float]:
        """(epochs, lr, milestones, lr_decay, weight_decay) of the first or of a later task."""
        later = (self.epochs, self.lr, self.milestones, self.lr_decay, self.weight_decay)
        if not first_task:
            return later
        init = (
            self.init_epoch,
            self.init_lr,
            self.init_milestones,
            self.init_lr_decay,
            self.init_weight_decay,
        )
        return tuple(other if value is None else value for value, other in zip(init, later))

    def first_classes(self, classes: int) -> int:
        """Classes of the first task for a data set of `classes` classes."""
        if self.init_cls is not None:
            return self.init_cls
        return self.increment or classes

    def directory(self, classes: int) -> Path:
        """runs/<exp>/<dataset>_<method>_B<init>_Inc<inc>[_<scheme>] for a data set of `classes` classes [CIL 7]."""
        name = f"{self.dataset}_{self.method}_B{self.first_classes(classes)}_Inc{self.increment}"
        name = folder_name(name)
        if self.scheme is not None:
            name += f"_{scheme_label(self.scheme)}"
        return Path(self.results_dir) / self.exp_name / name

    def resolved(self) -> dict:
        """The options that decide a result, as plain JSON values (no paths, threads or lists of seeds)."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in _NO_RESULT:
            del values[name]
        scheme = None if self.scheme is None else self.scheme.to_dict()
        return {**values, "scheme": scheme, "scheme_label": scheme_label(self.scheme)}


_NO_RESULT = (
    "data_root", "features_file", "download", "save_checkpoint", "self_contained", "threads", "results_dir", "exp_name",
    "seeds",
)  # fmt: skip
_INTEGER_MINIMA = {
    "init_cls": 1, "increment": 0, "memory_size": 0, "minibatch_size": 1, "epochs": 1, "init_epoch": 1,
    "batch_size": 1, "bic_epochs": 1, "in_dim": 1,
    "fc_hid_dim": 1, "fc_nr_hid": 0, "eval_every": 0, "limit_batches": 0, "threads": 1, "order_seed": 0,
    "mr_nearest": 1, "finetune_epochs": 0, "width_epochs": 0,
}  # fmt: skip
_NUMBER_MINIMA = {
    "lr": 0, "init_lr": 0, "lr_decay": 0, "init_lr_decay": 0, "weight_decay": 0, "init_weight_decay": 0,
    "momentum": 0, "lamda": 0, "split_ratio": 0, "T": 1e-6,
    "alpha_aux": 0, "lw_mr": 0, "mr_margin": 0, "rs_ratio": 0, "finetune_lr_factor": 0,
}  # fmt: skip
_CHOICES = {
    "memory_policy": POLICIES, "exemplar_selection": SELECTIONS, "exemplar_bits": BITS, "model": MODELS, "norm": NORMS,
    "head": HEADS, "scheduler": SCHEDULERS, "bic_layers": BIC_LAYERS, "save_checkpoint": ("none", "last", "task"),
}  # fmt: skip
_FLAGS = (
    "kd_tau2", "all_outputs", "half_dims", "bias", "download", "hdqt_rounding", "bic_compat",
    "bic_compat_double_softmax", "train_base", "imprint_weights", "less_forget", "mr_loss", "noise_grad",
    "self_contained", "fuse", "validation",
)  # fmt: skip


def _require(name: str, value: Any, kinds: type | tuple[type, ...], low: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, kinds):
        wanted = "an integer" if kinds is int else "a number"
        raise TypeError(f"RunConfig: expected {name} to be {wanted}, got {value!r} ({type(value).__name__})")
    if not low <= value < float("inf"):
        raise ValueError(f"RunConfig: expected {name} of at least {low}, got {value}")


def _require_integers(name: str, values: Sequence[int]) -> None:
    """Refuses texts: the string "50" as a milestone would silently never be reached."""
    listed = not isinstance(values, str) and isinstance(values, Sequence)
    if not listed or not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        raise TypeError(f"RunConfig: expected {name} to be integers, got {values!r}")


def scheme_label(scheme: Scheme | None) -> str:
    """Short name for folders, tables and curves: float32, hdqt_w4a4acc8, hdqt_w4a4acc8_paper, double_rounding_w8642.

    hdqt_w4a4acc8_b2acc32: the accumulator of the weight gradient has bits of its own. A scheme that differs from the
    default and from the paper's in more than bits and accumulator ends in six digits of a hash of its fields, so that
    two settings never share a folder.
    """
    if scheme is None:
        return "float32"
    kind = type(scheme)
    label = scheme.name
    widths = {name: getattr(scheme, name) for name in ("bits", "accumulator_bits") if hasattr(scheme, name)}
    if len(widths) == 2:
        label += f"_w{scheme.bits}a{scheme.bits}acc{scheme.accumulator_bits}"
        own = getattr(scheme, "weight_gradient_accumulator_bits", None)
        if own is not None:
            widths["weight_gradient_accumulator_bits"] = own
            label += f"_b2acc{own}"
    elif isinstance(widths.get("bits"), tuple):
        label += f"_w{''.join(map(str, scheme.bits))}"
    if scheme == kind(**widths):
        return label
    paper = kind.paper() if hasattr(kind, "paper") else None
    if paper is not None and scheme == dataclasses.replace(paper, **widths):
        return f"{label}_paper"
    fields = scheme.to_dict()
    if fields.get("weight_gradient_accumulator_bits", 0) is None:  # runs from before this field keep their folders
        del fields["weight_gradient_accumulator_bits"]
    text = json.dumps(fields, sort_keys=True)
    return f"{label}_{hashlib.sha256(text.encode()).hexdigest()[:6]}"
