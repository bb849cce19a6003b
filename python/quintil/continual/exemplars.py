"""Exemplar memory, herding and nearest-mean-of-exemplars classification [CIL R4-R6, R8, C2-C4]."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .checkpoint import digest
from .samples import SampleStore

SELECTIONS = ("herding", "random", "reservoir")
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


def fill_slots(slots: list[int], items: Iterable[int], places: Iterable[int], size: int) -> None:
    """Offer items to a reservoir of `size` slots, in place: a free slot takes any, else the slot `place` if it exists.

    Item i of the stream (0-based) is kept with probability min(1, size / (i + 1)) if its place is uniform in 0..i
    [CIL 2.3]; of several items for one slot the last stays.
    """
    for item, place in zip(items, places):
        if len(slots) < size:
            slots.append(item)
        elif place < size:
            slots[place] = item


def reservoir(
    slots: list[int], arrived: int, size: int, first: int, count: int, generator: torch.Generator
) -> list[int]:
    """Pass `count` samples, numbered from `first`, through a reservoir of `size` slots; returns the slots afterwards.

    slots: what the reservoir holds after `arrived` samples. The samples arrive in a drawn order.
    """
    slots = list(slots)
    order = torch.randperm(count, generator=generator)
    places = torch.arange(arrived + 1, arrived + count + 1, dtype=torch.float64)
    places = (torch.rand(count, dtype=torch.float64, generator=generator) * places).long()
    fill_slots(slots, (order + first).tolist(), places.tolist(), size)
    return slots


class NearestMean:
    """Nearest-mean-of-exemplars classifier: one unit-length mean per class [CIL C4].

    A class without exemplars (a reservoir may drop all of them) has a NaN mean and is never predicted.
    """

    def __init__(self, features: Tensor, labels: Tensor, classes: int):
        """features [N, d] of the exemplars (any length), labels int64 [N] in 0..classes-1."""
        sums = torch.zeros(classes, features.size(1), dtype=features.dtype)
        sums.index_add_(0, labels, normalise_rows(features))
        self.means = normalise_rows(sums / torch.bincount(labels, minlength=classes).unsqueeze(1))

    @classmethod
    def from_means(cls, means: Tensor) -> NearestMean:
        """The classifier whose attribute `means` is this tensor."""
        nearest = cls.__new__(cls)
        nearest.means = means
        return nearest

    def scores(self, features: Tensor) -> Tensor:
        """Minus the squared distance of the normalised features to every mean, [N, classes]; larger is nearer."""
        rows = normalise_rows(features)
        scores = 2.0 * rows @ self.means.t() - self.means.square().sum(1) - rows.square().sum(1, keepdim=True)
        return scores.masked_fill(self.means.isnan().any(1), -torch.inf)


class ExemplarMemory:
    """Training samples kept of the seen classes, sorted by class, in one contiguous tensor.

    size: budget K of policy "total", or samples per class of policy "per_class".
    policy: "total" keeps floor(K / seen) per class, "per_class" always `size` per class [CIL C2].
    selection: "herding", "random" (per class), or "reservoir": a uniform sample of `size` of everything seen so far,
    not balanced over the classes, policy "total" only [CIL 2.3].
    bits: 8 or 4 stores float samples as codes with a scale each [CIL R8]; None stores what the data set holds.
    Attributes x (samples, restored from the codes if there are any), y (labels), index (positions in the data set's
    training part), counts (per class).
    """

    def __init__(self, size: int, policy: str = "total", selection: str = "herding", bits: int | None = None):
        if policy not in POLICIES:
            raise ValueError(f"ExemplarMemory: expected policy to be one of {', '.join(POLICIES)}, got {policy!r}")
        if selection not in SELECTIONS:
            raise ValueError(
                f"ExemplarMemory: expected selection to be one of {', '.join(SELECTIONS)}, got {selection!r}"
            )
        if size < 1:
            raise ValueError(f"ExemplarMemory: expected size of at least 1, got {size}")
        if selection == "reservoir" and policy != "total":
            raise ValueError(f"ExemplarMemory: expected policy to be total for selection reservoir, got {policy!r}")
        self.size, self.policy, self.selection = size, policy, selection
        self.samples = SampleStore(bits)
        self.y = torch.empty(0, dtype=torch.int64)
        self.index = torch.empty(0, dtype=torch.int64)
        self.counts: list[int] = []
        self.arrived = 0  # samples offered so far; the reservoir counts them

    def __len__(self) -> int:
        return self.y.numel()

    @property
    def x(self) -> Tensor | None:
        """The kept samples in the data set's own dtype and shape; None before the first update."""
        return self.samples.restored()

    @property
    def bytes(self) -> int:
        """Bytes of the kept samples, scales included."""
        return self.samples.bytes

    def quota(self, seen: int) -> int:
        """Exemplars per class once `seen` classes are known; ValueError if the budget leaves none.

        A reservoir has room for `size` samples of any class; it must not be smaller than the number of classes either.
        """
        quota = self.size if self.policy == "per_class" else self.size // seen
        if quota < 1:
            raise ValueError(
                f"ExemplarMemory: expected size of at least one sample per class, got {self.size} ({seen} classes)"
            )
        return quota

    def planned(self, seen: int) -> tuple[str, int]:
        """What is kept once `seen` classes are known, in words, and as the largest possible number of samples."""
        quota = self.quota(seen)
        if self.selection == "reservoir":
            return f"{self.size} exemplars", self.size
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
        old = len(self)
        if self.selection == "reservoir":
            slots = reservoir(list(range(old)), self.arrived, self.size, old, y.numel(), generator)
            kept, new = torch.tensor([s for s in slots if s < old]), torch.tensor([s - old for s in slots if s >= old])
            kept, new = kept.long().sort().values, new.long().sort().values
        else:
            kept, new = first_of_every_class(self.counts, quota), self._choose(x, y, quota, features, generator)
        self.arrived += y.numel()
        self.keep(torch.cat([kept, old + new]), x, y, index)
        self.counts = torch.bincount(self.y, minlength=seen).tolist()

    def keep(self, places: Tensor, x: Tensor, y: Tensor, index: Tensor) -> None:
        """Keep the samples at these positions of [what is here, x], in this order; `counts` is left to the caller."""
        old, is_new = len(self), places >= len(self)
        fresh = places[is_new] - old
        if fresh.numel() or self.samples.codes is None:
            self.samples.append(x[fresh])
        order = places.clone()
        order[is_new] = old + torch.arange(fresh.numel())
        self.samples.select(order)
        self.y, self.index = torch.cat([self.y, y[fresh]])[order], torch.cat([self.index, index[fresh]])[order]

    def state(self, *, contents: bool = False) -> dict:
        """For a checkpoint: places in the data set, a checksum of the samples, and with `contents` themselves."""
        stored = {"codes": self.samples.codes, "scales": self.samples.scales}
        state = {"y": self.y, "index": self.index, "counts": self.counts, "arrived": self.arrived}
        return {
            **state,
            "checksum": digest(stored),
            "samples": {**stored, "shape": self.samples.shape} if contents else None,
        }

    def load_state(self, state: dict, x_train: Tensor | None, where: str) -> None:
        """Take back `state`; samples that it does not hold come from the data set's training samples.

        With x_train = None the memory then stays empty. ValueError if the data set has other samples in these places.
        """
        samples, self.samples = state["samples"], SampleStore(self.samples.bits)
        if samples is not None:
            self.samples.codes, self.samples.scales = samples["codes"], samples["scales"]
            self.samples.shape = tuple(samples["shape"])
        elif x_train is None:
            return
        elif state["index"].numel():
            if int(state["index"].max()) < len(x_train):
                self.samples.append(x_train.index_select(0, state["index"]))
            if digest({"codes": self.samples.codes, "scales": self.samples.scales}) != state["checksum"]:
                raise ValueError(f"load_checkpoint: expected the data set of {where}, got other samples")
        self.y, self.index = state["y"], state["index"]
        self.counts, self.arrived = list(state["counts"]), state["arrived"]

    def _choose(
        self, x: Tensor, y: Tensor, quota: int, features: Callable[[Tensor], Tensor], generator: torch.Generator
    ) -> Tensor:
        """Positions of `quota` exemplars of every class in y, in the order in which later cuts keep them."""
        chosen = []
        for label in y.unique(sorted=True).tolist():
            members = (y == label).nonzero().flatten()
            if self.selection == "herding":
                picks = herding(normalise_rows(features(x.index_select(0, members))), quota)
            else:
                picks = torch.randperm(members.numel(), generator=generator)[:quota]
            chosen.append(members[picks])
        return torch.cat(chosen)
