"""BatchNorm statistics for the widths that a model has right now."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measure the statistics of every BatchNorm in use anew: the mean over `batches` of inputs, in place.

    For a choice of widths that was not trained, after `quintil.set_bits`. The rest of the model runs in evaluation
    mode; modes are as before afterwards, and BatchNorms of other widths are left alone. ValueError without BatchNorms
    or batches.
    """
    norms = list(_in_use(model))
    if not norms:
        raise ValueError("recalibrate: expected model to hold BatchNorms with statistics, got none")
    remaining = iter(batches)
    first = next(remaining, None)
    if first is None:
        raise ValueError("recalibrate: expected at least one batch, got none")
    modes = {module: module.training for module in model.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True  # a plain mean over the batches
        for batch in itertools.chain([first], remaining):
            model(batch)
    finally:
        for module, training in modes.items():
            module.training = training
        for norm, momentum in momenta.items():
            norm.momentum = momentum


def _in_use(model: nn.Module) -> Iterator[nn.Module]:
    """BatchNorms with statistics that the next forward runs."""
    idle = set()
    for module in model.modules():
        if hasattr(module, "own_key"):
            idle |= {module, *module.norms.values()} - {module.active()}
        if isinstance(module, _BatchNorm) and module.track_running_stats and module not in idle:
            yield module
