"""All studies by name."""

from __future__ import annotations

import difflib

from . import ablations, measured, sweeps, tables
from .study import Study

STUDIES: dict[str, Study] = {
    made.name: made
    for made in (
        tables.har_table(),
        tables.cifar_table(),
        sweeps.baselines(),
        sweeps.accumulator_sweep(),
        sweeps.bit_sweep(),
        ablations.hadamard_ablation(),
        ablations.rounding_ablation(),
        ablations.requantize_ablation(),
        ablations.dc_row(),
        ablations.hold_one_out(),
        ablations.learning_rate(),
        measured.saturation(),
        measured.gradient_statistics(),
        measured.rounding_bias(),
        tables.lstm_har(),
        sweeps.best_search(),
        tables.best(),
        tables.best_cifar(),
    )
}


def study(name: str) -> Study:
    """A study by name; ValueError naming the nearest one or all."""
    if name not in STUDIES:
        near = difflib.get_close_matches(name, STUDIES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"study: expected name to be one of {', '.join(STUDIES)}, got {name!r}{hint}")
    return STUDIES[name]
