"""A learning rate of its own for the quantiser steps of every width [DR D14, D15]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quintil.nn.quantizers import StepQuantizer, keep_steps_positive

LR_MODES = ("multi_lr", "alrs_rel", "alrs_literal", "multi_lr_code", "none")
LR_SCOPES = ("steps", "no_decay_group")

_CLIP = 1.0  # largest norm of a layer's step gradient in [DR D15]


def width_factor(bits: int, highest: int) -> float:
    """eta of a width [DR D14]: a tenth for every two bits below the highest width, a half for one."""
    below = highest - bits
    return 10.0 ** (-below // 2) if below % 2 == 0 else 5.0 * 10.0 ** (-(below + 1) // 2)


def parameter_groups(model: nn.Module, weight_decay: float, lr_scope: str = "steps") -> list[dict]:
    """Groups for an optimiser: weights of layers with weight decay; quantiser steps and offsets; all the rest.

    Groups that `MultiLR` scales by width carry "by_width": True: the steps, and with lr_scope 'no_decay_group' also the
    rest, biases and BatchNorms, as the authors' code does.
    """
    if lr_scope not in LR_SCOPES:
        raise ValueError(f"parameter_groups: expected lr_scope to be one of {', '.join(LR_SCOPES)}, got {lr_scope!r}")
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    weights = {module.weight for module in layers}
    steps = {p for m in model.modules() if isinstance(m, StepQuantizer) for p in m.parameters(recurse=False)}
    order = [p for p in model.parameters() if p.requires_grad]
    rest = [p for p in order if p not in weights and p not in steps]
    return [
        {"params": [p for p in order if p in weights], "weight_decay": weight_decay, "by_width": False},
        {"params": [p for p in order if p in steps], "weight_decay": 0.0, "by_width": True},
        {"params": rest, "weight_decay": 0.0, "by_width": lr_scope == "no_decay_group"},
    ]


class MultiLR:
    """Takes optimiser steps in which the groups marked "by_width" have the learning rate of the width just trained.

    optimizer: made from `parameter_groups`; its rates may be changed by a scheduler between steps. bits: all widths.
    mode, with eta = `width_factor`, lr the group's rate and m the mean size of the step gradients over the layers:
        'multi_lr' eta lr; 'alrs_rel' eta lr (1 - m); 'alrs_literal' eta max(lr - m, 0), the printed equation, which
        would be negative where m > lr; 'multi_lr_code' 0.1 per place in the list of widths, as the authors' code;
        'none' lr.
    stop: with multi_lr_code, widths below this one have its rate.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        bits: Sequence[int],
        *,
        mode: str = "multi_lr",
        stop: int | None = None,
    ):
        if mode not in LR_MODES:
            raise ValueError(f"MultiLR: expected mode to be one of {', '.join(LR_MODES)}, got {mode!r}")
        if stop is not None and stop not in bits:
            raise ValueError(f"MultiLR: expected stop to be one of {list(bits)}, got {stop}")
        self.model, self.optimizer, self.mode, self.stop = model, optimizer, mode, stop
        self.bits = sorted(bits, reverse=True)

    def step(self, bits: int | None) -> None:
        """One step after the backward pass of a width (None: no width, all groups at their rate).

        Afterwards steps are at least the smallest step.
        """
        scaled = [group for group in self.optimizer.param_groups if group.get("by_width")]
        rates = [group["lr"] for group in scaled]
        try:
            if bits is not None:
                for group in scaled:
                    group["lr"] = self.rate(bits, group["lr"])
            self.optimizer.step()
        finally:
            for group, rate in zip(scaled, rates):
                group["lr"] = rate
        keep_steps_positive(self.model)

    def rate(self, bits: int, lr: float) -> float:
        """The rate of a width for the gradients that are there now."""
        if self.mode == "none":
            return lr
        if self.mode == "multi_lr_code":
            lowest = self.bits.index(bits) if self.stop is None else self.bits.index(max(bits, self.stop))
            return lr * 0.1**lowest
        eta = width_factor(bits, self.bits[0])
        if self.mode == "multi_lr":
            return eta * lr
        size = step_gradient_size(self.model)
        return eta * lr * (1.0 - size) if self.mode == "alrs_rel" else eta * max(lr - size, 0.0)


def step_gradient_size(model: nn.Module) -> float:
    """m of [DR D15]: the mean over quantised layers of the largest step gradient, clipped to norm 1 per layer.

    A layer's gradients are those of its weight steps and input step together; layers without any do not count.
    """
    sizes = []
    for module in model.modules():
        if hasattr(module, "input_quantizers"):
            gradients = [q.step.grad.flatten() for q in module.modules() if _has_gradient(q)]
            if gradients:
                gradient = torch.cat(gradients)
                norm = gradient.norm().item()
                sizes.append(gradient.abs().max().item() * min(1.0, _CLIP / norm if norm > 0 else 1.0))
    return sum(sizes) / len(sizes) if sizes else 0.0


def _has_gradient(module: nn.Module) -> bool:
    return isinstance(module, StepQuantizer) and isinstance(module.step.grad, Tensor)
