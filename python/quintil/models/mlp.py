"""FCNet, the fully connected net of the sensor tables [CIL 1, Networks]."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_NORMS = {"none": None, "layer": nn.LayerNorm, "batch": nn.BatchNorm1d}


class FCNet(nn.Module):
    """Linear(in, hid), ReLU, Linear(hid, in), ReLU without bias: inputs [N, ...] -> features [N, out_features].

    in_features: values per sample; more dimensions are flattened.
    hidden: width of the hidden layers; None = in_features.
    fc_nr_hid: further hidden layers hid -> hid between the two.
    out: features; None = in_features.
    half_dims: halves both widths, so that hid and out_features become hidden // 2 and out // 2.
    norm: "none", "layer" or "batch", applied between each Linear and its ReLU. BatchNorm with replay loses
        10 to 20 points on sensor series, LayerNorm does not.
    last_relu: whether the features end in a ReLU; LUCIR wants them signed.
    Weights start as nn.Linear's do (kaiming-uniform with a = sqrt 5), drawn from `generator`.
    """

    def __init__(
        self,
        in_features: int,
        hidden: int | None = None,
        *,
        out: int | None = None,
        fc_nr_hid: int = 0,
        half_dims: bool = False,
        norm: str = "none",
        last_relu: bool = True,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if norm not in _NORMS:
            raise ValueError(f"FCNet: expected norm to be one of {', '.join(_NORMS)}, got {norm!r}")
        if fc_nr_hid < 0:
            raise ValueError(f"FCNet: expected fc_nr_hid of at least 0, got {fc_nr_hid}")
        hidden = in_features if hidden is None else hidden
        out = in_features if out is None else out
        divisor = 2 if half_dims else 1
        widths = [in_features, *[hidden // divisor] * (1 + fc_nr_hid), out // divisor]
        if min(widths) < 1:
            raise ValueError(f"FCNet: expected layer widths of at least 1, got {widths} (in_features first)")
        layers: list[nn.Module] = []
        for width_in, width_out in zip(widths, widths[1:]):
            linear = nn.Linear(width_in, width_out, bias=False)
            nn.init.kaiming_uniform_(linear.weight, a=math.sqrt(5), generator=generator)
            layers.append(linear)
            if _NORMS[norm] is not None:
                layers.append(_NORMS[norm](width_out))
            layers.append(nn.ReLU())
        if not last_relu:
            layers.pop()
        self.layers = nn.Sequential(*layers)
        self.out_features = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))
