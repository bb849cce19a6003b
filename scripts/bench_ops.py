#!/usr/bin/env python3
"""Integer ops and whole training steps against float32 on the same CPU, as ratios measured in one process.

The two sides of a row take turns, so that a change of the machine's speed meets both; a row's ratio is that of the
fastest repeats, and the medians stand beside them. A step is zero_grad, forward, cross-entropy, backward and SGD with
momentum. Ratios of times: below 1, quintil is faster.

torch._int_mm runs on AMX tiles where the CPU has them; ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI in the environment limits it
to the instructions that quintil uses.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import quintil
import torch
from bench_common import Call, interleaved, machine, positive, ratios, write_json
from bench_nets import OURS, WORKLOADS, training_step
from torch import Tensor, nn
from tqdm import tqdm


def paired(ours: Call, other: Call, repeats: int) -> dict[str, float]:
    """Milliseconds of both calls, taken in turns: minimum and median, and their ratios."""
    times = interleaved({"quintil": ours, "other": other}, {"quintil": repeats, "other": repeats})
    a, b = times.values()
    return {
        "quintil_ms": min(a), "quintil_median_ms": statistics.median(a),
        "other_ms": min(b), "other_median_ms": statistics.median(b), **ratios(a, b),
    }  # fmt: skip


def codes(*shape: int, low: int = -7) -> Tensor:
    return torch.randint(low, 8, shape).to(torch.int8)


def gemm() -> tuple[Call, Call]:
    a, b = codes(1024, 1024), codes(1024, 1024)
    return lambda: quintil.functional.tiled_int_mm(a, b), lambda: torch._int_mm(a, b)


def every_mac() -> tuple[Call, Call]:
    a, b, x, y = codes(1024, 1024), codes(1024, 1024), torch.randn(1024, 1024), torch.randn(1024, 1024)
    return lambda: quintil.functional.tiled_int_mm(a, b, accumulate="every_mac"), lambda: torch.mm(x, y)


def linear_step(b: int, k: int, n: int) -> tuple[Call, Call]:
    """Forward and both gradients of one layer."""
    x, w, g = (
        torch.randn(b, k, requires_grad=True),
        (torch.randn(n, k) / k**0.5).requires_grad_(),
        torch.randn(b, n),
    )

    def ours() -> object:
        return torch.autograd.grad(quintil.functional.hadamard_linear(x, w), (x, w), g)

    return ours, lambda: torch.autograd.grad(nn.functional.linear(x, w), (x, w), g)


def net_step(name: str) -> tuple[Call, Call]:
    return training_step(WORKLOADS[name], OURS), training_step(WORKLOADS[name], "float32")


# name -> (the two calls, what they are, repeats, the limit that the ratio of times must keep or None)
ROWS: dict[str, tuple[Callable[[], tuple[Call, Call]], str, int, float | None]] = {
    "gemm": (gemm, "tiled_int_mm 1024^3, tile 32, 8-bit accumulator / torch._int_mm", 30, 1 / 0.7),
    "every_mac": (
        every_mac,
        "tiled_int_mm 1024^3, 8 bits limited after every product / float32 torch.mm",
        30,
        1.0,
    ),
    "linear_256x512x512": (
        lambda: linear_step(256, 512, 512),
        "Linear step (256,512,512) / float32",
        30,
        None,
    ),
    "linear_1024": (lambda: linear_step(1024, 1024, 1024), "Linear step 1024^3 / float32", 15, None),
    "mlp": (lambda: net_step("mlp_405"), "MLP 405-405-405-19 batch 128, whole step / float32", 100, 1.5),
    "resnet32": (lambda: net_step("resnet32_b128"), "ResNet-32 batch 128, whole step / float32 channels_last", 15, 2.5),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="which rows (all)")
    parser.add_argument(
        "--threads", type=positive, nargs="+", default=[1, torch.get_num_threads()], help="thread counts"
    )
    parser.add_argument("--repeats", type=positive, help="timed repeats of every row (by row)")
    parser.add_argument("--out", type=Path, help="also write all numbers as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a ratio exceeds its limit")
    args = parser.parse_args()
    facts, results, missed = machine(), [], []
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"{'threads':>7} {'quintil ms':>11} {'other ms':>9} {'ratio':>6} {'limit':>6}  row")
    plan = [(threads, name) for threads in sorted(set(args.threads)) for name in args.rows]
    for threads, name in tqdm(plan, disable=None, leave=False):
        build, what, repeats, limit = ROWS[name]
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        numbers = paired(*build(), args.repeats or repeats)
        results.append({"row": name, "what": what, "threads": threads, "limit": limit, **numbers})
        wanted = "" if limit is None else f"{limit:.2f}"
        tqdm.write(
            f"{threads:7} {numbers['quintil_ms']:11.2f} {numbers['other_ms']:9.2f} {numbers['ratio']:6.2f} "
            f"{wanted:>6}  {what}"
        )
        if limit is not None and numbers["ratio"] > limit:
            missed.append(name)
    if args.out:
        write_json(args.out, {"machine": facts, "rows": results})
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
