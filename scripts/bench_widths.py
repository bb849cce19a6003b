#!/usr/bin/env python3
"""Double Rounding's networks at work: inference on integers by width against float32, and the price of a switch.

Inference: the float network in channels_last, the same with its BatchNorms folded, and the network of several widths,
as it is after quintil.set_bits ("layers") and joined by quintil.nn.deploy. All take turns in one process. A ratio is
float32's time over the other's: above 1, integers are faster. Switching: all weights of a network from the highest to
a lower width, against a copy of the stored int8 codes.

examples
  bench_widths.py --out widths.json                                 all rows, 1 thread and all
  bench_widths.py --rows resnet20_b64 --threads 2 --check           exit status 1 if a ratio misses its limit
  bench_widths.py --read widths.json                                tables of stored numbers
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import quintil
import torch
from bench_common import interleaved, machine, positive, ratios, write_json
from quintil.models import preact_resnet18, preact_resnet20
from quintil.nn import deploy, fold_norms_
from torch import Tensor, nn
from tqdm import tqdm

WIDTHS = (8, 6, 4, 2)
#: name -> (what, network, classes, size of the batch)
ROWS: dict[str, tuple[str, Callable[[int], nn.Module], int, tuple[int, ...]]] = {
    "resnet20_b64": ("ResNet-20, 32x32, batch 64", preact_resnet20, 100, (64, 3, 32, 32)),
    "resnet20_b1": ("ResNet-20, 32x32, batch 1", preact_resnet20, 100, (1, 3, 32, 32)),
    "resnet18_b16": ("ResNet-18, 64x64, batch 16", preact_resnet18, 1000, (16, 3, 64, 64)),
}
SWITCHED = ("resnet18_b16",)
FASTER_THAN_FLOAT = 1.5  # limits of --check: 8 bits against float32, 4 bits against 8
SLOWER_THAN_COPY = 2.0
Result = dict[str, Any]


def networks(name: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """The float network of a row, its twin of several widths, and a batch."""
    _, make, classes, size = ROWS[name]
    torch.manual_seed(1)
    net = make(classes).to(memory_format=torch.channels_last)
    x = torch.randn(size).to(memory_format=torch.channels_last)
    several = quintil.quantize_(copy.deepcopy(net), quintil.DoubleRounding(bits=WIDTHS))
    examples = x if len(x) > 1 else x.expand(2, -1, -1, -1)
    with torch.no_grad():
        net(examples)
        for width in WIDTHS:
            quintil.set_bits(several, width)(examples)
    return net.eval(), several.eval(), x


def measure_row(name: str, threads: int, repeats: int) -> Result:
    """Milliseconds of every side and float32's time over it."""
    torch.set_num_threads(threads)
    net, several, x = networks(name)
    folded = copy.deepcopy(net)
    fold_norms_(folded)
    models = {"float32": net, "float32 folded": folded}
    for width in WIDTHS:
        at_width = quintil.set_bits(copy.deepcopy(several), width)
        models[f"{width} bits"] = deploy(at_width, x)
        models[f"{width} bits, layers"] = at_width
    with torch.inference_mode():
        calls = {side: partial(model, x) for side, model in models.items()}
        times = interleaved(calls, dict.fromkeys(calls, repeats))
    sides = {side: {"ms": min(ms), **ratios(times["float32"], ms)} for side, ms in times.items()}
    return {"row": name, "what": ROWS[name][0], "threads": threads, "sides": sides}


def measure_switch(name: str, threads: int, repeats: int) -> Result:
    """Milliseconds from 8 bits to 4, 2 and back, and of a copy of the stored codes."""
    torch.set_num_threads(threads)
    _, several, _ = networks(name)
    layers = [several.get_submodule(layer) for layer in quintil.nn.get_bits(several)]
    with torch.no_grad():
        stored = [layer.stored_codes() for layer in layers]

    def to(width: int) -> None:
        quintil.set_bits(several, width)
        for layer in layers:
            layer.kept_weight_codes()

    with torch.no_grad():
        to(8)
        calls: dict[str, Callable] = {"copy": lambda: [codes.clone() for codes in stored]}
        for width in (4, 2, 8):
            calls[f"to {width} bits"] = partial(to, width)
        times = interleaved(calls, dict.fromkeys(calls, repeats))
    sides = {side: {"ms": min(ms), **ratios(ms, times["copy"])} for side, ms in times.items()}
    weights = sum(codes.numel() for codes in stored)
    return {"row": name, "what": f"{ROWS[name][0].split(',')[0]}, {weights / 1e6:.1f} M weights", "threads": threads,
            "sides": sides}  # fmt: skip


def failures(result: Result) -> list[str]:
    """What misses the limits."""
    found = []
    for row in result["rows"]:
        if row["row"] != "resnet20_b64":
            continue
        sides = row["sides"]
        if sides["8 bits"]["ratio_median"] < FASTER_THAN_FLOAT:
            found.append(f"{row['what']}, {row['threads']} threads: 8 bits {sides['8 bits']['ratio_median']:.2f} x")
        if sides["4 bits"]["ms"] > sides["8 bits"]["ms"]:
            found.append(f"{row['what']}, {row['threads']} threads: 4 bits slower than 8")
    for row in result["switches"]:
        ratio = row["sides"]["to 4 bits"]["ratio_median"]
        if ratio > SLOWER_THAN_COPY:
            found.append(f"{row['what']}, {row['threads']} threads: a switch to 4 bits takes {ratio:.2f} copies")
    return found


def markdown(result: Result) -> str:
    """Two tables: inference, switches."""
    facts = result["machine"]
    lines = [f"{facts['cpu']}, {facts['isa']}, {facts['cores']} cores, torch {facts['torch']}, {facts['commit']}"]
    for key, first in (("rows", "float32's time / the other's"), ("switches", "time / that of a copy")):
        sides = [side for side in result[key][0]["sides"] if side not in ("float32", "copy")] if result[key] else []
        if sides:
            lines += ["", f"| {first} | threads | " + " | ".join(sides) + " |", "|---" * (len(sides) + 2) + "|"]
        for row in result[key]:
            cells = [f"{row['sides'][side]['ratio_median']:.2f} ({row['sides'][side]['ms']:.2f} ms)" for side in sides]
            lines.append(f"| {row['what']} | {row['threads']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, help="default: all")
    made.add_argument("--threads", nargs="+", type=positive, default=sorted({1, torch.get_num_threads()}))
    made.add_argument("--repeats", type=positive, default=15, help="rounds (default: 15)")
    made.add_argument("--out", type=Path, help="JSON with all numbers")
    made.add_argument("--read", type=Path, help="show stored numbers instead of measuring")
    made.add_argument("--check", action="store_true", help="exit status 1 if a limit is missed")
    return made


def measured(args: argparse.Namespace) -> Result:
    result: Result = {"machine": machine(), "rows": [], "switches": []}
    jobs = [("rows", measure_row, name, t) for t in args.threads for name in args.rows]
    jobs += [("switches", measure_switch, name, t) for t in args.threads for name in args.rows if name in SWITCHED]
    for key, measure, name, threads in tqdm(jobs, leave=False, disable=None):
        result[key].append(measure(name, threads, args.repeats))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    result = measured(args) if args.read is None else json.loads(args.read.read_text(encoding="utf-8"))
    if args.out is not None:
        write_json(args.out, result)
    print(markdown(result))
    missed = failures(result) if args.check else []
    for text in missed:
        print(f"missed: {text}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
