"""The studies of HDQT, by name: what its paper claims or leaves open, each as arms that differ in one thing."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from quintil.report.published import PUBLISHED
from quintil.schemes import FP134, HDQT, LUQ

from .simulation import HeldOut
from .study import Arm, Study

_FLOAT = Arm("float32", None)
_DEFAULT = Arm("HDQT", HDQT())
_PAPER = Arm("HDQT, paper", HDQT.paper())
UNLIMITED = 32
_WIDTHS = (4, 6, 8, 10, 12)
_TILES = (8, 16, 32, 64, 128, 256, 0)


def _tables() -> dict[tuple[str, str, str], str]:
    """The authors' tables: last accuracy of the linear head, of the same learner in both arithmetics."""
    found = {}
    for (dataset, method), rows in PUBLISHED.items():
        for row in rows:
            if row.head == "cnn":
                cell = f"{row.last:.2f} ± {row.std:.2f}"
                names = ("float32",) if row.arithmetic == "float32" else (_DEFAULT.label, _PAPER.label)
                learners = (method, "bic-compat") if method == "bic" else (method,)
                found.update({(dataset, learner, name): cell for learner in learners for name in names})
    return found


_TABLES = _tables()


def _hdqt(label: str, *, line: str = "", x: str | None = None, **fields: Any) -> Arm:
    return Arm(label, HDQT(**fields), line=line, x=x)


def _har_table() -> Study:
    return Study(
        "har-table",
        "Class-incremental learning on sensor data",
        "Do 4-bit operands with 8-bit accumulators learn as well as float32?",
        (_FLOAT, _DEFAULT, _PAPER),
        datasets=("dsads", "hapt"),
        learners=("lwf", "icarl", "bic", "bic-compat", "der", "memo"),
        published=_TABLES,
    )


def _cifar_table() -> Study:
    return dataclasses.replace(
        _har_table(),
        name="cifar-table",
        title="Class-incremental learning on CIFAR-100",
        datasets=("cifar100",),
        learners=("icarl", "bic"),
    )


def _accumulator_sweep() -> Study:
    def arm(accumulator: int, tile: int) -> Arm:
        width = "no limit" if accumulator == UNLIMITED else f"{accumulator} bits"
        length = "no tiles" if tile == 0 else f"tiles of {tile}"
        fields = {"accumulator_bits": accumulator, "tile_size": tile, "backward_tile_size": tile}
        return _hdqt(f"{width}, {length}", line=width, x="none" if tile == 0 else str(tile), **fields)

    # 16 bits hold every sum of these networks but the longest without tiles, so one tile size says all
    grid = [arm(width, tile) for width in _WIDTHS for tile in _TILES]
    wide = [arm(16, 32), arm(16, 0), arm(UNLIMITED, 0)]
    return Study(
        "accumulator-sweep",
        "Accumulator width and tile size",
        "How narrow may accumulators be, and how many products may share one? (all three products alike)",
        (_FLOAT, *grid, *wide),
        axis="products per tile",
    )


def _bit_sweep() -> Study:
    pairs = [(3, 6), (4, 8), (5, 10), (6, 12), (7, 14), (8, 16)]
    published = dict(zip(["3/6", "4/8", "5/10", "6/12", "8/16"], ["74.02", "72.74", "77.46", "78.40", "77.79"]))
    names = [f"{bits}/{accumulator}" for bits, accumulator in pairs]
    ours = [_hdqt(f"HDQT {n}", line="HDQT", x=n, bits=b, accumulator_bits=a) for n, (b, a) in zip(names, pairs)]
    paper = [
        Arm(f"paper {n}", HDQT.paper("response", bits=b, accumulator_bits=a), line="HDQT, paper", x=n)
        for n, (b, a) in zip(names, pairs)
    ]
    return Study(
        "bit-sweep",
        "Width of operands and accumulators",
        "What does each width cost? (bits of operands / accumulators)",
        (_FLOAT, *ours, *paper),
        published={
            ("dsads", "icarl", f"{kind} {name}"): value
            for kind in ("HDQT", "paper")
            for name, value in published.items()
        },
        axis="bits of operands / of accumulators",
    )


def _hadamard_ablation() -> Study:
    blocks = [_hdqt(f"padded, blocks of {p}", hadamard_block=p) for p in (16, 32, 64, 128, 256)]
    paper = HDQT.paper()
    return Study(
        "hadamard-ablation",
        "The Hadamard transform of the backward",
        "Does the transform matter once nothing else changes with it? ('none' divides by nothing; 'none, as published' "
        "still divides by the order of the transform it left out)",
        (
            _FLOAT,
            *blocks,
            _hdqt("binary", hadamard="binary"),
            _hdqt("divisor", hadamard="divisor"),
            _hdqt("none", hadamard="none"),
            _PAPER,
            Arm("paper, none", dataclasses.replace(paper, hadamard="none")),
            Arm("paper, none, as published", dataclasses.replace(paper, hadamard="none_scaled")),
        ),
        published={
            ("dsads", "icarl", "HDQT, paper"): "72.74 ± 4.59",
            ("hapt", "icarl", "HDQT, paper"): "82.56 ± 4.51",
            ("hapt", "icarl", "paper, none, as published"): "48.11 ± 21.4",
        },
    )


def _rounding_ablation() -> Study:
    usual = ("b1g", "b2a", "b2g")
    alone = [_hdqt(f"only {site}", stochastic=(site,)) for site in usual]
    without = [_hdqt(f"all three but {site}", stochastic=tuple(s for s in usual if s != site)) for site in usual]
    return Study(
        "rounding-ablation",
        "Stochastic rounding",
        "Which of the six operands must round stochastically? (b1g, b2g: gradient in B1 and B2; b2a: activation in B2; "
        "b1w: weight in B1; fw, fa: forward)",
        (
            _FLOAT,
            _hdqt("b1g, b2a, b2g (HDQT)"),
            _hdqt("none", stochastic=()),
            *alone,
            *without,
            _hdqt("also b1w", stochastic=("b1w", *usual)),
            _hdqt("all six", stochastic=("fw", "fa", "b1w", *usual)),
        ),
    )


def _requantize_ablation() -> Study:
    return Study(
        "requantize-ablation",
        "The second quantisation of weights and activations in the backward",
        "The published ablation compared a run with itself (its switch was never off). What does it really cost?",
        tuple(
            [_FLOAT]
            + [
                _hdqt(f"{'on' if on else 'off'}, {name}", requantize=on, backward_accumulator_bits=width)
                for name, width in (("8-bit backward accumulators", 8), ("no limit in the backward", UNLIMITED))
                for on in (True, False)
            ]
        ),
    )


def _hold_one_out() -> Study:
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
            _FLOAT,
            _DEFAULT,
            *(Arm(label, HeldOut(held=held)) for held, label in operands.items()),
            _hdqt("forward, accumulator", accumulator_bits=wide, backward_accumulator_bits=narrow),
            _hdqt("B1, accumulator", backward_accumulator_bits=wide, weight_gradient_accumulator_bits=narrow),
            _hdqt("B2, accumulator", weight_gradient_accumulator_bits=wide),
            _hdqt("all accumulators", accumulator_bits=wide),
        ),
    )


def _dc_row() -> Study:
    arms = [
        _hdqt(f"{row}, blocks of {block}", dc_row=row, hadamard_block=block)
        for block in (16, 64, 128)
        for row in ("together", "separate")
    ]
    return Study(
        "dc-row",
        "The first row of every Hadamard block",
        "After a ReLU the first row of a block is by far the largest and sets the step of all others in B2. Does it "
        "help to quantise it apart, in 8 bits [H23]?",
        (_FLOAT, *arms),
    )


def _baselines() -> Study:
    widths = (6, 8, 10, 12, 16, UNLIMITED)
    published = dict(zip(widths, ("64.70", "62.40", "70.49", "65.25", "78.97")))

    def name(width: int) -> str:
        return "no limit" if width == UNLIMITED else str(width)

    luq = [Arm(f"LUQ {name(w)}", LUQ(accumulator_bits=w), line="LUQ", x=name(w)) for w in widths]
    tiled = [
        Arm(f"LUQ {name(w)}, tiles of 32", LUQ(accumulator_bits=w, tile_size=32), line="LUQ, tiles of 32", x=name(w))
        for w in widths[:-1]
    ]
    original = [
        Arm(f"LUQ original {name(w)}", LUQ(accumulator_bits=w, levels="original"), line="LUQ, original", x=name(w))
        for w in (8, UNLIMITED)
    ]
    hdqt = [
        _hdqt(f"HDQT {name(w)}", line="HDQT", x=name(w), accumulator_bits=w, backward_accumulator_bits=w)
        for w in widths
    ]
    floats = [
        Arm("FP134 as published", FP134()),
        Arm("FP130 as published", FP134(weights="fp130", activations="fp130")),
        Arm("FP134, all of a layer", FP134(full=True)),
        Arm("FP134, weights FP130, all of a layer", FP134(weights="fp130", full=True)),
    ]
    return Study(
        "baselines",
        "HDQT beside LUQ and FP134",
        "How do LUQ (4-bit operands, no tiles) and FP134 (8-bit floats, no accumulator model) fare beside HDQT at equal "
        "accumulators?",
        (_FLOAT, *hdqt, *luq, *tiled, *original, *floats),
        published={("dsads", "icarl", f"LUQ {width}"): value for width, value in published.items()},
        axis="accumulator bits",
    )


def _learning_rate() -> Study:
    intended = {"milestones": (50,)}
    return Study(
        "learning-rate",
        "The learning rate that never fell",
        "The authors' milestone was a text, so their rate stayed at 0.01 on sensor data. What if it falls at epoch 50?",
        (
            _FLOAT,
            Arm("float32, falls at 50", None, intended),
            _DEFAULT,
            Arm("HDQT, falls at 50", HDQT(), intended),
        ),
        datasets=("dsads", "hapt"),
    )


def _best_search() -> Study:
    """Ranges, tiles and quantisers that could make up for the forward's loss, chosen on a validation side alone."""
    forward = [
        _hdqt(f"range {part}, tiles of {tile}", range_fraction=part, tile_size=tile)
        for part in (0.975, 0.8, 0.65, 0.5)
        for tile in (32, 16, 8)
        if (part, tile) != (0.975, 32)
    ]
    levels = [_hdqt(f"VecQ weights, tiles of {t}", weight_quantizer="vecq", tile_size=t) for t in (32, 16, 8)]
    return Study(
        "best-search",
        "Options of HDQT that could cost less",
        "Which options bring 4-bit training closest to float32? (20 classes of CIFAR-100, ResNet-20, 6 epochs; tested "
        "on a fifth of the training images, never on the test side)",
        (
            _FLOAT,
            _DEFAULT,
            _PAPER,
            _hdqt("no limits", accumulator_bits=UNLIMITED),
            *forward,
            *levels,
            _hdqt("blocks of 16", hadamard_block=16),
            _hdqt("b2a nearest", stochastic=("b1g", "b2g")),
        ),
        datasets=("cifar100",),
        seeds=2,
        common={
            "model": "resnet20", "classes_drop": tuple(range(20, 100)), "init_cls": 20, "increment": 20, "epochs": 6,
            "milestones": (4, 5), "validation": True,
        },
    )  # fmt: skip


def _measured(name: str, title: str, question: str) -> Study:
    """A study of the networks of HDQT() after each task, from checkpoints that other studies do not keep."""
    arm = Arm(_DEFAULT.label, HDQT(), {"save_checkpoint": "task"})
    return Study(name, title, question, (arm,), reference=arm.label, measure=name)


def _saturation() -> Study:
    return _measured(
        "saturation",
        "Tile sums beyond an 8-bit accumulator",
        "How many tile sums of the forward are clamped, by layer, task and tile size?",
    )


def _gradient_statistics() -> Study:
    return _measured(
        "gradient-statistics",
        "Operands of the backward before and after the Hadamard transform",
        "Does the transform spread outliers, so that more levels are used? (b1w, b1g: weight and gradient of B1; b2a, "
        "b2g: activation and gradient of B2)",
    )


def _rounding_bias() -> Study:
    return _measured(
        "rounding-bias",
        "Bias and spread of integer gradients",
        "Is the gradient right on average where it rounds stochastically, and how far is a single draw?",
    )


def _lstm_har() -> Study:
    return Study(
        "lstm-har",
        "An LSTM on windows of raw signals",
        "Beyond the paper: does HDQT train a recurrent network, whose state passes through 32 quantised products?",
        (_FLOAT, _DEFAULT, _PAPER),
        datasets=("hapt_windows",),
        learners=("icarl", "bic"),
    )


_MAKERS = (
    _har_table,
    _cifar_table,
    _accumulator_sweep,
    _bit_sweep,
    _hadamard_ablation,
    _rounding_ablation,
    _requantize_ablation,
    _hold_one_out,
    _dc_row,
    _baselines,
    _saturation,
    _gradient_statistics,
    _rounding_bias,
    _learning_rate,
    _lstm_har,
    _best_search,
)
STUDIES: dict[str, Study] = {study.name: study for study in (make() for make in _MAKERS)}


def study(name: str) -> Study:
    """A study by name; ValueError naming the nearest one or all."""
    if name not in STUDIES:
        near = difflib.get_close_matches(name, STUDIES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"study: expected name to be one of {', '.join(STUDIES)}, got {name!r}{hint}")
    return STUDIES[name]
