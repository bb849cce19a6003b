"""Data-parallel training: two processes under torchrun do what one does, with rounding streams of their own."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import two_processes
from conftest import PACKAGE_ROOT
from quintil.continual import learner_names, run
from quintil.continual.distributed import anywhere, rank, share, summed, world_size
from quintil.data.batches import batch_sizes

HERE = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PACKAGE_ROOT)}


def torchrun(*words, cwd, check=True):
    done = subprocess.run(
        [*TORCHRUN, *map(str, words)], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Run directories of all learners trained by two processes, and what each process noted."""
    folder = tmp_path_factory.mktemp("two")
    torchrun(HERE / "two_processes.py", folder, cwd=folder)
    return folder, [json.loads((folder / f"rank{k}.json").read_text()) for k in range(2)]


def log(path):
    with (path / "seed3/train_log.csv").open() as file:
        return [{name: float(v) for name, v in row.items() if v} for row in csv.DictReader(file)]


def single(tmp_path, name):
    (config,) = [c for c in two_processes.configurations(str(tmp_path)) if c.method == name and c.scheme is None]
    return run(config)


@pytest.mark.parametrize("name", learner_names())
def test_the_loss_curve_is_that_of_one_process(together, tmp_path, name):
    alone = single(tmp_path, name)
    ours, theirs = log(together[0] / alone.relative_to(tmp_path)), log(alone)
    assert len(ours) == len(theirs) >= 2
    for mine, reference in zip(ours, theirs):
        assert mine.keys() == reference.keys()
        assert mine["loss"] == pytest.approx(reference["loss"], rel=2e-4)
        assert (mine["lr"], mine["replayed"]) == (reference["lr"], reference["replayed"])


def test_all_processes_hold_the_same_net(together):
    first, second = (notes["digests"] for notes in together[1])
    assert len(first) == len(learner_names()) + 4
    assert first == second


def test_rounding_streams_differ_between_processes_and_epochs(together):
    first, second = (notes["draws"] for notes in together[1])
    assert len(first) == len(second) > 20
    assert not set(first) & set(second)
    assert len(set(second[:4])) == 4  # tasks x epochs of one learner


def test_only_the_first_process_writes_and_both_are_named(together):
    for environment in together[0].glob("runs/*/seed3/env.json"):
        assert json.loads(environment.read_text())["processes"] == 2
    assert not list(together[0].rglob("*.tmp"))


DIGITS = ("-m", "quintil", "train", "--preset", "digits", "--seed", "0", "--epochs", "3", "--quant", "hdqt")


def test_a_stopped_run_goes_on_with_the_same_bytes(tmp_path):
    whole = torchrun(*DIGITS, "--exp_name", "whole", cwd=tmp_path)
    torchrun(*DIGITS, "--exp_name", "parts", "--stop_after", 2, cwd=tmp_path)
    torchrun(*DIGITS, "--exp_name", "parts", cwd=tmp_path)
    files = [tmp_path / f"runs/{name}/digits_icarl_B2_Inc2_hdqt_w4a4acc8/seed0" for name in ("whole", "parts")]
    for name in ("metrics.jsonl", "train_log.csv", "summary.json"):
        assert files[0].joinpath(name).read_bytes() == files[1].joinpath(name).read_bytes()
    assert whole.stdout.count("task 5/5") == 1  # one process speaks
    assert "Warning" not in whole.stderr


def test_what_cannot_be_run_ends_every_process_and_says_why(tmp_path):
    done = torchrun("-m", "quintil", "train", "--preset", "digits", "--memory_size", 0, cwd=tmp_path, check=False)
    assert done.returncode != 0
    text = "error: icarl: expected memory_size of at least 1, got 0"
    said = [line.split(text)[0] for line in done.stderr.splitlines() if text in line]
    # torchrun stops the others once one has ended, maybe before they speak
    assert said and len(said) == len(set(said)) and set(said) <= {"", "process 1: "}


def test_a_killed_process_ends_the_others_and_loses_no_finished_task(tmp_path):
    words = [*TORCHRUN, *DIGITS[:-2], "--epochs", "60", "--exp_name", "killed"]
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as p:
        metrics = tmp_path / "runs/killed/digits_icarl_B2_Inc2/seed0/metrics.jsonl"
        deadline = time.monotonic() + 120
        while not metrics.is_file() and time.monotonic() < deadline:
            time.sleep(0.02)
        children = Path(f"/proc/{p.pid}/task/{p.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        assert p.wait(timeout=120) != 0
    before = metrics.read_text().splitlines()
    torchrun(*DIGITS[:-2], "--epochs", 60, "--exp_name", "killed", cwd=tmp_path)
    assert metrics.read_text().splitlines()[: len(before)] == before
    assert len(metrics.read_text().splitlines()) == 5


def test_without_a_group_nothing_is_shared():
    batch = torch.arange(5)
    assert (world_size(), rank()) == (1, 0)
    assert share(batch) is batch and share(None) is None
    assert summed(batch) is batch
    assert anywhere(True) and not anywhere(False)


@pytest.mark.parametrize(
    "samples, least, sizes",
    [(10, 2, [4, 4, 2]), (9, 2, [4, 5]), (10, 4, [4, 6]), (11, 4, [4, 7]), (12, 4, [4, 4, 4]), (3, 4, [3])],
)
def test_a_last_batch_too_small_for_every_process_joins_its_neighbour(samples, least, sizes):
    assert batch_sizes(samples, 4, least) == sizes
