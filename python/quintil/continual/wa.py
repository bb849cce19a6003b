"""Weight aligning: distillation, then new head rows as long as the old ones [CIL 2.7, C11]."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from quintil.models import IncrementalNet

from .alignment import align_new_rows
from .config import RunConfig
from .learner import Learner
from .losses import mixed_distillation
from .registry import learner


class MixedDistillation(Learner):
    """Base of methods that weigh cross-entropy against distillation by the share of old classes, with exemplars."""

    uses_memory = True
    uses_teacher = True

    def __init__(self, net: IncrementalNet, config: RunConfig, *arguments: Any):
        super().__init__(net, config, *arguments)
        if config.lamda is not None and config.lamda > 1:
            raise ValueError(
                f"{self.name}: expected lamda in 0..1, got {config.lamda} (the cross-entropy has the weight 1 - lamda)"
            )

    def loss_parts(self, logits: Tensor, labels: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        config = self.config
        return mixed_distillation(logits, labels, teacher, config.T, weight=config.lamda, tau_squared=config.kd_tau2)


@learner("wa")
class WeightAligning(MixedDistillation):
    """(1 - w) CE + w KD_T with w = n / (n + m) or lamda, then the alignment after every task but the first.

    Neither a validation pool nor a second training stage. In a quantised net the float32 master weights are scaled;
    the head's step follows at the next forward. Where old rows are the longer ones (small nets, short training) gamma
    exceeds 1 and strengthens the new classes; metrics.jsonl has it as wa_gamma.
    """

    variant = "cross-entropy + distillation weighted by the share of old classes, new head rows aligned after training"
    gamma = 1.0  # of the last alignment

    def after_train(self) -> None:
        if self.known:
            self.gamma = align_new_rows(self.net.head.weight, self.known)

    def record(self) -> dict:
        return {"wa_gamma": self.gamma} if self.known else {}

    def extra_state(self) -> dict:
        return {"wa_gamma": self.gamma}

    def load_extra_state(self, state: dict) -> None:
        self.gamma = float(state["wa_gamma"])
