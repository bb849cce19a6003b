"""Studies of widths: operands, accumulators and tiles; other arithmetics beside; options that cost less."""

from __future__ import annotations

import dataclasses

from quintil.schemes import FP134, HDQT, LUQ

from .arms import BEST, DEFAULT, FLOAT, PAPER, TWENTY_CLASSES, UNLIMITED, hdqt
from .study import Arm, Study

_WIDTHS = (4, 6, 8, 10, 12)
_TILES = (8, 16, 32, 64, 128, 256, 0)


def accumulator_sweep() -> Study:
    def arm(accumulator: int, tile: int) -> Arm:
        width = "no limit" if accumulator == UNLIMITED else f"{accumulator} bits"
        length = "no tiles" if tile == 0 else f"tiles of {tile}"
        fields = {"accumulator_bits": accumulator, "tile_size": tile, "backward_tile_size": tile}
        return hdqt(f"{width}, {length}", line=width, x="none" if tile == 0 else str(tile), **fields)

    # 16 bits hold every sum of these networks but the longest without tiles, so one tile size says all
    grid = [arm(width, tile) for width in _WIDTHS for tile in _TILES]
    wide = [arm(16, 32), arm(16, 0), arm(UNLIMITED, 0)]
    return Study(
        "accumulator-sweep",
        "Accumulator width and tile size",
        "How narrow may accumulators be, and how many products may share one? (all three products alike)",
        (FLOAT, *grid, *wide),
        axis="products per tile",
    )


def bit_sweep() -> Study:
    pairs = [(3, 6), (4, 8), (5, 10), (6, 12), (7, 14), (8, 16)]
    published = dict(zip(["3/6", "4/8", "5/10", "6/12", "8/16"], ["74.02", "72.74", "77.46", "78.40", "77.79"]))
    names = [f"{bits}/{accumulator}" for bits, accumulator in pairs]
    ours = [hdqt(f"HDQT {n}", line="HDQT", x=n, bits=b, accumulator_bits=a) for n, (b, a) in zip(names, pairs)]
    paper = [
        Arm(f"paper {n}", HDQT.paper("response", bits=b, accumulator_bits=a), line="HDQT, paper", x=n)
        for n, (b, a) in zip(names, pairs)
    ]
    return Study(
        "bit-sweep",
        "Width of operands and accumulators",
        "What does each width cost? (bits of operands / accumulators)",
        (FLOAT, *ours, *paper),
        published={
            ("dsads", "icarl", f"{kind} {name}"): value
            for kind in ("HDQT", "paper")
            for name, value in published.items()
        },
        axis="bits of operands / of accumulators",
        energy=True,
    )


def baselines() -> Study:
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
    ours = [hdqt(f"HDQT {name(w)}", line="HDQT", x=name(w), accumulator_bits=w) for w in widths]
    floats = [
        Arm("FP134 as published", FP134()),
        Arm("FP130 as published", FP134(weights="fp130", activations="fp130")),
        Arm("FP134, all of a layer", FP134(full=True)),
        Arm("FP134, weights FP130, all of a layer", FP134(weights="fp130", full=True)),
    ]
    return Study(
        "baselines",
        "HDQT beside LUQ and FP134",
        "How do LUQ (4-bit operands, no tiles) and FP134 (8-bit floats, no accumulator model) fare beside HDQT at "
        "equal accumulators?",
        (FLOAT, *ours, *luq, *tiled, *original, *floats),
        published={("dsads", "icarl", f"LUQ {width}"): value for width, value in published.items()},
        axis="accumulator bits",
    )


def best_search() -> Study:
    """Ranges, tiles and roundings that could make up for what is lost, chosen on a validation side alone."""
    tiles = [hdqt(f"tiles of {t}", tile_size=t, backward_tile_size=t) for t in (16, 8)]
    forward = [
        hdqt(f"range {part}, forward tiles of {tile}", range_fraction=part, tile_size=tile, backward_tile_size=16)
        for part in (0.8, 0.7, 0.5)
        for tile in (32, 16, 8)
        if (part, tile) != (0.7, 8)  # HDQT.best()
    ]
    best = HDQT.best()
    changed = [
        Arm("best, first rows apart", dataclasses.replace(best, dc_row="separate")),
        Arm("best, b1w stochastic", dataclasses.replace(best, stochastic=("b1w", "b1g", "b2a", "b2g"))),
        Arm("best, blocks of 16", dataclasses.replace(best, hadamard_block=16)),
        Arm("best, no limits", dataclasses.replace(best, accumulator_bits=UNLIMITED)),
    ]
    levels = [hdqt(f"VecQ weights, tiles of {t}", weight_quantizer="vecq", tile_size=t) for t in (32, 8)]
    return Study(
        "best-search",
        "Options of HDQT that could cost less",
        "Which options bring 4-bit training closest to float32? (20 classes of CIFAR-100, ResNet-20, 6 epochs; tested "
        "on a fifth of the training images, never on the test side)",
        (
            FLOAT,
            DEFAULT,
            PAPER,
            hdqt("no limits", accumulator_bits=UNLIMITED),
            BEST,
            *tiles,
            *forward,
            *changed,
            *levels,
        ),
        datasets=("cifar100",),
        seeds=2,
        common={**TWENTY_CLASSES, "validation": True},
    )
