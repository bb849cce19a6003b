"""iCaRL: exemplars chosen by herding, distillation from the previous net, two heads [CIL 2.5, C7]."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .learner import Learner
from .losses import icarl_bce_loss, kd_loss
from .registry import learner


@learner("icarl")
class ICaRL(Learner):
    """CE over all seen classes + lamda (default 1) KD_T on the old outputs; the variant of PyCIL and HDQT's tables."""

    variant = "cross-entropy + distillation (CE + KD)"
    uses_memory = True
    uses_teacher = True

    def loss_parts(self, logits: Tensor, labels: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        parts = {"ce": F.cross_entropy(logits, labels)}
        if teacher is not None:
            config = self.config
            kd = kd_loss(logits[:, : self.known], teacher, config.T, tau_squared=config.kd_tau2)
            parts["kd"] = kd if config.lamda is None else config.lamda * kd
        return parts


@learner("icarl_bce")
class ICaRLBCE(Learner):
    """The paper's binary cross-entropy over all outputs, which exist from the first task on."""

    variant = "binary cross-entropy over all outputs, old targets from the teacher (paper)"
    uses_memory = True
    uses_teacher = True
    full_head = True

    def loss_parts(self, logits: Tensor, labels: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        return {"bce": icarl_bce_loss(logits, labels, teacher)}
