"""Operations and energy of one training step, layer by layer, beside the same step in float32: counted, not measured.

  quintil energy hdqt-dsads                                    # a table of all layers and phases
  quintil energy hdqt-cifar100 --paper --prices horowitz45_dram
  quintil energy all --batch_size 1 --summary --out energy.json # a row per network; JSON, and a picture beside it
  quintil energy --published                                   # the ratios that HDQT's authors name, derived again

NETWORK: a preset of `quintil train` (@NAMES@), or all: its network with the head of the last task and its batch size.

Phases: the forward, the gradient of the input (none for the first layer) and the gradient of the weight; a step is all.
Columns, operations and bytes in millions:
  multiplies            of codes, and of the floats that scale results
  additions             into accumulators, joins of tiles, biases
  transform additions   of the Hadamard transforms by butterflies: p log2 p for a block of p
  quantisations         numbers that become codes: of floats, and of transformed integers
  bytes                 that quantisers and products read and write once, codes packed
  nJ, float32 nJ        nanojoules of the step, and of the same products in float32
  ratio                 float32 nJ / nJ: how many times less energy integers take
Norms, ReLU, loss and optimiser are the same in both and left out.

Prices (--prices), picojoules per operation:
@PRICES@
A count is exact; a price is a model of a machine. Adders and multipliers built for 4 bits (horowitz45_scaled) exist in
accelerators; an ordinary CPU multiplies 4-bit codes in 8-bit units (horowitz45), and memory often outweighs arithmetic
(horowitz45_dram). Write your own table with quintil.studies.Prices.

--published compares products and transforms of one hidden layer of HDQT's sensor network (--width inputs and outputs,
128 rows, 4 bits) with a reference (--reference): without transforms, as matrix products (n^2, how the authors counted)
and as butterflies (n log n).

--measure also runs steps of both networks here and reads the energy counters of the processor (RAPL), where Linux shows
them to you; else it says so.

Exit status: 0, or 2 for a name or option that cannot be used.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SAMPLES = {  # data set -> shape of a sample, classes after the last task
    "cifar100": ((3, 32, 32), 100),
    "digits": ((64,), 10),
    "dsads": ((405,), 19),
    "hapt": ((561,), 11),
    "hapt_raw": ((216,), 11),
    "hapt_windows": ((6, 128), 11),
    "pamap2": ((243,), 11),
}
_MEASURED_STEPS = 20


def parser() -> argparse.ArgumentParser:
    from quintil.continual.presets import PRESETS
    from quintil.studies import PRICES, REFERENCES

    sources = "\n".join(
        textwrap.fill(f"  {p.name}: {p.source}", 118, subsequent_indent="    ") for p in PRICES.values()
    )
    made = argparse.ArgumentParser(
        prog="quintil energy",
        usage="%(prog)s NETWORK [options]",
        description=__doc__.replace("@NAMES@", ", ".join(sorted(PRESETS))).replace("@PRICES@", sources),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("network", metavar="NETWORK", nargs="?", help="a preset, or all")
    made.add_argument("--published", action="store_true", help="derive the ratios of HDQT's authors again")
    made.add_argument("--reference", choices=tuple(REFERENCES), default="int16", help="of --published (%(default)s)")
    made.add_argument("--width", type=int, default=405, metavar="N", help="of the layer of --published (%(default)s)")
    made.add_argument("--quant", default="hdqt", metavar="SCHEME", help="hdqt, the one whose operations are counted")
    made.add_argument("--paper", action="store_true", help="HDQT.paper(): the authors' options instead of the defaults")
    made.add_argument("--bits", type=int, metavar="B", help="operand bits, 2..8 (4)")
    made.add_argument("--accumulator_bits", type=int, metavar="A", help="accumulator bits, 4..32 (8)")
    made.add_argument("--tile_size", type=int, metavar="T", help="products per accumulator tile (32)")
    made.add_argument("--hadamard", metavar="MODE", help="padded, divisor, binary or none (padded)")
    made.add_argument("--hadamard_block", type=int, metavar="P", help="largest padded block (64)")
    made.add_argument("--batch_size", type=int, metavar="N", help="samples of a step (the preset's)")
    made.add_argument("--inference", action="store_true", help="the forward alone")
    made.add_argument("--prices", choices=sorted(PRICES), default="horowitz45_scaled", help="(%(default)s)")
    made.add_argument("--summary", action="store_true", help="a row per network instead of all layers")
    made.add_argument("--measure", action="store_true", help="also measure steps by the processor's counters")
    made.add_argument("--out", metavar="FILE", help="write JSON, and a picture beside it (extra quintil[report])")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        return _published(options) if options.published else _energy(options)
    except (NotImplementedError, OSError, TypeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _published(options: argparse.Namespace) -> int:
    from quintil.studies import transform_ratios

    if options.network is not None:
        raise ValueError(f"energy: expected no network with --published, got {options.network!r}")
    print(_markdown(
        ["accumulator bits", "published", "n^2 transforms", "n log n transforms", "no transforms"],
        [[str(r.accumulator_bits), f"{r.published}", f"{r.dense:.2f}", f"{r.butterflies:.2f}", f"{r.without:.2f}"]
         for r in transform_ratios(options.prices, options.reference, width=options.width)],
    ))  # fmt: skip
    layer = f"layer {options.width} x {options.width}, 128 rows, products and transforms, prices {options.prices}"
    print(f"\nEnergy in {options.reference} / energy on 4-bit integers; {layer}")
    return 0


def _energy(options: argparse.Namespace) -> int:
    from quintil.continual.rundir import pretty, write_atomic
    from quintil.studies import energy

    if options.out and not Path(options.out).parent.is_dir():
        raise ValueError(f"energy: expected out to be in a folder that exists, got {options.out}")
    scheme = _scheme(options)
    reports = {}
    for name in _networks(options.network):
        model, x = _network(name, options.batch_size)
        reports[name] = energy(model, x, scheme, prices=options.prices, backward=not options.inference)
        if not options.summary:
            print(f"{name}: {scheme.summary()}\n\n{reports[name].table()}\n")
    print(_summary(reports))
    measured = {name: _measure(name, options, scheme) for name in reports} if options.measure else {}
    if options.out:
        out = Path(options.out)
        found = {name: report.to_dict() for name, report in reports.items()}
        write_atomic(out, pretty({"scheme": scheme.to_dict(), "networks": found, "measured": measured}))
        print(f"\nresults {out}")
        try:
            print(f"picture {_draw(reports, out.with_suffix(''))}")
        except ModuleNotFoundError:
            print("no picture: it takes matplotlib (pip install 'quintil[report]')")
    return 0


def _scheme(options: argparse.Namespace) -> Any:
    import dataclasses

    from quintil.schemes import HDQT

    if options.quant != "hdqt":
        why = "operations of other schemes, such as the baselines LUQ and FP134, are not counted"
        raise ValueError(f"energy: expected quant to be hdqt, got {options.quant!r} ({why})")
    fields = ("bits", "accumulator_bits", "tile_size", "hadamard", "hadamard_block")
    changes = {name: getattr(options, name) for name in fields if getattr(options, name) is not None}
    return dataclasses.replace(HDQT.paper() if options.paper else HDQT(), **changes)


def _networks(name: str | None) -> list[str]:
    """Presets by name; `all` is one of each data set. ValueError for an unknown one."""
    from quintil.continual.presets import PRESETS

    if name == "all":
        return [
            "digits",
            "hdqt-cifar100",
            "hdqt-dsads",
            "hdqt-hapt",
            "hdqt-hapt-raw",
            "hdqt-hapt-windows",
            "hdqt-pamap2",
        ]
    if name not in PRESETS:
        near = difflib.get_close_matches(str(name), [*PRESETS, "all"], n=1)
        hint = f" (did you mean {near[0]}?)" if near else " (see --help)"
        raise ValueError(f"energy: expected network to be a preset or all, got {name!r}{hint}")
    return [name]


def _network(name: str, batch_size: int | None) -> tuple[Any, Any]:
    """The preset's float network with its last head, and a batch of random numbers."""
    import torch

    from quintil.continual.nets import make_backbone
    from quintil.continual.presets import preset
    from quintil.models import IncrementalNet

    config = preset(name)
    size = config.batch_size if batch_size is None else batch_size
    if size < 1:
        raise ValueError(f"energy: expected batch_size of at least 1, got {size}")
    shape, classes = _SAMPLES[config.dataset]
    generator = torch.Generator().manual_seed(0)
    net = IncrementalNet(make_backbone(config, config.model, shape[0], generator))
    net.grow(classes, generator=generator)
    return net, torch.randn(size, *shape, generator=generator)


def _summary(reports: dict[str, Any]) -> str:
    head = ["network", "nJ", "float32 nJ", "ratio"]
    return _markdown(
        head,
        [
            [f"`{name}`", f"{r.picojoules() / 1e3:.0f}", f"{r.picojoules(float32=True) / 1e3:.0f}", f"{r.ratio:.2f}"]
            for name, r in reports.items()
        ],
    )


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _measure(name: str, options: argparse.Namespace, scheme: Any) -> dict[str, float | None]:
    """Joules of a step in float32 and on integers as the processor counts them; None where it shows no counter."""
    import torch

    from quintil.nn import quantize_
    from quintil.studies import measure_package_energy

    model, x = _network(name, options.batch_size)

    def step() -> None:
        if options.inference:
            with torch.no_grad():
                model.eval()(x)
        else:
            model(x).square().mean().backward()

    found = {}
    for arithmetic in ("float32", "hdqt"):
        if arithmetic == "hdqt":
            quantize_(model, scheme)
        step()
        found[arithmetic] = measure_package_energy(step, _MEASURED_STEPS)
    if None in found.values():
        print(f"\n{name}: not measured, this machine shows no readable energy counter (RAPL)")
    else:
        print(f"\n{name}: measured {found['float32']:.3g} J a step in float32, {found['hdqt']:.3g} J on integers here")
    return found


def _draw(reports: dict[str, Any], stem: Path) -> Path:
    """<stem>.png and .svg: where the energy of every network goes, by kind, as a share of float32's."""
    from quintil.report.render import COLOURS, Panel, Picture, draw
    from quintil.studies import KINDS

    def bars(axes: Any) -> None:
        names = list(reports)
        bottoms = [0.0] * len(names)
        for kind, colour in zip(KINDS, COLOURS):
            shares = [_share(reports[name], kind) for name in names]
            axes.bar(names, shares, bottom=bottoms, color=colour, width=0.6)
            axes.plot([], [], color=colour, linewidth=6, label=kind)
            bottoms = [bottom + share for bottom, share in zip(bottoms, shares)]
        axes.set_ylabel("% of float32's energy")
        axes.set_xticks(range(len(names)), [name.removeprefix("hdqt-") for name in names])

    formula = (
        f"energy of the kinds of operations of one step on integers; prices {next(iter(reports.values())).prices.name}"
    )
    picture = Picture("energy", "Energy beside float32", formula, [Panel("", bars)], 1, (6.4, 3.6), left=0.8)
    draw(picture, stem)
    return stem.with_name(f"{stem.name}.png")


def _share(report: Any, kind: str) -> float:
    own = sum(report.prices.picojoules(o) * n for o, n in report.counts().items() if o.kind == kind)
    return 100.0 * own / report.picojoules(float32=True)
