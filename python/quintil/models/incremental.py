"""A feature extractor with a classifier, linear or cosine, that grows with the number of seen classes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

_SHORTEST = 1e-4  # rows below this length are divided by it: their gradient stays finite


class CosineHead(nn.Module):
    """Logits sigma cos(f, w) with one learned scale sigma [CIL 2.9]: features [N, in_features] -> [N, out_features].

    Features and rows are brought to unit length in float; their product is the forward of an nn.Linear, `product`,
    which `quintil.quantize_` swaps like any other. That layer's weight holds the rows at any length.
    """

    bias = None

    def __init__(self, product: nn.Linear):
        super().__init__()
        self.product = product
        self.sigma = nn.Parameter(product.weight.new_ones(1))

    @property
    def weight(self) -> nn.Parameter:
        """The rows [out_features, in_features]."""
        return self.product.weight

    @property
    def in_features(self) -> int:
        return self.product.in_features

    @property
    def out_features(self) -> int:
        return self.product.out_features

    def cosines(self, features: Tensor) -> Tensor:
        """cos(f, w) for every feature row and every class, [N, out_features]."""
        rows = F.normalize(self.weight, dim=1, eps=_SHORTEST)
        features = F.normalize(features, dim=1, eps=_SHORTEST)
        return functional_call(self.product, {"weight": rows}, (features,))

    def forward(self, features: Tensor) -> Tensor:
        return self.sigma * self.cosines(features)


class IncrementalNet(nn.Module):
    """`backbone` (with an `out_features` attribute, [N, ...] -> [N, d]) followed by `head`, which gives the logits.

    There is no head before the first `grow`. It is a Linear(d, classes), with a bias if `bias`; with `cosine` it is a
    CosineHead, which has none (ValueError for both).
    """

    head: nn.Linear | CosineHead | None

    def __init__(self, backbone: nn.Module, *, bias: bool = False, cosine: bool = False):
        super().__init__()
        if bias and cosine:
            raise ValueError("IncrementalNet: expected bias=False with cosine=True, got True")
        self.backbone = backbone
        self.bias, self.cosine = bias, cosine
        self.head = None

    @property
    def classes(self) -> int:
        """Outputs of the head; 0 before the first `grow`."""
        return 0 if self.head is None else self.head.out_features

    @property
    def network(self) -> str:
        """Name of the architecture, for plans and reports."""
        return type(self.backbone).__name__

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

        The head becomes a new float layer: swap it again afterwards if the net is quantised. Old rows (and bias
        values, or sigma) are copied bit for bit; new rows are kaiming-uniform with gain 1 drawn from `generator`, new
        bias values 0 [CIL R1]. Where the backbone has more features than the old head, old rows get new columns
        from the same distribution behind their old ones [CIL 2.8].
        """
        if classes < max(1, self.classes):
            raise ValueError(f"grow: expected classes of at least {max(1, self.classes)}, got {classes}")
        if classes == self.classes:
            return
        known, old = self.classes, self.head
        linear = self._linear(self.backbone.out_features, classes, bias=self.bias)
        nn.init.kaiming_uniform_(linear.weight[known:], nonlinearity="linear", generator=generator)
        if self.bias:
            linear.bias[known:] = 0.0
        if old is not None:
            columns, limit = old.in_features, math.sqrt(3.0 / linear.in_features)
            linear.weight[:known, :columns] = old.weight
            linear.weight[:known, columns:].uniform_(-limit, limit, generator=generator)
            if self.bias:
                linear.bias[:known] = old.bias
        head = CosineHead(linear) if self.cosine else linear
        if self.cosine and old is not None:
            head.sigma.copy_(old.sigma)
        self.head = head.train(self.training)

    def _linear(self, inputs: int, outputs: int, *, bias: bool = False) -> nn.Linear:
        """A layer without values, where and as the backbone is."""
        place = next(self.backbone.parameters())
        return nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias, device=place.device, dtype=place.dtype)
