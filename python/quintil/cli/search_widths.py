"""Choose a bit width for every layer of a trained network: exactly, under budgets, without training.

RUN is the folder of a run of scripts/train_double_rounding.py, best of its stage mixed. How much each layer matters is
read from traces.json in it, which the float stage made. The widths with the largest sum of trace x width are found by
an integer program, for every average asked for and for their neighbours. Of these candidates, those are named that no
other beats in average width and in accuracy on training images (--judge_images); they alone are tested, beside one
width for all layers.

  python scripts/search_bits.py RUN --mean_bits 3 4 5                       # three averages
  python scripts/search_bits.py RUN --sweep 4 8 0.05                        # the paper's sweep
  python scripts/search_bits.py RUN --model_bytes 120000 --mac_bits 2e8     # upper bounds, together
  python scripts/search_bits.py RUN --table latency latency.json 5.0        # measured: {layer: {width: cost}}
  python scripts/search_bits.py RUN --mean_bits 4 --recalibrate 20          # BatchNorm statistics anew per candidate
  python scripts/search_bits.py --smoke                                     # trains two tiny stages first

An average without a sum of widths is rounded to the nearest that has one; a budget that cannot be met is refused with
the nearest that can. Results: a table, search.json in RUN (or --out) with every candidate, its widths, costs and
accuracies, and the same as a picture. Apply one with quintil.set_bits(model, widths).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quintil.bits import (
    Allocation,
    Budget,
    allocate,
    candidate_pool,
    get_bits,
    layer_costs,
    mac_bits,
    model_bytes,
    table,
)
from quintil.continual.rundir import pretty, write_atomic

from . import train_widths
from .search_result import Judge, draw_search, front_text, judged
from .width_config import WidthRun, make_batches
from .width_run import read_state, read_traces, restored_model


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage="%(prog)s RUN [options]"
    )
    made.add_argument("run", nargs="?", help="folder or checkpoint of a trained network")
    made.add_argument("--smoke", action="store_true", help="a search on two tiny stages trained for it")
    made.add_argument("--mean_bits", type=float, nargs="+", default=[], help="averages to meet")
    made.add_argument("--sweep", type=float, nargs=3, metavar=("FROM", "TO", "STEP"), help="averages in equal steps")
    made.add_argument("--at_most", action="store_true", help="averages are upper bounds")
    made.add_argument("--model_bytes", type=float, help="bytes of the packed weights of quantised layers, at most")
    made.add_argument("--mac_bits", type=float, help="multiplications of one image times their width, at most")
    made.add_argument(
        "--table", action="append", nargs=3, default=[], metavar=("NAME", "FILE", "LIMIT"),
        help="measured costs per layer and width, as JSON, with their limit; may be repeated",
    )  # fmt: skip
    made.add_argument("--traces", metavar="FILE", help="default: traces.json beside the checkpoint")
    made.add_argument("--no_pool", action="store_true", help="the optima alone, without their neighbours")
    made.add_argument("--no_test", action="store_true", help="do not run the network")
    made.add_argument(
        "--judge_images", type=int, default=2048, metavar="N", help="training images that choose; 0: the test (2048)"
    )
    made.add_argument("--recalibrate", type=int, default=0, metavar="N", help="batches for BatchNorm per candidate")
    made.add_argument("--data_root", metavar="DIR", help="folder of the publishers' files")
    made.add_argument("--workers", type=int, default=0, help="processes that read photographs")
    made.add_argument("--out", metavar="FILE", help="default: search.json beside the checkpoint")
    return made


def search(args: argparse.Namespace, told: Callable[[str], None] = print) -> dict[str, Any]:
    """Candidates and their front, as JSON values, for the parsed options."""
    content = read_state(args.run)
    run = WidthRun.from_resolved(content["config"], data_root=args.data_root, workers=args.workers)
    batches = make_batches(run)
    model = restored_model(content, batches.classes, batches.sample_shape[0]).eval()
    layers = get_bits(model)
    known = read_traces(args.run) if args.traces is None else json.loads(Path(args.traces).read_text())
    traces = {name: known[name] for name in layers if name in known}
    if len(traces) < len(layers):
        absent = next(name for name in layers if name not in known)
        raise ValueError(f"search: expected a trace of every quantised layer, got none of {absent!r}")
    budgets = _budgets(args, model, layers, batches.sample_shape)
    means = _means(args)
    limits = {"budgets": budgets, "at_most": args.at_most}
    if args.no_pool:
        found = _distinct(allocate(traces, run.scheme.bits, mean, **limits) for mean in means)
    else:
        found = candidate_pool(traces, run.scheme.bits, means, **limits)
    told(f"{len(found)} candidates over {len(layers)} layers")
    rows = [_row(candidate) for candidate in found]
    front: list[int] = []
    uniform: list[dict[str, Any]] = []
    if not args.no_test:
        judge = Judge(model, batches, args.judge_images, args.recalibrate, run.seed)
        front, uniform = judged(rows, list(run.scheme.bits), judge)
    return {
        "run": str(args.run), "judge_images": args.judge_images, "layers": list(layers), "traces": traces,
        "candidates": rows, "front": front, "uniform": uniform,
    }  # fmt: skip


def _means(args: argparse.Namespace) -> list[float | None]:
    means: list[float | None] = list(args.mean_bits)
    if args.sweep is not None:
        low, high, step = args.sweep
        if step <= 0 or high < low:
            raise ValueError(f"search: expected sweep as FROM <= TO and STEP > 0, got {args.sweep}")
        means += [low + step * k for k in range(int((high - low) / step + 1e-9) + 1)]
    return means or [None]


def _budgets(args: argparse.Namespace, model: nn.Module, layers: Sequence[str], shape: Sequence[int]) -> list[Budget]:
    costs = layer_costs(model, torch.zeros(1, *shape))
    budgets = []
    if args.model_bytes is not None:
        budgets.append(model_bytes({name: costs[name].parameters for name in layers}, args.model_bytes))
    if args.mac_bits is not None:
        budgets.append(mac_bits({name: costs[name].macs for name in layers}, args.mac_bits))
    for name, file, limit in args.table:
        budgets.append(table(name, json.loads(Path(file).read_text()), float(limit)))
    if not budgets and not args.mean_bits and args.sweep is None:
        raise ValueError("search: expected --mean_bits, --sweep or a budget, got none")
    return budgets


def _distinct(found: Any) -> list[Allocation]:
    return list({tuple(candidate.bits.values()): candidate for candidate in found}.values())


def _row(candidate: Allocation) -> dict[str, Any]:
    return {
        "bits": candidate.bits,
        "mean_bits": candidate.mean_bits,
        "objective": candidate.objective,
        "used": candidate.used,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser()
    args = made.parse_args(arguments)
    if args.smoke:
        args.run = _smoke_run()
        args.mean_bits = args.mean_bits or [4.0]
    if args.run is None:
        made.error("expected RUN, the folder of a trained network (or --smoke)")
    try:
        found = search(args)
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    folder = Path(args.run) if Path(args.run).is_dir() else Path(args.run).parent
    out = folder / "search.json" if args.out is None else Path(args.out)
    write_atomic(out, pretty(found))
    print(f"results {out}")
    if not found["front"]:
        print(f"best sum of trace x width: {found['candidates'][0]['objective']:g}")
        return 0
    print(front_text(found))
    try:
        draw_search(found, out.with_suffix(""))
        print(f"picture {out.with_suffix('.png')}")
    except ModuleNotFoundError:
        print("no picture: it takes matplotlib (pip install 'quintil[report]')")
    return 0


def _smoke_run() -> Path:
    """A float and a multi stage on generated images; the folder of the second."""
    start: list[str] = []
    for stage in ("float", "multi"):
        options = ["--smoke", "--epochs", "1", "--exp_name", "smoke_search", "--stage", stage, *start]
        if train_widths.main(options):
            raise SystemExit(1)
        folder = train_widths.run_from(train_widths.parsed(options), 0).folder
        start = ["--start", str(folder)]
    return folder
