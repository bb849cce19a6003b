#!/usr/bin/env python3
"""Peak memory of a training step, above what the process held before it; bench_step.py --memory runs it as a child.

Prints one line of JSON. A step on two samples first makes the library allocate what it keeps whatever the batch;
weights and the batch itself are in the baseline, gradients, momentum and saved activations are not. Needs Linux: the
peak resident size is reset through /proc/self/clear_refs.

The C library decides what becomes of freed memory. glibc keeps large blocks in its heap once some were freed, and the
small codes that outlive them leave holes there; with MALLOC_MMAP_THRESHOLD_ set, freed blocks go back to the system and
the peak is that of living tensors. Both are measured: peak_mib with the variable at 1 MiB, heap_peak_mib without it.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from bench_common import positive
from bench_nets import ARITHMETICS, WORKLOADS, training_step

MIB = 1 << 20
THRESHOLD = "MALLOC_MMAP_THRESHOLD_"


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status: expected a line {field}, got none")


def peak_of_step(row: str, arithmetic: str, threads: int) -> dict[str, Any]:
    """MiB of the process before its first whole step, and how far above that the peak is in three steps."""
    torch.set_num_threads(threads)
    workload = WORKLOADS[row]
    training_step(dataclasses.replace(workload, shape=(2, *workload.shape[1:])), arithmetic)()
    step = training_step(workload, arithmetic)
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(3):
        step()
    return {
        "row": row, "what": workload.what, "threads": threads, "arithmetic": arithmetic,
        "before_mib": before / MIB, "peak_mib": (resident("VmHWM") - before) / MIB,
    }  # fmt: skip


def measure(row: str, arithmetic: str, threads: int) -> dict[str, Any]:
    """The same in processes of their own; RuntimeError with the last line of one that fails."""
    result = {}
    for threshold in (None, str(MIB)):
        environment = {key: value for key, value in os.environ.items() if key != THRESHOLD}
        environment |= {THRESHOLD: threshold} if threshold else {}
        command = [sys.executable, __file__, row, arithmetic, "--threads", str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            last = (done.stderr.strip() or "no output").splitlines()[-1]
            raise RuntimeError(f"memory of {row} in {arithmetic}: {last}")
        measured = json.loads(done.stdout.splitlines()[-1])
        result = {**measured, "heap_peak_mib": result.get("peak_mib")} if threshold else measured
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=WORKLOADS)
    parser.add_argument("arithmetic", choices=ARITHMETICS)
    parser.add_argument("--threads", type=positive, default=1)
    args = parser.parse_args()
    print(json.dumps(peak_of_step(args.row, args.arithmetic, args.threads)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
