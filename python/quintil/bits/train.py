"""Training at several widths: the order of forwards, backwards and steps, whatever the model and the data are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quintil.nn.widths import get_bits, set_bits

from .distill import UPDATES, SelfDistillation, soft_cross_entropy
from .multi_lr import LR_MODES, LR_SCOPES, MultiLR, parameter_groups
from .roulette import HASB, Roulette

_CHOICES = {
    "update": ("joint", "conventional"),
    "lr_mode": LR_MODES,
    "lr_scope": LR_SCOPES,
    "distillation": ("none", "previous_epoch", "recursive"),
    "pskd_update": UPDATES,
    "sampling": ("same", "hasb", "uniform"),
}


@dataclass(frozen=True)
class SwitchConfig:
    """How a model is trained at several widths; the defaults are the paper's for ImageNet [DR 2.6, 4].

    epochs, lr, weight_decay: Adam whose rate falls to 0 by a cosine over the epochs; decay of layers' weights alone.
    update: 'joint' takes a step after every width [D16]; 'conventional' adds the gradients of all widths up and takes
        one step at lr [D17].
    lr_mode, lr_stop, lr_scope: rate of the quantiser steps, see `MultiLR` and `parameter_groups`.
    extra_step: with 'joint', one more optimiser step after the last width, on gradients of zero.
    distillation: 'previous_epoch' [D18]; 'recursive': each width learns from the next higher one of the same batch, as
        Any-Precision does; or 'none'. pskd_alpha, pskd_update: of 'previous_epoch', see `SelfDistillation`.
    sampling: 'same' width in all layers; 'hasb' redraws layers by their sensitivity [D23]; 'uniform' redraws them with
        equal probabilities. sigma, mix_warmup: see `HASB`.
    """

    epochs: int = 90
    lr: float = 5e-4
    weight_decay: float = 5e-5
    update: str = "joint"
    lr_mode: str = "multi_lr"
    lr_stop: int | None = None
    lr_scope: str = "steps"
    extra_step: bool = False
    distillation: str = "none"
    pskd_alpha: float = 0.7
    pskd_update: str = "epoch"
    sampling: str = "same"
    sigma: float = 0.5
    mix_warmup: int = 10

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"SwitchConfig: expected {name} to be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        for name in ("lr", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:  # also refuses NaN
                raise ValueError(f"SwitchConfig: expected {name} >= 0 and finite, got {getattr(self, name)}")
        if self.epochs < 1:
            raise ValueError(f"SwitchConfig: expected epochs of at least 1, got {self.epochs}")
        if self.extra_step and self.update != "joint":
            raise ValueError(f"SwitchConfig: expected extra_step only with update joint, got {self.update}")

    @classmethod
    def paper(cls, **changes: Any) -> SwitchConfig:
        """What the authors' code does where it differs from the paper [DR 3]."""
        own = {
            "lr_mode": "multi_lr_code",
            "lr_scope": "no_decay_group",
            "extra_step": True,
            "pskd_update": "in_loop",
        }
        return cls(**{**own, **changes})

    def rate(self, epoch: int) -> float:
        """Learning rate of `epoch`, which counts from 0."""
        return 0.5 * self.lr * (1.0 + math.cos(math.pi * epoch / self.epochs))


class WidthTrainer:
    """Trains a model at all of its widths, or a float model without any.

    model: swapped under `DoubleRounding`, or float. samples, classes: of the training data. traces: layer -> trace, for
    sampling 'hasb'. Everything random is drawn from the generator given to `train_epoch`.
    """

    def __init__(
        self,
        model: nn.Module,
        config: SwitchConfig,
        *,
        samples: int = 0,
        classes: int = 0,
        traces: Mapping[str, float] | None = None,
    ):
        self.model, self.config = model, config
        layers = [m for m in model.modules() if hasattr(m, "input_quantizers")]
        self.widths: list[int | None] = sorted({b for m in layers for b in m.widths}, reverse=True) or [None]
        groups = parameter_groups(model, config.weight_decay, config.lr_scope)
        self.optimizer = torch.optim.Adam([group for group in groups if group["params"]], lr=config.lr)
        known = [width for width in self.widths if width is not None]
        self.multi_lr = MultiLR(model, self.optimizer, known, mode=config.lr_mode, stop=config.lr_stop)
        self.taught = None
        if config.distillation == "previous_epoch":
            options = {"alpha": config.pskd_alpha, "update": config.pskd_update}
            self.taught = SelfDistillation(samples, classes, config.epochs, **options)
        self.mixed = self._mixed(traces) if config.sampling != "same" else None

    def _mixed(self, traces: Mapping[str, float] | None) -> HASB:
        layers = list(get_bits(self.model))
        if self.config.sampling == "hasb":
            absent = [name for name in layers if traces is None or name not in traces]
            if absent:
                raise ValueError(f"WidthTrainer: expected traces of every quantised layer, got none of {absent[0]!r}")
            layers = {name: traces[name] for name in layers}
        roulette = Roulette([width for width in self.widths if width is not None], layers)
        return HASB(roulette, epochs=self.config.epochs, sigma=self.config.sigma, warmup=self.config.mix_warmup)

    def train_epoch(
        self, batches: Iterable[tuple[Tensor, Tensor, Tensor]], epoch: int, generator: torch.Generator | None = None
    ) -> dict[str, float]:
        """One pass over (input, label, index of the sample) batches; mean loss by width, "32" without widths."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(epoch)
        self.model.train()
        totals, count = torch.zeros(len(self.widths), dtype=torch.float64), 0
        for x, y, indices in batches:
            totals += len(x) * torch.stack(self.train_batch(x, y, indices, epoch, generator)).double()
            count += len(x)
        if count == 0:
            raise ValueError("train_epoch: expected batches with samples, got none")
        return {str(width or 32): loss for width, loss in zip(self.widths, (totals / count).tolist())}

    def train_batch(
        self, x: Tensor, y: Tensor, indices: Tensor, epoch: int, generator: torch.Generator | None = None
    ) -> list[Tensor]:
        """All widths, high to low, on one batch [D16, D17]; the loss of each."""
        joint = self.config.update == "joint"
        losses, higher = [], None
        self.optimizer.zero_grad(set_to_none=True)
        for width in self.widths:
            self._set(width, epoch, generator)
            logits = self.model(x)
            loss = self._loss(logits, y, indices, epoch, higher)
            if self.taught is not None and width == self.widths[0]:
                self.taught.record(indices, logits)
            loss.backward()
            higher = logits.detach().softmax(dim=1)
            losses.append(loss.detach())
            if joint:
                self.multi_lr.step(width)
                self.optimizer.zero_grad(set_to_none=True)
        if not joint:
            self.multi_lr.step(None)
        elif self.config.extra_step:
            self._step_on_momentum()
        if self.taught is not None:
            self.taught.finish_batch()
        return losses

    def _step_on_momentum(self) -> None:
        """A step at the lowest width's rate on gradients of zero."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        self.multi_lr.step(self.widths[-1])
        self.optimizer.zero_grad(set_to_none=True)

    def _loss(self, logits: Tensor, y: Tensor, indices: Tensor, epoch: int, higher: Tensor | None) -> Tensor:
        if self.taught is not None:
            return soft_cross_entropy(logits, self.taught.targets(indices, y, epoch))
        if self.config.distillation == "recursive" and higher is not None:
            return soft_cross_entropy(logits, higher)
        return F.cross_entropy(logits, y)

    def _set(self, width: int | None, epoch: int, generator: torch.Generator | None) -> None:
        if width is None:
            return
        set_bits(self.model, width if self.mixed is None else self.mixed.draw(width, epoch, generator))

    def state(self) -> dict[str, Any]:
        """Tensors and plain values for a checkpoint between two epochs."""
        table = None if self.taught is None else self.taught.table
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "table": table}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()` of a trainer of the same model and configuration."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.taught is not None:
            self.taught.table.copy_(state["table"])


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Top-1 accuracy in percent at the widths that the model has now; its mode is kept."""
    training = model.training
    model.eval()
    right = count = 0
    try:
        for x, y in batches:
            right += int((model(x).argmax(dim=1) == y).sum())
            count += len(y)
    finally:
        model.train(training)
    if count == 0:
        raise ValueError("evaluate: expected batches with samples, got none")
    return 100.0 * right / count
