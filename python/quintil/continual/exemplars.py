"""Exemplar memory, herding and nearest-mean-of-exemplars classification [CIL R4-R6, C2-C4]."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SELECTIONS = ("herding", "random")
POLICIES = ("total", "per_class")


def normalise_rows(features: Tensor) -> Tensor:
    """x / (|x| + 1e-8) for every row of float features [N, d]."""
    return features / (features.norm(dim=1, keepdim=True) + 1e-8)


def herding(features: Tensor, count: int) -> Tensor:
    """Indices of the `count` rows whose running mean follows the mean of all rows best [CIL C3], int64.

    features: float [N, d], usually normalised rows. Without repetition, in picking order: every prefix is the
    choice for a smaller count. count > N keeps all N. Ties go to the lowest index. One matrix-vector product per
    pick: with w = k mean - sum(picked), the row nearest to w in the sense |mean - (sum + D_i) / k| maximises
    (D w)_i - |D_i|^2 / 2.
    """
    rows = features.to(torch.float64)
    count = min(count, rows.size(0))
    half_squares = rows.square().sum(1).mul_(0.5)
    mean = rows.mean(0)
    target = torch.zeros_like(mean)
    picks = torch.empty(count, dtype=torch.int64)
    for k in range(count):
        target += mean
        pick = torch.mv(rows, target).sub_(half_squares).argmax()
        picks[k] = pick
        target -= rows[pick]
        half_squares[pick] = torch.inf
    return picks


def first_of_every_class(counts: Sequence[int], keep: int) -> Tensor:
    """Positions of the first `keep` samples of every class in a list of classes with so many samples each, int64."""
    ends = torch.tensor(counts, dtype=torch.int64).cumsum(0).tolist()
    parts = [torch.arange(end - count, end - count + min(count, keep)) for count, end in zip(counts, ends)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)


class NearestMean:
    """Nearest-mean-of-exemplars classifier: one unit-length mean per class [CIL C4]."""

    def __init__(self, features: Tensor, labels: Tensor, classes: int):
        """features [N, d] of the exemplars (any length), labels int64 [N] covering 0..classes-1."""
        sums = torch.zeros(classes, features.size(1), dtype=features.dtype)
        sums.index_add_(0, labels, normalise_rows(features))
        self.means = normalise_rows(sums / torch.bincount(labels, minlength=classes).unsqueeze(1))

    def scores(self, features: Tensor) -> Tensor:
        """Minus the squared distance of the normalised features to every mean, [N, classes]; larger is nearer."""
        rows = normalise_rows(features)
        return 2.0 * rows @ self.means.t() - self.means.square().sum(1) - rows.square().sum(1, keepdim=True)


class ExemplarMemory:
    """Raw training samples kept of every seen class, in one contiguous tensor of the data set's own dtype.

    size: budget K of policy "total", or samples per class of policy "per_class".
    policy: "total" keeps floor(K / seen) per class, "per_class" always `size` per class [CIL C2].
    selection: "herding" or "random".
    Attributes x (raw samples), y (labels), index (positions in the data set's training part), counts (per class).
    """

    def __init__(self, size: int, policy: str = "total", selection: str = "herding"):
        if policy not in POLICIES:
            raise ValueError(f"ExemplarMemory: expected policy to be one of {', '.join(POLICIES)}, got {policy!r}")
        if selection not in SELECTIONS:
            raise ValueError(
                f"ExemplarMemory: expected selection to be one of {', '.join(SELECTIONS)}, got {selection!r}"
            )
        if size < 1:
            raise ValueError(f"ExemplarMemory: expected size of at least 1, got {size}")
        self.size, self.policy, self.selection = size, policy, selection
        self.x: Tensor | None = None
        self.y = torch.empty(0, dtype=torch.int64)
        self.index = torch.empty(0, dtype=torch.int64)
        self.counts: list[int] = []

    def __len__(self) -> int:
        return self.y.numel()

    @property
    def bytes(self) -> int:
        """Bytes of the kept samples."""
        return 0 if self.x is None else self.x.numel() * self.x.element_size()

    def quota(self, seen: int) -> int:
        """Exemplars per class once `seen` classes are known; ValueError if the budget leaves none."""
        quota = self.size if self.policy == "per_class" else self.size // seen
        if quota < 1:
            raise ValueError(
                f"ExemplarMemory: expected size of at least one sample per class, got {self.size} ({seen} classes)"
            )
        return quota

    def planned(self, seen: int) -> tuple[str, int]:
        """What is kept once `seen` classes are known, in words, and as the largest possible number of samples."""
        quota = self.quota(seen)
        return f"{quota} exemplars per class", quota * seen

    def update(
        self,
        x: Tensor,
        y: Tensor,
        index: Tensor,
        seen: int,
        features: Callable[[Tensor], Tensor],
        generator: torch.Generator,
    ) -> None:
        """Cut old classes to the quota of `seen` classes and choose exemplars of the new ones.

        x, y, index: training samples of the new classes, sorted by label; `features` maps raw samples to features
        (evaluation mode, test transform). Old lists keep their first entries, a class with fewer samples keeps all.
        """
        quota = self.quota(seen)
        kept = first_of_every_class(self.counts, quota)
        chosen = []
        for label in y.unique(sorted=True).tolist():
            members = (y == label).nonzero().flatten()
            if self.selection == "herding":
                picks = herding(normalise_rows(features(x.index_select(0, members))), quota)
            else:
                picks = torch.randperm(members.numel(), generator=generator)[:quota]
            chosen.append(members[picks])
        new = torch.cat(chosen)
        self.counts = [min(count, quota) for count in self.counts] + [part.numel() for part in chosen]
        self.x = x[new] if self.x is None else torch.cat([self.x[kept], x[new]])
        self.y = torch.cat([self.y[kept], y[new]])
        self.index = torch.cat([self.index[kept], index[new]])
