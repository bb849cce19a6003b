"""Runs in child processes that are killed with SIGKILL, for test_resume.py; prints one JSON line per child.

usage: killed_runs.py FOLDER clock SEED     kill after random times, until a child ends by itself
       killed_runs.py FOLDER rename N ...   kill just before (even N) or after (odd N) the (N // 2)-th rename, once
                                            per N, each in a folder of its own, then let a child finish it

The children are forked from a process that has run the whole thing once on one thread, into FOLDER/whole, so that
none of them imports anything: torch loads much on first use.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from quintil import HDQT
from quintil.continual import Observer, RunConfig, run

CONFIG = RunConfig(
    "synthetic", increment=3, memory_size=60, epochs=2, lr=0.05, batch_size=32, fc_hid_dim=48, threads=1,
    scheme=HDQT(), save_checkpoint="task",
)  # fmt: skip


class Teller(Observer):
    """Writes what is finished and where a run goes on to a pipe at once."""

    def __init__(self, pipe: int):
        self.pipe = pipe

    def tell(self, kind: str, task: int) -> None:
        os.write(self.pipe, f"{kind} {task}\n".encode())

    def on_resume(self, setup, task, epochs, path):
        self.tell("resumed", task)

    def on_task(self, task, record, timing):
        self.tell("finished", task.number)


def kill_at_rename(place: int) -> None:
    """Replace os.replace by one that kills this process at its (place // 2)-th call."""
    replace, calls = os.replace, 0

    def counted(*names) -> None:
        nonlocal calls
        if calls == place // 2 and place % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*names)
        if calls == place // 2:
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1

    os.replace = counted


def child(folder: Path, *, delay: float | None = None, rename: int | None = None) -> bool:
    """Run CONFIG in a child, killed after a time or at a rename; returns whether it ended by itself."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        if rename is not None:
            kill_at_rename(rename)
        run(CONFIG.replace(results_dir=str(folder)), Teller(writing))
        os._exit(0)
    os.close(writing)
    if delay is not None:
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    with os.fdopen(reading) as pipe:
        told = [line.split() for line in pipe.read().splitlines()]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    metrics = [len(path.read_text().splitlines()) for path in folder.rglob("metrics.jsonl")]
    row = {"ended": status == 0, "told": [[kind, int(task)] for kind, task in told], "lines": sum(metrics)}
    print(json.dumps({"folder": str(folder), **row}), flush=True)
    return status == 0


def main(folder: Path, kind: str, numbers: list[int]) -> None:
    torch.set_num_threads(1)
    for _ in range(2):
        start = time.perf_counter()
        run(CONFIG.replace(results_dir=str(folder / "whole")), force=True)
        seconds = time.perf_counter() - start
    if kind == "clock":
        chance = random.Random(numbers[0])
        longest = 0.4 * seconds
        while not child(folder / "cut", delay=chance.uniform(0.0, longest)):
            longest *= 1.2  # also on a machine that has grown slower a child gets through at last
        return
    for number in numbers:
        if not child(folder / str(number), rename=number):
            assert child(folder / str(number))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], [int(text) for text in sys.argv[3:]])
