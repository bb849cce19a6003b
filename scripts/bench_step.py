#!/usr/bin/env python3
"""Whole training steps in quintil's integers against float32, bfloat16, torch.compile and an op-by-op simulation.

A step is zero_grad, forward, loss, backward and SGD with momentum, with the options of quintil.HDQT(). All arithmetics
of a row take turns in one process. A ratio is HDQT's time over the other's: below 1, HDQT is faster. Printed are the
ratio of the fastest repeats and the median of the ratios by round; run it on an otherwise idle machine (the load
average at the start is stored with the numbers).

examples
  bench_step.py --out step.json --plot step.png                        all rows, 1 thread and all cores; some 10 minutes
  bench_step.py --rows mlp_405 resnet32_b128 --threads 1 2 --compile   some rows, torch.compile too
  bench_step.py --rows linear_1024 --against float32 --check           exit status 1 if a ratio exceeds its limit
  bench_step.py --growth --out growth.json --plot growth.svg           time per sample against batch, width, image size
  bench_step.py --memory --out memory.json                             peak memory of a ResNet-32 step
  bench_step.py --read step.json --markdown --plot step.png            table and picture of stored numbers
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bench_draw
import bench_growth
import bench_memory
import quintil
import torch
from bench_common import Call, interleaved, machine, positive, ratios, write_json
from bench_nets import ARITHMETICS, OURS, WORKLOADS, training_step
from tqdm import tqdm

OTHERS = [name for name in ARITHMETICS if name not in (OURS, "compile")]
MEMORY = [OURS, "layers", "float32", "bfloat16"]
Result = dict[str, Any]
Keep = Callable[[Result], None]


def compiled_step(name: str) -> tuple[Call | None, str]:
    """The step by torch.compile, compiled; or None and why there is none."""
    try:
        step = training_step(WORKLOADS[name], "compile")
        step()
    except Exception as error:
        return None, " ".join(f"{type(error).__name__}: {error}".split("\n\n")[0].split())
    return step, ""


def measure_row(name: str, threads: int, against: Sequence[str], repeats: int | None) -> Result:
    """All arithmetics of one row: milliseconds, and HDQT's time over each other one's."""
    workload = WORKLOADS[name]
    torch.set_num_threads(threads)
    steps, skipped = {}, {}
    for side in (OURS, *against):
        if side == "compile":
            step, reason = compiled_step(name)
            if step is None:
                skipped[side] = reason
                continue
            steps[side] = step
        else:
            steps[side] = training_step(workload, side)
    wanted = dict.fromkeys(steps, repeats or workload.repeats)
    if "simulation" in wanted:
        wanted["simulation"] = min(wanted["simulation"], workload.simulated)
    torch.manual_seed(0)
    times = interleaved(steps, wanted)
    sides = {}
    for side, taken in times.items():
        sides[side] = {"ms": min(taken), "median_ms": statistics.median(taken), "repeats": len(taken)}
        if side != OURS:
            sides[side] |= {**ratios(times[OURS], taken), "limit": workload.limits.get(side)}
    return {"row": name, "what": workload.what, "threads": threads, "sides": sides, "skipped": skipped}


def show_row(row: Result) -> None:
    tqdm.write(f"{row['what']}, {bench_draw.counted(row['threads'])}")
    for side, numbers in row["sides"].items():
        line = f"  {bench_draw.NAMES[side]:14}{numbers['ms']:11.3f} ms, median {numbers['median_ms']:11.3f}"
        if side != OURS:
            line += f"   ratio {numbers['ratio']:6.3f}, median {numbers['ratio_median']:6.3f}"
            line += f"   limit {numbers['limit']:.3f}" if numbers["limit"] else ""
        tqdm.write(line)
    for side, reason in row["skipped"].items():
        tqdm.write(f"  {bench_draw.NAMES[side]:14}skipped: {reason}")


def show_curve(curve: Result) -> None:
    for side, numbers in curve["sides"].items():
        title = f"{curve['what']}, {bench_draw.counted(curve['threads'])}, {bench_draw.NAMES[side]}"
        times = " ".join(f"{n}:{t:.4g}" for n, t in zip(curve["sizes"], numbers["us_per_sample"]))
        tqdm.write(f"{title}: {curve['axis']}\n  µs per sample {times}")
        tqdm.write(f"  per unit of work at most {numbers['surprise']:.2f} times a smaller size ({numbers['at']})")


def complaints(result: Result) -> list[str]:
    """What exceeds its limit, one line each."""
    found = []
    for row in result.get("rows", ()):
        for side, numbers in row["sides"].items():
            if numbers.get("limit") and numbers["ratio"] > numbers["limit"]:
                wanted = f"expected a ratio to {side} of at most {numbers['limit']}, got {numbers['ratio']:.3f}"
                found.append(f"{row['row']}, {bench_draw.counted(row['threads'])}: {wanted}")
    for curve in result.get("growth", ()):
        ours = curve["sides"][OURS]
        if ours["surprise"] > curve["limit"]:
            wanted = f"expected time per unit of work of at most {curve['limit']} times that of a smaller size"
            got = f"got {ours['surprise']:.2f} at {ours['at']}"
            found.append(f"{curve['curve']}, {bench_draw.counted(curve['threads'])}: {wanted}, {got}")
    return found


def measure_steps(args: argparse.Namespace, keep: Keep) -> None:
    against = [*(args.against or OTHERS), *["compile"] * args.compile]
    plan = [(threads, name) for threads in args.threads for name in args.rows or WORKLOADS]
    rows = []
    for threads, name in tqdm(plan, unit="row", disable=None, leave=False):
        rows.append(measure_row(name, threads, against, args.repeats))
        show_row(rows[-1])
        keep({"rows": rows})


def measure_growth(args: argparse.Namespace, keep: Keep) -> None:
    curves = []
    for threads, name in [(threads, name) for threads in args.threads for name in args.curves]:
        with tqdm(unit="size", desc=name, disable=None, leave=False) as bar:
            curves.append(bench_growth.measure(name, threads, args.repeats or 10, args.largest, bar.update))
        show_curve(curves[-1])
        keep({"growth": curves})


def measure_memory(args: argparse.Namespace, keep: Keep) -> None:
    entries = []
    for name, side in [(name, side) for name in args.rows or ["resnet32_b128"] for side in MEMORY]:
        entries.append(bench_memory.measure(name, side, args.threads[-1]))
        peak = f"{entries[-1]['peak_mib']:8.1f} MiB above the process before the step"
        heap = f"{entries[-1]['heap_peak_mib']:.1f} where the heap keeps freed blocks"
        print(f"{entries[-1]['what']}, {bench_draw.NAMES[side]:16}{peak}, {heap}")
        keep({"memory": entries})


def arguments() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {name:20}{workload.what}" for name, workload in WORKLOADS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"rows\n{rows}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--growth", action="store_true", help="time per sample against sizes, instead of rows")
    mode.add_argument("--memory", action="store_true", help="peak memory of a step per arithmetic, instead of rows")
    mode.add_argument(
        "--read", type=Path, metavar="JSON", help="measure nothing, take stored numbers (of --rows, --against)"
    )
    add, list_of = parser.add_argument, dict(nargs="+", metavar="NAME")
    add("--rows", choices=WORKLOADS, **list_of, help="which steps, see below (all; for --memory resnet32_b128)")
    add("--against", choices=OTHERS, **list_of, help=f"compared with ({' '.join(OTHERS)})")
    add("--compile", action="store_true", help="also against torch.compile, where a compiler works")
    add("--threads", nargs="+", type=positive, metavar="N", default=sorted({1, torch.get_num_threads()}),
        help="thread counts (1 and all cores); --memory takes the largest")  # fmt: skip
    add("--repeats", type=positive, metavar="N", help="timed repeats (15 to 100 by row; simulation 2 to 10 at most)")
    add("--curves", choices=bench_growth.CURVES, default=list(bench_growth.CURVES), **list_of,
        help=f"curves of --growth ({' '.join(bench_growth.CURVES)})")  # fmt: skip
    add("--largest", type=positive, metavar="N", help="leave out sizes of --growth above this")
    add("--check", action="store_true", help="exit status 1 if a ratio or a growth exceeds its limit")
    add("--out", type=Path, metavar="JSON", help="store all numbers; written again after every row")
    add("--markdown", action="store_true", help="print the numbers as a markdown table")
    add("--plot", type=Path, metavar="FILE", help="draw FILE.png and FILE.svg (any ending is dropped)")
    return parser


def measure(args: argparse.Namespace) -> Result:
    """Measure what was asked for; with --out it is stored after each row."""
    result: Result = {"machine": machine(), "defaults": quintil.HDQT().to_dict(), "arithmetics": ARITHMETICS}
    print(", ".join(f"{name} {value}" for name, value in result["machine"].items()))

    def keep(numbers: Result) -> None:
        result.update(numbers)
        if args.out:
            write_json(args.out, result)

    work = measure_growth if args.growth else measure_memory if args.memory else measure_steps
    work(args, keep)
    return result


def stored(args: argparse.Namespace) -> Result:
    """The numbers of --read, of the wanted rows and arithmetics."""
    result = json.loads(args.read.read_text(encoding="utf-8"))
    rows = [row for row in result.get("rows", ()) if args.rows is None or row["row"] in args.rows]
    wanted = [OURS, *(args.against or OTHERS), *["compile"] * (args.compile or args.against is None)]
    for row in rows:
        row["sides"] = {side: numbers for side, numbers in row["sides"].items() if side in wanted}
    return {**result, "rows": rows}


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments()
    args = parser.parse_args(argv)
    args.threads = sorted(set(args.threads))
    if args.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib (pip install 'quintil[report]')")
    try:
        result = stored(args) if args.read else measure(args)
        if args.markdown:
            print(bench_draw.markdown(result), end="")
        if args.plot:
            bench_draw.picture(result, args.plot.with_suffix(""))
    except (OSError, RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; --out holds the finished rows", file=sys.stderr)
        return 130
    missed = complaints(result) if args.check else []
    for line in missed:
        print(f"error: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
