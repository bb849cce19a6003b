"""Fine-tuning without memory: the lower bound [CIL 2.2, C5]."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .learner import Learner
from .losses import new_class_loss
from .registry import learner


@learner("finetune")
class Finetune(Learner):
    """Cross-entropy over the new outputs, so that old head rows stay as they are; `all_outputs`: over all of them."""

    @property
    def variant(self) -> str:
        where = "all seen classes" if self.config.all_outputs else "the new classes only"
        return f"cross-entropy over {where}, no memory"

    def loss_parts(self, logits: Tensor, labels: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        if self.config.all_outputs:
            return {"ce": F.cross_entropy(logits, labels)}
        return {"ce": new_class_loss(logits, labels, self.known)}
