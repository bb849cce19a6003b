"""Other methods as choices of scheme and training, for comparisons on equal terms.

Only what sets a method apart is taken over; the rest (learned steps, BatchNorm per width, data, epochs) is that of
Double Rounding here, so these are not the published systems. Nothing about their authors' code is reproduced.
"""

from __future__ import annotations

import dataclasses

from quintil.schemes import DoubleRounding

from .train import SwitchConfig

#: name -> what sets the method apart
BASELINES = {
    "double_rounding": "the method itself: the second rounding, a step per width, a rate per width",
    "own_steps": "a weight step per width, each width rounded from the float weight, which must be kept",
    "lsq": "one width alone, so one training per width",
    "adabits": "lower widths cut off (floor), the gradients of all widths in one step",
    "any_precision": "every width rounded from the float weight, each learning from the next higher one",
    "bit_mixer": "lower widths cut off (floor), layers at random widths, a BatchNorm per pair of widths",
}


def baseline(
    name: str, scheme: DoubleRounding | None = None, config: SwitchConfig | None = None
) -> tuple[DoubleRounding, SwitchConfig]:
    """The scheme and the training of a method, from those of Double Rounding (default: their defaults).

    name: one of BASELINES, else ValueError. "lsq" needs a scheme of one width, ValueError otherwise.
    """
    scheme, config = scheme or DoubleRounding(), config or SwitchConfig()
    if name not in BASELINES:
        raise ValueError(f"baseline: expected name to be one of {', '.join(BASELINES)}, got {name!r}")
    if name == "lsq" and len(scheme.bits) > 1:
        raise ValueError(f"baseline: expected one width for lsq, got {scheme.bits}")
    schemes = {
        "own_steps": {"shared_step": False},
        "adabits": {"rounding": "floor"},
        "any_precision": {"weight_source": "float"},
        "bit_mixer": {"rounding": "floor", "transitional_norm": True},
    }
    trainings = {
        "own_steps": {"lr_mode": "none"},
        "lsq": {"lr_mode": "none"},
        "adabits": {"update": "conventional"},
        "any_precision": {"update": "conventional", "distillation": "recursive"},
        "bit_mixer": {"lr_mode": "none", "sampling": "uniform", "sigma": 1.0},
    }
    return (
        dataclasses.replace(scheme, **schemes.get(name, {})),
        dataclasses.replace(config, **trainings.get(name, {})),
    )
