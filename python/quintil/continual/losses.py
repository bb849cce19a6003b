"""Loss functions of the learners; z are logits [N, classes], y labels int64 [N] [CIL C1, C5-C7, C9, C11]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def kd_loss(student: Tensor, teacher: Tensor, temperature: float = 2.0, *, tau_squared: bool = False) -> Tensor:
    """[CIL C1] -(1/N) sum over batch and classes of softmax(teacher / T) log_softmax(student / T).

    Mean over the batch, sum over the classes, not multiplied by T^2 unless `tau_squared`. The gradient with respect
    to student is (softmax(student / T) - softmax(teacher / T)) / (T N). Both [N, classes]; ValueError otherwise.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"kd_loss: expected teacher of the shape of student, got {list(teacher.shape)} and {list(student.shape)}"
        )
    loss = F.cross_entropy(student / temperature, torch.softmax(teacher / temperature, dim=1))
    return loss * temperature**2 if tau_squared else loss


def new_class_loss(logits: Tensor, labels: Tensor, known: int) -> Tensor:
    """[CIL C5] cross-entropy over the outputs of the new classes only; head rows below `known` get no gradient."""
    return F.cross_entropy(logits[:, known:], labels - known)


def icarl_bce_loss(logits: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
    """Binary cross-entropy of iCaRL's paper: mean over batch and all outputs.

    The target is one-hot; its columns of the teacher's classes are sigmoid(teacher) [N, known] instead.
    """
    target = F.one_hot(labels, logits.size(1)).to(logits.dtype)
    if teacher is not None:
        target[:, : teacher.size(1)] = torch.sigmoid(teacher)
    return F.binary_cross_entropy_with_logits(logits, target)


def mixed_distillation(
    logits: Tensor,
    labels: Tensor,
    teacher: Tensor | None,
    temperature: float = 2.0,
    *,
    weight: float | None = None,
    tau_squared: bool = False,
) -> dict[str, Tensor]:
    """[CIL C9, C11] (1 - w) CE(logits, labels) as "ce" and w KD_T(logits of old classes, teacher) as "kd".

    teacher: [N, n] logits of the n old classes, None in the first task (then "ce" alone, unweighted). w = n / (n + m)
    for logits of n + m classes, so that distillation weighs more with every task; `weight` replaces it.
    """
    loss = F.cross_entropy(logits, labels)
    if teacher is None:
        return {"ce": loss}
    known = teacher.size(1)
    share = known / logits.size(1) if weight is None else weight
    kd = kd_loss(logits[:, :known], teacher, temperature, tau_squared=tau_squared)
    return {"ce": (1.0 - share) * loss, "kd": share * kd}
