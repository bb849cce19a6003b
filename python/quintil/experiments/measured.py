"""Studies of the networks themselves, measured after each task."""

from __future__ import annotations

from quintil.schemes import HDQT

from .arms import DEFAULT
from .study import Arm, Study


def _measured(name: str, title: str, question: str) -> Study:
    """A study of the networks of HDQT() after each task, from checkpoints that other studies do not keep."""
    arm = Arm(DEFAULT.label, HDQT(), {"save_checkpoint": "task"})
    return Study(name, title, question, (arm,), reference=arm.label, measure=name)


def saturation() -> Study:
    return _measured(
        "saturation",
        "Tile sums beyond an 8-bit accumulator",
        "How many tile sums of the forward are clamped, by layer, task and tile size?",
    )


def gradient_statistics() -> Study:
    return _measured(
        "gradient-statistics",
        "Operands of the backward before and after the Hadamard transform",
        "Does the transform spread outliers, so that more levels are used? (b1w, b1g: weight and gradient of B1; b2a, "
        "b2g: activation and gradient of B2)",
    )


def rounding_bias() -> Study:
    return _measured(
        "rounding-bias",
        "Bias and spread of integer gradients",
        "Is the gradient right on average where it rounds stochastically, and how far is a single draw?",
    )
