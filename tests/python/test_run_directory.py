"""What a run leaves behind: files, equal bytes for equal runs, interruptions, repetition, statistics."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import run_python
from quintil import HDQT, metrics
from quintil.continual import Observer, RunConfig, aggregate, run

BASE = RunConfig("synthetic", increment=5, memory_size=60, epochs=2, lr=0.05, batch_size=32, fc_hid_dim=48, threads=1)
DETERMINISTIC = (
    "config.json",
    "metrics.jsonl",
    "summary.json",
    "train_log.csv",
    "acc_matrix_*.csv",
    "confusion_*.npz",
)
EVERYWHERE = HDQT(stochastic=("fw", "fa", "b1w", "b1g", "b2a", "b2g"))
VARIANTS = [  # method, scheme, threads
    ("icarl", None, 1), ("icarl", HDQT(), 1), ("icarl", HDQT.paper(), 1), ("icarl", EVERYWHERE, 1),
    ("icarl_bce", HDQT(), 1), ("finetune", HDQT(), 1), ("joint", HDQT(), 1),
    ("icarl", None, 2), ("icarl", HDQT(), 2),
    ("replay", None, 1), ("er", HDQT(), 1), ("lwf", HDQT(), 1), ("lwf_mc", None, 1), ("wa", HDQT(), 1),
    ("bic", None, 1), ("bic", HDQT(), 1), ("bic", HDQT(), 2),
]  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for pattern in DETERMINISTIC for path in sorted(folder.glob(pattern))}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_files(tmp_path):
    path = run(BASE.replace(results_dir=str(tmp_path), exp_name="e", scheme=HDQT(), eval_every=1))
    assert path == tmp_path / "e" / "synthetic_icarl_B5_Inc5_hdqt_w4a4acc8"
    seed = path / "seed0"
    tables = [f"{kind}_{head}{rest}" for head in ("cnn", "nme") for kind, rest in [("acc_matrix", ".csv")]]
    counts = [f"confusion_{head}_t{t}.npz" for head in ("cnn", "nme") for t in (1, 2, 3)]
    text = ["config.json", "env.json", "metrics.jsonl", "summary.json", "timing.jsonl", "train_log.csv"]
    assert sorted(os.listdir(seed)) == sorted([*text, *tables, *counts, "ckpt"])
    assert os.listdir(seed / "ckpt") == ["last.pt"]
    assert sorted(os.listdir(path)) == ["aggregate.csv", "aggregate.json", "seed0"]

    config = json.loads((seed / "config.json").read_text())
    assert config["task_sizes"] == [5, 5, 2] and sorted(config["class_order"]) == list(range(12))
    assert HDQT.from_dict(config["scheme"]) == HDQT() and config["scheme_label"] == "hdqt_w4a4acc8"
    assert not set(config["subjects_train"]) & set(config["subjects_test"])
    assert {"host", "isa", "torch", "threads", "command"} <= set(json.loads((seed / "env.json").read_text()))

    records, times = lines(seed / "metrics.jsonl"), lines(seed / "timing.jsonl")
    assert [r["task"] for r in records] == [r["task"] for r in times] == [1, 2, 3]
    assert not any("_s" in key for record in records for key in record if key.endswith("_s"))
    for head in ("cnn", "nme"):
        history = [np.load(seed / f"confusion_{head}_t{t}.npz")["counts"] for t in (1, 2, 3)]
        for t, record in enumerate(records, start=1):
            found = metrics.task_metrics(history[:t], [5, 5, 2])
            stored = {key: math.nan if value is None else value for key, value in record[head].items()}
            assert found.pop("per_class") == pytest.approx(stored.pop("per_class"), abs=1e-6)
            assert stored.pop("top5") >= found["acc"] - 1e-6
            assert stored == pytest.approx(found, abs=1e-6, nan_ok=True)
            assert record[f"acc_{head}"] == record[head]["acc"]
        rows = [line.split(",") for line in (seed / f"acc_matrix_{head}.csv").read_text().splitlines()]
        assert rows[0] == ["after_task", "task_1", "task_2", "task_3"] and [len(row) for row in rows] == [4] * 4
        matrix = [[math.nan if cell == "" else float(cell) for cell in row[1:]] for row in rows[1:]]
        np.testing.assert_allclose(matrix, metrics.accuracy_matrix(history, [5, 5, 2]), atol=1e-6)
    summary = json.loads((seed / "summary.json").read_text())
    assert summary["last_acc_cnn"] == records[-1]["acc_cnn"] and summary["last_acc_nme"] == records[-1]["acc_nme"]
    log = (seed / "train_log.csv").read_text().splitlines()
    assert len(log) == 1 + 3 * 2 and float(log[-1].split(",")[-1]) == records[-1]["acc_cnn"]


@pytest.mark.parametrize("method, scheme, threads", VARIANTS)
def test_equal_runs_give_equal_bytes(method, scheme, threads, tmp_path):
    settings = BASE.replace(method=method, scheme=scheme, threads=threads)
    folders = [run(settings.replace(results_dir=str(tmp_path / name))) for name in "ab"]
    first, second = (files(folder / "seed0") for folder in folders)
    assert first == second and len(first) >= 7
    other = run(settings.replace(results_dir=str(tmp_path / "c"), seeds=(1,)))
    assert files(other / "seed1")["metrics.jsonl"] != first["metrics.jsonl"]


def test_equal_bytes_from_another_process(tmp_path):
    settings = "increment=5, memory_size=60, epochs=2, lr=0.05, batch_size=32, fc_hid_dim=48, threads=1"
    code = (
        "import torch; torch.manual_seed(77); torch.rand(5); from quintil import HDQT\n"
        "from quintil.continual import RunConfig, run\n"
        f"run(RunConfig('synthetic', {settings}, scheme=HDQT(), results_dir={str(tmp_path / 'other')!r}))"
    )
    run_python("-c", code, PYTHONHASHSEED="123")
    here = run(BASE.replace(scheme=HDQT(), results_dir=str(tmp_path / "here")))
    there = tmp_path / "other" / "default" / here.name
    assert files(here / "seed0") == files(there / "seed0")


def test_testing_more_often_changes_nothing(tmp_path):
    paths = [run(BASE.replace(scheme=HDQT(), results_dir=str(tmp_path / str(k)), eval_every=k)) for k in (0, 1)]
    assert len({(path / "seed0" / "metrics.jsonl").read_bytes() for path in paths}) == 1


class Recorder(Observer):
    """Notes what happens, and interrupts at the start of one event."""

    def __init__(self, stop: tuple | None = None):
        self.stop, self.events = stop, []

    def note(self, *event) -> None:
        self.events.append(event)
        if event == self.stop:
            raise KeyboardInterrupt

    def on_seed(self, setup):
        self.note("seed", setup.seed)

    def on_skip(self, seed, path):
        self.note("skip", seed)

    def on_epoch(self, task, epoch, log):
        self.note("epoch", task.number, epoch)

    def on_task(self, task, record, timing):
        self.note("task", task.number)

    def on_finish(self, seed, summary):
        self.note("finish", seed)


def test_a_finished_seed_is_kept(tmp_path):
    settings = BASE.replace(results_dir=str(tmp_path), seeds=(3, 5))
    observer = Recorder()
    path = run(settings, observer)
    one = [e for t in (1, 2, 3) for e in (("epoch", t, 1), ("epoch", t, 2), ("task", t))]
    assert observer.events == [("seed", 3), *one, ("finish", 3), ("seed", 5), *one, ("finish", 5)]
    stamps = {file: file.stat().st_mtime_ns for file in path.glob("seed*/*")}
    observer = Recorder()
    assert run(settings.replace(seeds=(5, 3, 4)), observer) == path
    assert [event for event in observer.events if event[0] in ("seed", "skip", "finish")] == [
        ("skip", 5), ("skip", 3), ("seed", 4), ("finish", 4),
    ]  # fmt: skip
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps
    assert json.loads((path / "aggregate.json").read_text())["seeds"] == [3, 4, 5]
    before = files(path / "seed3")
    run(settings.replace(seeds=(3,)), force=True)
    assert (path / "seed3" / "env.json").stat().st_mtime_ns > stamps[path / "seed3" / "env.json"]
    assert files(path / "seed3") == before


@pytest.mark.parametrize(
    "stop, tasks", [(("epoch", 1, 1), 0), (("epoch", 2, 2), 1), (("task", 2), 2), (("task", 3), 3)]
)
def test_interruption_leaves_whole_files(stop, tasks, tmp_path):
    whole = files(run(BASE.replace(results_dir=str(tmp_path / "whole"))) / "seed0")
    settings = BASE.replace(results_dir=str(tmp_path / "cut"))
    with pytest.raises(KeyboardInterrupt):
        run(settings, Recorder(stop))
    seed = settings.directory(12) / "seed0"
    left = files(seed)
    assert not [name for name in os.listdir(seed) if name.endswith(".tmp")]
    for name in ("metrics.jsonl", "train_log.csv"):
        kept = left[name].splitlines(keepends=True) if tasks else []
        assert kept == whole[name].splitlines(keepends=True)[: len(kept)]
        assert len(kept) == {"metrics.jsonl": tasks, "train_log.csv": 2 * tasks + 1 if tasks else 0}[name]
    assert {name for name in left if name.startswith("confusion")} == {
        f"confusion_{head}_t{t}.npz" for head in ("cnn", "nme") for t in range(1, tasks + 1)
    }
    assert left["config.json"] == whole["config.json"] and "summary.json" not in left
    result = metrics.read_run(seed.parent)
    assert result.unfinished == [0] and result.seeds == {}
    with pytest.raises(ValueError, match="^aggregate: expected a finished seed, got only unfinished ones"):
        aggregate(seed.parent)
    assert files(run(settings) / "seed0") == whole


def test_another_configuration_in_the_same_folder_is_refused(tmp_path):
    settings = BASE.replace(results_dir=str(tmp_path), method="finetune")
    path = run(settings)
    before = files(path / "seed0")
    message = (
        r"run: expected .*seed0 to hold a run of the same configuration, got lr = 0.05 instead of 0.1 "
        r"\(differing: lr, momentum; choose another exp_name\)"
    )
    for seeds in ((0,), (1,), (1, 0)):  # also beside it: seeds of one folder are averaged
        with pytest.raises(ValueError, match=message):
            run(settings.replace(lr=0.1, momentum=0.5, seeds=seeds))
    assert files(path / "seed0") == before and not (path / "seed1").exists()
    run(settings.replace(threads=2, exp_name="default"))  # threads and paths are no part of it
    assert run(settings.replace(lr=0.1), force=True) == path
    assert json.loads((path / "seed0" / "config.json").read_text())["lr"] == 0.1
    with pytest.raises(ValueError, match="got lr = 0.1 instead of 0.05"):
        run(settings.replace(seeds=(1,)), force=True)


def test_aggregate(tmp_path):
    path = run(BASE.replace(results_dir=str(tmp_path), seeds=(0, 1, 2)))
    content = json.loads((path / "aggregate.json").read_text())
    summaries = [json.loads((path / f"seed{k}" / "summary.json").read_text()) for k in range(3)]
    for name in ("last_acc_cnn", "avg_inc_acc_nme", "forgetting_class_best_old_cnn"):
        values, found = [summary[name] for summary in summaries], content["summary"][name]
        assert found["mean"] == pytest.approx(np.mean(values), abs=1e-5) and found["n"] == 3
        assert found["std"] == pytest.approx(np.std(values, ddof=1), abs=1e-5)
        half = 4.302653 * found["std"] / math.sqrt(3)
        assert (found["low"], found["high"]) == pytest.approx((found["mean"] - half, found["mean"] + half), abs=1e-4)
    curves = [[r["acc_nme"] for r in lines(path / f"seed{k}" / "metrics.jsonl")] for k in range(3)]
    assert [point["mean"] for point in content["curves"]["acc_nme"]] == pytest.approx(np.mean(curves, 0), abs=1e-5)
    table = (path / "aggregate.csv").read_text().splitlines()
    assert table[0] == "name,mean,std,n,low,high" and len(table) == 1 + len(content["summary"])
    row = next(line for line in table if line.startswith("last_acc_cnn,")).split(",")
    assert float(row[1]) == pytest.approx(content["summary"]["last_acc_cnn"]["mean"], rel=1e-5)
