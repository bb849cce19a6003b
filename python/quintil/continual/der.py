"""Dynamically expandable representation: one feature extractor per task, the old ones frozen [CIL 2.8, C12, C11]."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from quintil.models import ExpandableBackbone, ExpandableNet, IncrementalNet

from .alignment import align_new_rows
from .config import RunConfig
from .learner import Learner
from .losses import auxiliary_labels
from .nets import make_backbone
from .registry import learner


@learner("der")
class DER(Learner):
    """CE over all seen classes + CE of an auxiliary head, on the new data and the exemplars; no distillation.

    As in the HDQT authors' code: no channel pruning and no second stage for the head, but weight alignment after
    training. Sizes of FCNet and ResNet-32 grow by a whole net per task, and so does the cost of a prediction.
    """

    variant = "cross-entropy + auxiliary head, a feature extractor per task, weight alignment; without pruning"
    uses_memory = True
    net: ExpandableNet

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self.gamma: float | None = None  # of the last alignment

    @classmethod
    def make_net(cls, config: RunConfig, model: str, inputs: int, generator: torch.Generator) -> IncrementalNet:
        backbone = ExpandableBackbone(make_backbone(config, model, inputs, generator))
        return ExpandableNet(backbone, bias=config.bias, cosine=config.head == "cosine")

    def batch_parts(self, x: Tensor, labels: Tensor, teacher: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """[CIL C12] CE(z, y) + alpha_aux CE(z_aux, y_aux); the first task has no auxiliary head."""
        features = self.net.features(x)
        logits = self.net.head(features)
        parts = self.loss_parts(logits, labels, teacher)
        if self.known:
            aux = F.cross_entropy(self.net.aux_logits(features), auxiliary_labels(labels, self.known))
            parts["aux"] = self.config.alpha_aux * aux
        return logits, parts

    def after_train(self) -> None:
        """[CIL C11] Weight alignment from the second task on; the auxiliary head has served."""
        if self.known:
            self.gamma = align_new_rows(self.net.head.weight, self.known)
            self.net.drop_aux()

    def extra_state(self) -> dict:
        return {"gamma": self.gamma, "aux": self.net.aux is not None}

    def load_extra_state(self, state: dict) -> None:
        """The auxiliary head exists between `grow` and the end of its task."""
        self.gamma = state["gamma"]
        if not state["aux"]:
            self.net.drop_aux()
