"""Nets that get new features with every task and keep the old ones frozen: DER and MEMO [CIL 2.8].

A backbone here holds `parts`, one per task. `forward` concatenates the features of all parts, the newest last;
`expand` freezes what there is and adds a copy of the newest part, which alone trains from then on. Frozen modules
take no gradient and stay in evaluation mode whatever `train` is told, so that their BatchNorm buffers stand still.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from .incremental import IncrementalNet


class ExpandableBackbone(nn.Module):
    """DER: every part is a whole feature extractor of its own; inputs [N, ...] -> features [N, d parts]."""

    def __init__(self, part: nn.Module):
        super().__init__()
        self.parts = nn.ModuleList([part])

    @property
    def part_features(self) -> int:
        """Features d of one part."""
        return self.parts[-1].out_features

    @property
    def out_features(self) -> int:
        return self.part_features * len(self.parts)

    @property
    def network(self) -> str:
        return type(self.parts[0]).__name__

    def frozen(self) -> list[nn.Module]:
        """Modules that no longer train: all parts but the newest."""
        return list(self.parts[:-1])

    def expand(self) -> None:
        """Add a copy of the newest part, BatchNorm buffers included, and freeze the others."""
        part = copy.deepcopy(self.parts[-1])
        self.parts.append(part.requires_grad_(True))
        for module in self.frozen():
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> ExpandableBackbone:
        super().train(mode)
        for module in self.frozen():
            module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], dim=1)


class SharedBaseBackbone(ExpandableBackbone):
    """MEMO: the parts are small blocks on the output of one `base`, computed once; inputs -> features [N, d blocks].

    The base trains in the first task, and later only if `train_base`.
    """

    def __init__(self, base: nn.Module, block: nn.Module, *, train_base: bool = False):
        super().__init__(block)
        self.base = base
        self.train_base = train_base

    @property
    def network(self) -> str:
        return f"{type(self.base).__name__} + {super().network}"

    def frozen(self) -> list[nn.Module]:
        """The old blocks and, unless `train_base`, from the second task on the base."""
        base = [] if self.train_base or len(self.parts) == 1 else [self.base]
        return base + super().frozen()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.base(x))


class ExpandableNet(IncrementalNet):
    """IncrementalNet on an expandable backbone: every `grow` after the first expands it.

    The head keeps old rows and old columns to the bit. From the second task on there is `aux` as well, a fresh
    Linear(d, new classes + 1) on the newest features, whose output 0 stands for all old classes; `drop_aux` removes
    it after training.
    """

    aux: nn.Linear | None

    def __init__(self, backbone: ExpandableBackbone, *, bias: bool = False, cosine: bool = False):
        super().__init__(backbone, bias=bias, cosine=cosine)
        self.aux = None

    @property
    def network(self) -> str:
        return self.backbone.network

    @torch.no_grad()
    def grow(self, classes: int, *, generator: torch.Generator | None = None) -> None:
        known = self.classes
        if 0 < known < classes:
            self.backbone.expand()
        super().grow(classes, generator=generator)
        if 0 < known < classes:
            aux = self._linear(self.backbone.part_features, classes - known + 1)
            nn.init.kaiming_uniform_(aux.weight, nonlinearity="linear", generator=generator)
            self.aux = aux.train(self.training)

    def aux_logits(self, features: Tensor) -> Tensor:
        """Logits [N, new classes + 1] of the auxiliary head for the net's features [N, d parts]."""
        return self.aux(features[:, -self.backbone.part_features :])

    def drop_aux(self) -> None:
        """Remove the auxiliary head, which only training uses."""
        self.aux = None
