"""A feature extractor with a linear classifier that grows with the number of seen classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class IncrementalNet(nn.Module):
    """`backbone` (with an `out_features` attribute, [N, ...] -> [N, d]) followed by `head`, a Linear(d, classes).

    There is no head before the first `grow`. `bias` gives the head a bias.
    """

    head: nn.Linear | None

    def __init__(self, backbone: nn.Module, *, bias: bool = False):
        super().__init__()
        self.backbone = backbone
        self.bias = bias
        self.head = None

    @property
    def classes(self) -> int:
        """Outputs of the head; 0 before the first `grow`."""
        return 0 if self.head is None else self.head.out_features

    def features(self, x: Tensor) -> Tensor:
        """Features [N, d] of a batch."""
        return self.backbone(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes]; RuntimeError before the first `grow`."""
        if self.head is None:
            raise RuntimeError("IncrementalNet: expected a head, got none (call grow first)")
        return self.head(self.features(x))

    @torch.no_grad()
    def grow(self, classes: int, *, generator: torch.Generator | None = None) -> None:
        """Enlarge the head to `classes` outputs, at least as many as before (ValueError otherwise).

        The head becomes a new float nn.Linear: swap it again afterwards if the net is quantised. Old rows (and
        bias values) are copied bit for bit; new rows are kaiming-uniform with gain 1 drawn from `generator`, new
        bias values 0 [CIL R1].
        """
        if classes < max(1, self.classes):
            raise ValueError(f"grow: expected classes of at least {max(1, self.classes)}, got {classes}")
        if classes == self.classes:
            return
        place = next(self.backbone.parameters())
        head = nn.utils.skip_init(
            nn.Linear,
            self.backbone.out_features,
            classes,
            bias=self.bias,
            device=place.device,
            dtype=place.dtype,
        )
        known = self.classes
        if self.head is not None:
            head.weight[:known] = self.head.weight
            if self.bias:
                head.bias[:known] = self.head.bias
        nn.init.kaiming_uniform_(head.weight[known:], nonlinearity="linear", generator=generator)
        if self.bias:
            head.bias[known:] = 0.0
        self.head = head.train(self.training)
