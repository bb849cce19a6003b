"""Studies of what each part of HDQT is good for: one part is changed or left out at a time."""

from __future__ import annotations

import dataclasses

from quintil.schemes import HDQT

from .arms import DEFAULT, FLOAT, PAPER, UNLIMITED, hdqt
from .simulation import HeldOut
from .study import Arm, Study


def hadamard_ablation() -> Study:
    blocks = [hdqt(f"padded, blocks of {p}", hadamard_block=p) for p in (16, 32, 64, 128, 256)]
    paper = HDQT.paper()
    return Study(
        "hadamard-ablation",
        "The Hadamard transform of the backward",
        "Does the transform matter once nothing else changes with it? ('none' divides by nothing; 'none, as published' "
        "still divides by the order of the transform it left out)",
        (
            FLOAT,
            *blocks,
            hdqt("binary", hadamard="binary"),
            hdqt("divisor", hadamard="divisor"),
            hdqt("none", hadamard="none"),
            PAPER,
            Arm("paper, none", dataclasses.replace(paper, hadamard="none")),
            Arm("paper, none, as published", dataclasses.replace(paper, hadamard="none_scaled")),
        ),
        published={
            ("dsads", "icarl", "HDQT, paper"): "72.74 ± 4.59",
            ("hapt", "icarl", "HDQT, paper"): "82.56 ± 4.51",
            ("hapt", "icarl", "paper, none, as published"): "48.11 ± 21.4",
        },
    )


def rounding_ablation() -> Study:
    usual = ("b1g", "b2a", "b2g")
    alone = [hdqt(f"only {site}", stochastic=(site,)) for site in usual]
    without = [hdqt(f"all three but {site}", stochastic=tuple(s for s in usual if s != site)) for site in usual]
    return Study(
        "rounding-ablation",
        "Stochastic rounding",
        "Which of the six operands must round stochastically? (b1g, b2g: gradient in B1 and B2; b2a: activation in B2; "
        "b1w: weight in B1; fw, fa: forward)",
        (
            FLOAT,
            hdqt("b1g, b2a, b2g (HDQT)"),
            hdqt("none", stochastic=()),
            *alone,
            *without,
            hdqt("also b1w", stochastic=("b1w", *usual)),
            hdqt("all six", stochastic=("fw", "fa", "b1w", *usual)),
        ),
    )


def requantize_ablation() -> Study:
    return Study(
        "requantize-ablation",
        "The second quantisation of weights and activations in the backward",
        "The published ablation compared a run with itself (its switch was never off). What does it really cost?",
        tuple(
            [FLOAT]
            + [
                hdqt(f"{'on' if on else 'off'}, {name}", requantize=on, backward_accumulator_bits=width)
                for name, width in (("8-bit backward accumulators", 8), ("no limit in the backward", UNLIMITED))
                for on in (True, False)
            ]
        ),
    )


def hold_one_out() -> Study:
    operands = {
        "nothing": "nothing (simulated)",
        "fw": "forward, weight",
        "fa": "forward, activation",
        "b1w": "B1, weight",
        "b1g": "B1, gradient",
        "b2a": "B2, activation",
        "b2g": "B2, gradient",
    }
    narrow, wide = HDQT().accumulator_bits, UNLIMITED
    return Study(
        "hold-one-out",
        "One operand or accumulator left as it is",
        "Which quantisation costs the most? All but the named one is low precision: an operand is scaled and clipped "
        "but not rounded (simulated in float32, so slow), an accumulator has no limit",
        (
            FLOAT,
            DEFAULT,
            *(Arm(label, HeldOut(held=held)) for held, label in operands.items()),
            hdqt("forward, accumulator", accumulator_bits=wide, backward_accumulator_bits=narrow),
            hdqt("B1, accumulator", backward_accumulator_bits=wide, weight_gradient_accumulator_bits=narrow),
            hdqt("B2, accumulator", weight_gradient_accumulator_bits=wide),
            hdqt("all accumulators", accumulator_bits=wide),
        ),
    )


def dc_row() -> Study:
    arms = [
        hdqt(f"{row}, blocks of {block}", dc_row=row, hadamard_block=block)
        for block in (16, 64, 128)
        for row in ("together", "separate")
    ]
    return Study(
        "dc-row",
        "The first row of every Hadamard block",
        "After a ReLU the first row of a block is by far the largest and sets the step of all others in B2. Does it "
        "help to quantise it apart, in 8 bits [H23]?",
        (FLOAT, *arms),
    )


def learning_rate() -> Study:
    intended = {"milestones": (50,)}
    return Study(
        "learning-rate",
        "The learning rate that never fell",
        "The authors' milestone was a text, so their rate stayed at 0.01 on sensor data. What if it falls at epoch 50?",
        (
            FLOAT,
            Arm("float32, falls at 50", None, intended),
            DEFAULT,
            Arm("HDQT, falls at 50", HDQT(), intended),
        ),
        datasets=("dsads", "hapt"),
    )
