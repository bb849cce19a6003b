"""Learning without Forgetting: distillation on the new data alone, nothing stored [CIL 2.4, C6]."""

from __future__ import annotations

from torch import Tensor

from .icarl import ICaRLBCE
from .learner import Learner
from .losses import kd_loss, new_class_loss
from .registry import learner

LWF_LAMDA = 3.0


@learner("lwf")
class LwF(Learner):
    """CE over the new outputs + lamda (default 3) KD_T on the old outputs, both on the new data."""

    variant = "cross-entropy over the new classes + distillation, no memory"
    uses_teacher = True

    def loss_parts(self, logits: Tensor, labels: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        parts = {"ce": new_class_loss(logits, labels, self.known)}
        if teacher is not None:
            config = self.config
            lamda = LWF_LAMDA if config.lamda is None else config.lamda
            kd = kd_loss(logits[:, : self.known], teacher, config.T, tau_squared=config.kd_tau2)
            parts["kd"] = lamda * kd
        return parts


@learner("lwf_mc")
class LwFMC(ICaRLBCE):
    """The loss of iCaRL's paper without its exemplars, and so without the nearest-mean head."""

    variant = "binary cross-entropy over all outputs, old targets from the teacher, no memory"
    uses_memory = False
