#!/usr/bin/env python3
"""Where the time of a training step goes, by phase, against what the machine can do: writes docs/profile.md.

  profile_step.py                                  ResNet-32, batch 128, one thread, layers fused by quintil.nn.fuse_
  profile_step.py --row mlp_405 --seconds 5        another step of bench_step.py
  profile_step.py --arithmetic layers --out -      without fuse_, printed

A child process repeats the step while `perf` samples it (Debian: linux-perf); samples are put into phases by the name
of the function. Rates are the work of the phase over its time; beside them stand the same kernels alone on data in
cache, and a copy of memory, measured in this process afterwards. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import quintil
import torch
from bench_common import Call, machine, positive
from bench_nets import ARITHMETICS, OURS, WORKLOADS, prepared, training_step

ROOT = Path(__file__).resolve().parents[1]
# phase -> what it is, and the pattern of its functions; the first match counts
PHASES = {
    "products": ("the three products of every layer", r"kernels::.*(block|panel)\w*<|gemm_|::multiply|::finish"),
    "random bits": ("Philox", r"draw_words|draw_block|philox"),
    "rounding": ("nearest and stochastic quantisers", r"fill_rows|quantize_|::nearest|::drawn|rounded"),
    "transforms": ("Hadamard butterflies, codes widened for them", r"fwht|butterfl|Strip<|transform|widen"),
    "ranges": ("largest magnitudes", r"absmax"),
    "unfolding": ("im2col and its adjoint", r"im2col|col2im|fold"),
    "packing": ("operands of products, codes saved for the backward", r"pack_|transpose"),
    "normalisation": ("BatchNorm, residual and ReLU of fused layers", r"batch_norm_\w*16|narrow_s32s16|scale_s32f32"),
    "float layers": ("float32 BatchNorm, ReLU, additions, optimiser in PyTorch", r"^libtorch|^libc10"),
    "memory": ("page faults, copies, allocation", r"kernel|^libc|^\[|^ld-"),
    "Python": ("interpreter", r"^libpython|^python"),
}  # fmt: skip


BOUNDS = (
    "What bounds a phase:",
    "",
    "* products: arithmetic; below the kernel's own rate as far as few channels leave sums short (16 to 64 products",
    "  for an element of the input gradient) and operands come from L2;",
    "* random bits and rounding: arithmetic per unfolded element: an element serves up to nine taps, and each draws;",
    "* transforms, ranges: arithmetic on data in L1 and L2;",
    "* unfolding, packing, normalisation, float layers: memory traffic; memory: fresh pages for activations.",
)


def child(row: str, arithmetic: str) -> int:
    """Repeat the step until standard input closes; a line on standard output says that it is warm."""
    import select

    torch.set_num_threads(1)
    step = training_step(WORKLOADS[row], arithmetic)
    step()
    start = time.perf_counter()
    step()
    print(time.perf_counter() - start, flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        step()
    return 0


def sampled(row: str, arithmetic: str, seconds: int) -> dict[tuple[str, str], float]:
    """Percent of the samples by (library, function), while the step runs warm."""
    command = [sys.executable, __file__, "--child", "--row", row, "--arithmetic", arithmetic]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        if not process.stdout.readline():
            raise RuntimeError(f"profile_step: expected the step {row} to run, got exit status {process.wait()}")
        data = str(Path(folder) / "perf.data")
        record = ["perf", "record", "-q", "-e", "cpu-clock", "-o", data, "-p", str(process.pid), "sleep", str(seconds)]
        done = subprocess.run(record, capture_output=True, text=True)
        process.stdin.close()
        if done.returncode:
            raise RuntimeError(f"profile_step: expected perf to sample the step, got {done.stderr.strip()}")
        report = ["perf", "report", "-i", data, "--stdio", "--no-children", "--sort", "dso,symbol", "-t", "\t"]
        text = subprocess.run(report, capture_output=True, text=True, check=True).stdout
    found: dict[tuple[str, str], float] = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("\t")]
        if len(parts) >= 3 and not line.startswith("#"):
            found[parts[1], parts[2][4:]] = float(parts[0].rstrip("%"))
    return found


def by_phase(samples: dict[tuple[str, str], float]) -> dict[str, float]:
    """Percent per phase, the rest as "other"."""
    shares = dict.fromkeys([*PHASES, "other"], 0.0)
    for (library, function), percent in samples.items():
        ours = library.startswith("libquintil")
        name = function if ours else library
        phases = (p for p, (_, pattern) in PHASES.items() if re.search(pattern, name))
        shares[next(phases, "other")] += percent
    return shares


def products_of(row: str) -> float:
    """Operations of a step: three products per convolution and linear layer, two where x needs no gradient."""
    model, x = prepared(WORKLOADS[row], OURS)
    quintil.nn.unfuse_(model)
    operations: list[float] = []

    def count(layer: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        operations.append(2.0 * output.numel() * layer.weight[0].numel() * (3 if operations else 2))

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    model(x)
    return sum(operations)


def fastest(call: Call, repeats: int = 20) -> float:
    """Seconds of the fastest of some calls."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def limits() -> dict[str, float]:
    """What one core does: Gop/s of a product in cache, limited and not, and GB/s of a copy (read and write)."""
    a = torch.randint(0, 16, (256, 512), dtype=torch.uint8)
    b = torch.randint(-7, 8, (512, 256), dtype=torch.int8)
    work = 2e-9 * 256 * 512 * 256
    source, target = torch.randn(1 << 24), torch.empty(1 << 24)
    product = torch.ops.quintil.tiled_int_mm
    return {
        "limited": work / fastest(lambda: product(a, b)),
        "unlimited": work / fastest(lambda: product(a, b, accumulator_bits=32)),
        "copy": 2 * 4e-9 * source.numel() / fastest(lambda: target.copy_(source)),
    }


def page(row: str, arithmetic: str, seconds: float, shares: dict[str, float], work: float) -> str:
    """The markdown of the profile."""
    facts, peak = machine(), limits()
    about = f"{facts['cpu']}, {facts['isa']}, torch {facts['torch']}, commit {facts['commit']}"
    lines = [
        "# Where a training step's time goes",
        "",
        f"{WORKLOADS[row].what}, {ARITHMETICS[arithmetic]}, one thread: {1e3 * seconds:.0f} ms. {about}.",
        "Made by `scripts/profile_step.py`; shares are samples of `perf` by function.",
        "",
        "| phase | ms | share | what |",
        "|---|---|---|---|",
    ]
    for phase, percent in sorted(shares.items(), key=lambda entry: -entry[1]):
        what = PHASES[phase][0] if phase in PHASES else "everything else"
        lines.append(f"| {phase} | {10 * seconds * percent:.0f} | {percent:.1f} % | {what} |")
    rate = 1e-9 * work / (seconds * shares["products"] / 100)
    lines += [
        "",
        f"The products are {1e-9 * work:.1f} Gop a step, {rate:.0f} Gop/s in it. The same kernel alone, 256 x 512 x",
        f"256 in cache, reaches {peak['limited']:.0f} Gop/s with a limit per tile and {peak['unlimited']:.0f} without;",
        f"a copy moves {peak['copy']:.1f} GB/s.",
        "",
        *BOUNDS,
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", choices=WORKLOADS, default="resnet32_b128", metavar="NAME", help="(resnet32_b128)")
    parser.add_argument("--arithmetic", choices=ARITHMETICS, default=OURS, metavar="NAME", help=f"({OURS})")
    parser.add_argument("--seconds", type=positive, default=20, help="how long to sample (20)")
    parser.add_argument(
        "--out", default=str(ROOT / "docs" / "profile.md"), help="file, or - to print (docs/profile.md)"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.child:
        return child(args.row, args.arithmetic)
    if shutil.which("perf") is None:
        parser.error("expected perf on the PATH, got none (apt-get install linux-perf)")
    try:
        shares = by_phase(sampled(args.row, args.arithmetic, args.seconds))
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = page(args.row, args.arithmetic, fastest(training_step(WORKLOADS[args.row], args.arithmetic), 3), shares,
                products_of(args.row))  # fmt: skip
    if args.out == "-":
        print(text)
    else:
        Path(args.out).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
