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
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import quintil
import torch
from quintil.models import FCNet, IncrementalNet, resnet32
from torch import Tensor, nn
from tqdm import tqdm

Call = Callable[[], object]
WARM_UP = 3


def paired(ours: Call, other: Call, repeats: int) -> dict[str, float]:
    """Milliseconds of both calls, taken in turns: minimum and median, and the ratio of the minima."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(WARM_UP + repeats):
        for call, kept in zip((ours, other), times):
            start = time.perf_counter()
            call()
            if repeat >= WARM_UP:
                kept.append(1e3 * (time.perf_counter() - start))
    a, b = times
    return {
        "quintil_ms": min(a), "quintil_median_ms": statistics.median(a),
        "other_ms": min(b), "other_median_ms": statistics.median(b), "ratio": min(a) / min(b),
    }  # fmt: skip


def training_step(model: nn.Module, x: Tensor, classes: int) -> Call:
    """One whole step of a model on a fixed batch."""
    y = torch.arange(x.size(0)) % classes
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


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


def mlp_step() -> tuple[Call, Call]:
    def model() -> nn.Module:
        net = IncrementalNet(FCNet(405))
        net.grow(19)
        return net

    x = torch.randn(128, 405).clamp(-1, 1)
    return training_step(quintil.quantize_(model(), quintil.HDQT()), x, 19), training_step(model(), x, 19)


def resnet_step() -> tuple[Call, Call]:
    def model() -> nn.Module:
        net = IncrementalNet(resnet32())
        net.grow(100)
        return net.to(memory_format=torch.channels_last)

    x = torch.randn(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    return training_step(quintil.quantize_(model(), quintil.HDQT()), x, 100), training_step(model(), x, 100)


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
    "mlp": (mlp_step, "MLP 405-405-405-19 batch 128, whole step / float32", 100, 1.5),
    "resnet32": (resnet_step, "ResNet-32 batch 128, whole step / float32 channels_last", 15, 2.5),
}


def machine() -> dict[str, str]:
    """What a number needs beside it: CPU, instruction set, versions, revision."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    here = Path(__file__).resolve().parent
    commit = subprocess.run(["git", "-C", str(here), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "cpu": names[0] if names else platform.processor(), "cores": str(len(names)), "isa": quintil.active_isa(),
        "amx": "yes" if "amx_int8" in flags else "no", "oneDNN limit": os.environ.get("ONEDNN_MAX_CPU_ISA", "none"),
        "torch": torch.__version__, "quintil": quintil.__version__, "commit": commit.stdout.strip() or "unknown",
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="which rows (all)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, torch.get_num_threads()], help="thread counts")
    parser.add_argument("--repeats", type=int, help="timed repeats of every row (by row)")
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
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"machine": facts, "rows": results}, indent=2) + "\n", encoding="utf-8")
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
