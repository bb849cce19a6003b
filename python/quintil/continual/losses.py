"""Loss functions of the learners; z are logits [N, classes], y labels int64 [N] [CIL C1, C5-C7, C9, C11, C12, 2.9]."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

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


def auxiliary_labels(labels: Tensor, known: int) -> Tensor:
    """Labels of the auxiliary head [CIL C12]: 0 for every old class, y - known + 1 for new ones."""
    return (labels - known + 1).clamp_min(0)


def head_distillation_loss(logits: Tensor, teacher: Tensor, sizes: Sequence[int], temperature: float = 2.0) -> Tensor:
    """Distillation of EEIL, head by head: the sum over heads of BCE(softmax(z_h / T), softmax(teacher_h / T)).

    Each head's binary cross-entropy is the mean over the batch and the head's outputs. sizes: outputs of all heads in
    order; teacher [N, k] decides how many of them count, those within its k columns (ValueError if k ends inside one).
    """
    ends = list(itertools.accumulate(sizes))
    if teacher.size(1) not in ends:
        raise ValueError(
            f"head_distillation_loss: expected teacher.size(1) to be one of {ends}, got {teacher.size(1)} "
            f"(heads of {list(sizes)} outputs)"
        )
    total = logits.new_zeros(())
    for end, size in zip(ends, sizes):
        if end <= teacher.size(1):
            student, target = (torch.softmax(z[:, end - size : end] / temperature, dim=1) for z in (logits, teacher))
            total = total + F.binary_cross_entropy(student, target)
    return total


def less_forget_loss(features: Tensor, teacher: Tensor) -> Tensor:
    """Less-forget constraint of LUCIR: the mean over the batch of 1 - cos(f, f°); both [N, d]."""
    return (1.0 - F.cosine_similarity(features, teacher, dim=1)).mean()


def margin_ranking_loss(
    cosines: Tensor, labels: Tensor, known: int, *, margin: float = 0.5, nearest: int = 2
) -> Tensor:
    """Inter-class separation of LUCIR: exemplars of old classes keep a distance from the nearest new classes.

    Mean over the samples of old classes of sum_k max(0, margin - cos(f, w_y) + cos(f, w_k)), k the `nearest` new
    classes (all of them if they are fewer) with the largest cosines. cosines [N, classes]; 0 without such samples.
    """
    old = (labels < known).nonzero().flatten()
    if old.numel() == 0:
        return cosines.sum() * 0.0
    cosines, labels = cosines.index_select(0, old), labels.index_select(0, old)
    right = cosines.gather(1, labels.unsqueeze(1))
    wrong = cosines[:, known:].topk(min(nearest, cosines.size(1) - known), dim=1).values
    return (margin - right + wrong).clamp_min(0.0).sum(1).mean()
