#!/usr/bin/env python3
"""Integer ops, whole training steps and inference against float32 on the same CPU, as ratios measured in one process.

The two sides of a row take turns, so that a change of the machine's speed meets both; a row's ratio is that of the
fastest repeats, and the medians stand beside them. A step is zero_grad, forward, cross-entropy, backward and SGD with
momentum. Ratios of times: below 1, quintil is faster.

torch._int_mm runs on AMX tiles where the CPU has them; ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI in the environment limits it
to the instructions that quintil uses.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import quintil
import torch
from bench_common import Call, interleaved, machine, positive, ratios, write_json
from bench_nets import OURS, WORKLOADS, training_step
from quintil.models import lenet5, preact_resnet18
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


def resnet18_weights() -> list[Tensor]:
    """Of convolutions and the classifier, 11.7 million."""
    return [p.detach() for p in preact_resnet18(1000).parameters() if p.dim() > 1]


def vecq_weights() -> tuple[Call, Call]:
    """Step, codes, length and values of every weight; a copy of them."""
    weights = resnet18_weights()
    return lambda: [quintil.functional.vecq_quantize(w, 4) for w in weights], lambda: [w.clone() for w in weights]


def vecq_search() -> tuple[Call, Call]:
    """The step with the smallest orientation loss for every weight; torch's sort of their magnitudes."""
    weights = resnet18_weights()

    def search() -> object:
        return [quintil.functional.vecq_step(w, 4, lambda_mode="search") for w in weights]

    return search, lambda: [w.abs().flatten().sort() for w in weights]


def lenet5_inference(folded: bool) -> tuple[Call, Call]:
    """LeNet-5 with 8-bit weights and activations as `quintil.nn.deploy` makes it; float32."""
    net, x = (t.to(memory_format=torch.channels_last) for t in (lenet5(), torch.randn(64, 1, 28, 28)))
    with torch.no_grad():
        net(x)
    quantised = quintil.quantize_(copy.deepcopy(net), quintil.VecQ(8, 8, ema_debias=True))
    program = quintil.nn.deploy(quintil.nn.calibrate(quantised, [x]), x)
    if folded:
        quintil.nn.fold_norms_(net)
    net.eval()
    inference = torch.inference_mode()
    return inference(lambda: program(x)), inference(lambda: net(x))


def lstm_inference(batch: int, steps: int, inputs: int, hidden: int) -> tuple[Call, Call]:
    """An LSTM with 4-bit weights and 8-bit activations, whose states take 16 bits in products; float32."""
    layer, x = nn.Sequential(nn.LSTM(inputs, hidden, batch_first=True)), torch.randn(batch, steps, inputs)
    quantised = quintil.quantize_(copy.deepcopy(layer), quintil.VecQ(4, 8, ema_debias=True))
    quintil.nn.calibrate(quantised, [x]).eval()
    inference = torch.inference_mode()
    return inference(lambda: quantised(x)), inference(lambda: layer(x))


@dataclass(frozen=True)
class Row:
    """The two calls, what they are, repeats, and what --check demands of ratio and milliseconds."""

    build: Callable[[], tuple[Call, Call]]
    what: str
    repeats: int
    limit: float | None = None
    longest_ms: float | None = None


ROWS = {
    "gemm": Row(gemm, "tiled_int_mm 1024^3, tile 32, 8-bit accumulator / torch._int_mm", 30, 1 / 0.7),
    "every_mac": Row(every_mac, "tiled_int_mm 1024^3, 8 bits limited after every product / float32 torch.mm", 30, 1.0),
    "linear_256x512x512": Row(lambda: linear_step(256, 512, 512), "Linear step (256,512,512) / float32", 30),
    "linear_1024": Row(lambda: linear_step(1024, 1024, 1024), "Linear step 1024^3 / float32", 15),
    "mlp": Row(lambda: net_step("mlp_405"), "MLP 405-405-405-19 batch 128, whole step / float32", 100, 1.5),
    "resnet32": Row(
        lambda: net_step("resnet32_b128"), "ResNet-32 batch 128, whole step / float32 channels_last", 15, 2.5
    ),
    "vecq_weights": Row(vecq_weights, "VecQ, weights of a ResNet-18 to 4 bits / a copy", 15, 10.0),
    "vecq_search": Row(vecq_search, "VecQ, searched steps of a ResNet-18's weights / torch.sort", 5, longest_ms=2000.0),
    "lenet5": Row(lambda: lenet5_inference(False), "LeNet-5 W8A8 batch 64, inference / float32", 50, 1.0),
    "lenet5_folded": Row(
        lambda: lenet5_inference(True), "LeNet-5 W8A8 batch 64, inference / float32 without BatchNorms", 50
    ),
    "lstm": Row(lambda: lstm_inference(64, 100, 128, 256), "LSTM 128-256 W4A8, 64 sequences of 100 / float32", 30),
    "lstm_alone": Row(lambda: lstm_inference(1, 100, 64, 128), "LSTM 64-128 W4A8, one sequence of 100 / float32", 100),
}


def missed(row: Row, numbers: dict[str, float]) -> bool:
    """Whether numbers of `paired` exceed the row's limits."""
    return (row.limit is not None and numbers["ratio"] > row.limit) or (
        row.longest_ms is not None and numbers["quintil_ms"] > row.longest_ms
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="which rows (all)")
    parser.add_argument(
        "--threads", type=positive, nargs="+", default=[1, torch.get_num_threads()], help="thread counts"
    )
    parser.add_argument("--repeats", type=positive, help="timed repeats of every row (by row)")
    parser.add_argument("--out", type=Path, help="also write all numbers as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a ratio or a time exceeds its limit")
    args = parser.parse_args()
    facts, results, failed = machine(), [], []
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"{'threads':>7} {'quintil ms':>11} {'other ms':>9} {'ratio':>6} {'limit':>6}  row")
    plan = [(threads, name) for threads in sorted(set(args.threads)) for name in args.rows]
    for threads, name in tqdm(plan, disable=None, leave=False):
        row = ROWS[name]
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        numbers = paired(*row.build(), args.repeats or row.repeats)
        limits = {"limit": row.limit, "longest_ms": row.longest_ms}
        results.append({"row": name, "what": row.what, "threads": threads, **limits, **numbers})
        wanted = "" if row.limit is None else f"{row.limit:.2f}"
        tqdm.write(
            f"{threads:7} {numbers['quintil_ms']:11.2f} {numbers['other_ms']:9.2f} {numbers['ratio']:6.2f} "
            f"{wanted:>6}  {row.what}"
        )
        if missed(row, numbers):
            failed.append(name)
    if args.out:
        write_json(args.out, {"machine": facts, "rows": results})
    return 1 if args.check and failed else 0


if __name__ == "__main__":
    sys.exit(main())
