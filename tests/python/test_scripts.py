"""The scripts as processes: help, tiny runs, exit statuses, one clear line for an error, and Ctrl-C."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PACKAGE_ROOT, heed_ctrl_c, run_python
from data_trees import hapt_tree
from PIL import Image
from quintil.continual import RunConfig, demo
from quintil.continual.arguments import add_arguments
from quintil.continual.train import train
from quintil.metrics import FORMULAS, read_run

ROOT = Path(__file__).resolve().parents[2]
HAR, CIFAR = (str(ROOT / "scripts" / f"train_{name}.py") for name in ("har", "cifar100"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), "MPLBACKEND": "Agg"}


def start(*arguments: str, folder: Path) -> subprocess.Popen:
    """A script in its own folder."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=ENVIRONMENT,
        preexec_fn=heed_ctrl_c,
    )


def finished(process: subprocess.Popen) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=240)
    return process.returncode, output, errors


def test_help(tmp_path):
    for process in [start(script, "--help", folder=tmp_path) for script in (HAR, CIFAR)]:
        status, output, errors = finished(process)
        assert status == 0 and errors == ""
        for word in ("--quant", "--smoke", "--data_root", "--memory_size", "--force", "seed<k>", *FORMULAS):
            assert word in output
        assert output.startswith("usage: train_") and len(output.splitlines()[0]) < 60


def test_sensor_run_on_the_publishers_files(tmp_path):
    """A small copy of HAPT's files: float32 and HDQT, the table with their paired difference, a repetition."""
    hapt_tree(tmp_path / "data")
    options = "--dataset hapt_raw --data_root data --epochs 2 --seed 1 2 --threads 1 --init_cls 4 --increment 4"
    status, output, errors = finished(start(HAR, *options.split(), folder=tmp_path))
    assert (status, errors) == (0, "")
    assert "plan  hapt_raw, icarl (cross-entropy + distillation (CE + KD)), float32" in output
    assert "of shape [216] (216 statistics of the raw signals), split hdqt" in output
    assert "task 3/3  classes 0-10 | CNN " in output and "NME" in output and "| forget(old best) " in output
    status, output, errors = finished(start(HAR, *options.split(), "--quantMethod", "ours", folder=tmp_path))
    assert (status, errors) == (0, "")
    assert "hdqt_w4a4acc8 − float32  nearest-mean head  2 " in output
    experiment = tmp_path / "runs" / "default"
    for name in ("hapt_raw_icarl_B4_Inc4", "hapt_raw_icarl_B4_Inc4_hdqt_w4a4acc8"):
        assert sorted(read_run(experiment / name).seeds) == [1, 2] and f"runs/default/{name}" in output + name
    assert "![Accuracy" in (experiment / "report.md").read_text()
    with Image.open(experiment / "hapt_raw_icarl_B4_Inc4_acc.png") as image:
        image.load()
    status, output, errors = finished(start(HAR, *options.split(), folder=tmp_path))
    assert status == 0 and output.count("already finished, kept") == 2 and "task 1/3" not in output


def test_smoke_runs(tmp_path):
    short = "--smoke --epochs 1 --limit_batches 1 --method finetune --threads 1".split()
    status, output, errors = finished(start(CIFAR, *short, folder=tmp_path))
    assert (status, errors) == (0, "") and "CifarResNet, 64 features, 269,072 parameters" in output
    assert sorted(read_run(tmp_path / "runs/smoke/synthetic-cifar_finetune_B10_Inc10").seeds) == [0]
    status, output, errors = finished(start(HAR, "--smoke", folder=tmp_path))
    assert (status, errors) == (0, "") and "FCNet" in output
    assert sorted(read_run(tmp_path / "runs/smoke/synthetic_icarl_B2_Inc2").seeds) == [0]


@pytest.mark.parametrize(
    "script, line, message",
    [
        (HAR, "--dataset dsads --data_root nowhere", "error: dsads: expected nowhere/dsads/data/a01/p1/s01.txt to exist"),
        (CIFAR, "--data_root nowhere", "error: cifar100: expected "),
        (HAR, "--smoke --memory_sise 3", "train_har.py: error: unrecognized arguments: --memory_sise 3"),
        (HAR, "--smoke --milestones fifty", "error: argument --milestones: expected integers, got 'fifty'"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_one_line_and_status_two(script, line, message, tmp_path):
    status, output, errors = finished(start(script, *line.split(), folder=tmp_path))
    told = [row for row in errors.splitlines() if not row.startswith("usage: ")]
    assert status == 2 and output == "" and len(told) == 1 and message in told[0], errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line, message",
    [
        ("--method nocl", "run: expected a single task for method offline, got 6 (give init_cls 12 and increment 0)"),
        ("--device cuda", "config_from: expected device to be cpu, got 'cuda'"),
        ("--dataset custom:absent.npz", "custom: expected "),
        ("--dataset sinthetic", "load: expected name to be one of "),
        ("--results_dir file/below", "[Errno 20] Not a directory: "),
        ("--lr 1e9 --method joint", "train_epoch: expected a finite loss, got "),
        ("--memory_size 3", "ExemplarMemory: expected size of at least one sample per class, got 3 (12 classes)"),
        ("--model resnet32", "build_net: expected samples [3, height, width] for resnet32, got [64] (data set synthetic)"),
        ("--in_dim 63", "build_net: expected in_dim to equal the values per sample of synthetic, got 63 and 64 "),
        ("--init_cls 13", "task_sizes: expected init_cls in 1..12, got 13 (number of classes 12)"),
    ],
)  # fmt: skip
def test_errors_of_a_run(line, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert train(parser.parse_args(line.split()), RunConfig("synthetic", init_cls=2, epochs=3, lr=0.01)) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("error: " + message)


def test_interrupt(tmp_path):
    process = start(HAR, *"--smoke --epochs 400 --seed 0 1 --quant hdqt".split(), folder=tmp_path)
    seed = tmp_path / "runs/smoke/synthetic_icarl_B2_Inc2_hdqt_w4a4acc8/seed0"
    deadline = time.monotonic() + 120
    while not (seed / "metrics.jsonl").is_file():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    status, _, errors = finished(process)
    assert status == 130, errors
    assert errors.strip() == "stopped; what is finished is kept, the same command goes on from here"
    records = [json.loads(line) for line in (seed / "metrics.jsonl").read_text().splitlines()]
    assert 1 <= len(records) < 6 and [r["task"] for r in records] == list(range(1, len(records) + 1))
    names = sorted(os.listdir(seed))
    assert [name for name in names if name.startswith("confusion_cnn")] == [
        f"confusion_cnn_t{t}.npz" for t in range(1, len(records) + 1)
    ]
    assert "summary.json" not in names and not any(name.endswith(".tmp") for name in names)
    status, output, errors = finished(start(HAR, *"--smoke --quant hdqt".split(), folder=tmp_path))
    assert status == 2 and "got epochs = 400 instead of 3" in errors  # the folder belongs to the other setting


def test_demo(tmp_path, monkeypatch, capsys):
    status, output, errors = finished(start("-m", "quintil.continual.demo", "--seed", "5", folder=tmp_path))
    assert (status, errors) == (0, "")
    assert output.startswith("setting: the preset digits in full\n") and "hdqt_w4a4acc8 − float32" in output
    runs = [read_run(tmp_path / "runs/demo" / f"digits_icarl_B2_Inc2{s}") for s in ("", "_hdqt_w4a4acc8")]
    last = [run.seeds[5].summary["last_acc_nme"] for run in runs]
    assert min(last) > 75 and (tmp_path / "runs/demo/report.md").is_file()
    monkeypatch.chdir(tmp_path)
    assert demo.main(["--seed", "5", "--resume"]) == 0
    assert capsys.readouterr().out.count("already finished, kept") == 2
    assert demo.main(["--dataset", "dsads", "--data-root", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: dsads: expected ")


@pytest.mark.parametrize("module", ["quintil", "quintil.continual", "quintil.data", "quintil.metrics"])
def test_import_is_light(module):
    """Nothing that only plots, reads files of data sets or shows progress is loaded before it is needed."""
    code = (
        "import sys, time, torch; known = set(sys.modules); start = time.process_time()\n"
        f"import {module}\n"
        "print(time.process_time() - start, *{name.split('.')[0] for name in set(sys.modules) - known})"
    )
    seconds, *loaded = run_python("-c", code).split()
    assert float(seconds) < 1.0
    assert not {"matplotlib", "sklearn", "scipy", "tqdm", "rich", "PIL"} & set(loaded)
