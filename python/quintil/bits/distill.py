"""Self-distillation between widths: from the highest width an epoch ago, or from the next higher width [DR D18]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

UPDATES = ("epoch", "in_loop")


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """-(target log softmax(logits)), summed over the classes, mean over the batch; both [N, classes]."""
    return -(target * F.log_softmax(logits, dim=1)).mean(0).sum()


class SelfDistillation:
    """Targets that mix the label with what the highest width said of the sample an epoch before.

    samples, classes: sizes of the table of probabilities, float32 [samples, classes].
    epochs: of the training; the share of the table grows linearly to `alpha` in the last one and is 0 in the first.
    update: 'epoch' keeps the table as it was for all widths of a batch; 'in_loop' overwrites a batch's rows right after
        the highest width ran, so that lower widths learn from the same batch, as the authors' code does.
    Call `targets` for every width, and `record` with the highest width's logits: right after it. A sample is expected
    once per epoch; in 'epoch' its row is read for the last time before `finish_batch`.
    """

    def __init__(self, samples: int, classes: int, epochs: int, *, alpha: float = 0.7, update: str = "epoch"):
        if update not in UPDATES:
            raise ValueError(f"SelfDistillation: expected update to be one of {', '.join(UPDATES)}, got {update!r}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"SelfDistillation: expected alpha in 0..1, got {alpha}")
        self.epochs, self.alpha, self.update = epochs, alpha, update
        self.table = torch.zeros(samples, classes)
        self._waiting: tuple[Tensor, Tensor] | None = None

    def share(self, epoch: int) -> float:
        """a_t of [DR D18] in `epoch`, which counts from 0; 0 in the first, where nothing is known yet."""
        return 0.0 if epoch == 0 else self.alpha * (epoch + 1) / self.epochs

    def targets(self, indices: Tensor, labels: Tensor, epoch: int) -> Tensor:
        """(1 - a) one-hot label + a table row, [N, classes], for samples numbered by `indices`."""
        onehot = F.one_hot(labels, self.table.size(1)).float()
        share = self.share(epoch)
        return onehot if share == 0.0 else (1.0 - share) * onehot + share * self.table[indices]

    def record(self, indices: Tensor, logits: Tensor) -> None:
        """Take over the probabilities of the highest width, [N, classes] logits."""
        self._waiting = indices, logits.detach().softmax(dim=1)
        if self.update == "in_loop":
            self.finish_batch()

    def finish_batch(self) -> None:
        """Write what was recorded; call it once all widths of a batch are done."""
        if self._waiting is not None:
            indices, probabilities = self._waiting
            self.table[indices] = probabilities
            self._waiting = None
