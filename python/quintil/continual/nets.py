"""The feature extractors that a configuration asks for."""

from __future__ import annotations

import torch
from torch import nn

from quintil.models import FCNet, WindowLSTM, resnet20, resnet32

from .config import RunConfig


def make_backbone(
    config: RunConfig, model: str, inputs: int, generator: torch.Generator, *, last_relu: bool = True
) -> nn.Module:
    """A feature extractor: model fcnet, lstm, resnet20 or resnet32.

    inputs: values per sample (fcnet) or channels (lstm). Weights are drawn from `generator`. last_relu: whether
    features end in a ReLU; those of an LSTM never do.
    """
    if model == "lstm":
        hidden = {} if config.fc_hid_dim is None else {"hidden": config.fc_hid_dim}
        return WindowLSTM(inputs, **hidden, generator=generator)
    if model != "fcnet":
        return {"resnet20": resnet20, "resnet32": resnet32}[model](last_relu=last_relu, generator=generator)
    return FCNet(
        inputs,
        config.fc_hid_dim,
        fc_nr_hid=config.fc_nr_hid,
        half_dims=config.half_dims,
        norm=config.norm,
        last_relu=last_relu,
        generator=generator,
    )
