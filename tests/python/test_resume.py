"""Resuming gives the bytes of an uninterrupted run, wherever the run was stopped and however [CIL 7]."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from conftest import run_python
from killed_runs import CONFIG
from own_learners import Moving, Remembering
from quintil import FP134, HDQT, LUQ
from quintil.continual import Observer, RunConfig, run
from quintil.continual.arguments import add_arguments
from quintil.continual.checkpoint import digest, read_checkpoint
from quintil.continual.load import stored_config
from quintil.continual.registry import _LEARNERS
from quintil.continual.train import train
from quintil.metrics import read_run
from test_run_directory import BASE, EVERYWHERE, files
from test_scripts import HAR, finished, start

HERE = Path(__file__).resolve().parent
IMAGES = dict(
    dataset="synthetic:cifar", model="resnet20", increment=10, memory_size=40, limit_batches=1, fc_hid_dim=None
)
VARIANTS = [
    dict(), dict(scheme=HDQT()), dict(scheme=EVERYWHERE, norm="batch"), dict(scheme=HDQT.paper(), bias=True),
    dict(method="icarl_bce", scheme=HDQT()), dict(method="finetune"), dict(method="joint", scheme=HDQT()),
    dict(threads=4), dict(scheme=HDQT(), threads=4),
    dict(exemplar_bits=4, exemplar_selection="random"), dict(exemplar_selection="reservoir", self_contained=True),
    dict(**IMAGES, scheme=HDQT(), exemplar_selection="random"),
    dict(**IMAGES, scheme=HDQT(), exemplar_selection="random", fuse=True), dict(bit_widths=(8, 4), fc_nr_hid=2),
    dict(scheme=LUQ(accumulator_bits=8)), dict(scheme=FP134("fp130", full=True, hysteresis=True)),
    dict(**IMAGES, scheme=LUQ(), exemplar_selection="random"),
    dict(**IMAGES, scheme=FP134(), exemplar_selection="random"),
]  # fmt: skip
LEARNERS = [
    dict(method="replay"), dict(method="er", scheme=HDQT()), dict(method="er", exemplar_bits=8), dict(method="lwf"),
    dict(method="lwf_mc"), dict(method="wa", scheme=HDQT()), dict(method="bic", scheme=HDQT()),
    dict(method="bic", exemplar_bits=8, bic_layers="per_task"), dict(method="bic", bic_compat=True),
    dict(method="der", scheme=HDQT()), dict(method="memo", norm="batch"), dict(method="lucir", scheme=HDQT()),
    dict(method="eeil", noise_grad=True), dict(method="gdumb", scheme=HDQT()),
    dict(method="bic", scheme=LUQ()), dict(method="eeil", scheme=FP134()), dict(method="lucir", scheme=FP134(full=True)),
]  # fmt: skip


def result(path: Path, seed: int = 0) -> dict:
    """Bytes of all deterministic files of a seed, and a checksum of the learner in its last checkpoint."""
    content = read_checkpoint(path / f"seed{seed}" / "ckpt" / "last.pt")
    kept = {name: content[name] for name in ("task", "learner", "history", "running")}
    return {**files(path / f"seed{seed}"), "log": digest(content["rows"]["log"]), "last.pt": digest(kept)}


class Stop(Observer):
    """Interrupts at the n-th question of the learner whether it should: after batches, epochs and tasks."""

    def __init__(self, questions: int):
        self.left, self.resumed = questions, None

    def on_seed(self, setup):
        setup.learner.interrupted = self.ask

    def on_resume(self, setup, task, epochs, path):
        self.resumed = (task, epochs)

    def ask(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("changes", VARIANTS + LEARNERS, ids=lambda changes: ",".join(map(str, changes)) or "icarl")
def test_stopping_after_every_task(changes, tmp_path):
    settings = BASE.replace(**changes)
    whole = result(run(settings.replace(results_dir=str(tmp_path / "whole"))))
    tasks = len(json.loads(whole["config.json"])["task_sizes"])
    for stop in range(1, tasks + 1):
        settings = settings.replace(results_dir=str(tmp_path / str(stop)))
        path = run(settings, stop_after=stop)
        assert len((path / "seed0" / "metrics.jsonl").read_text().splitlines()) == stop
        assert (path / "aggregate.json").is_file() == (stop == tasks)
        observer = Stop(10**9)
        assert result(run(settings, observer)) == whole
        assert observer.resumed == ((stop, 0) if stop < tasks else None)


@pytest.mark.parametrize(
    "changes",
    [
        dict(scheme=HDQT()),
        dict(scheme=LUQ()),
        dict(scheme=FP134(full=True, hysteresis=True)),
        dict(norm="layer"),
        dict(**{**IMAGES, "limit_batches": 2}, exemplar_selection="random", eval_every=1),
        dict(method="er"), dict(method="bic", scheme=HDQT()), dict(method="bic", bic_compat=True),
        dict(method="der", scheme=HDQT()), dict(method="lucir"), dict(method="eeil", noise_grad=True),
        dict(method="gdumb"),
    ],  # fmt: skip
)
def test_interrupting_between_batches(changes, tmp_path):
    """Again and again, with the epoch, its order, optimiser, schedule and streams in the checkpoint."""
    settings = BASE.replace(milestones=(1,), **changes)
    whole = result(run(settings.replace(results_dir=str(tmp_path / "whole"))))
    settings, stops, resumed = settings.replace(results_dir=str(tmp_path / "cut")), 0, []
    while True:
        # er stops between epochs only, gdumb has few batches: they are asked less often
        observer = Stop({"er": 1, "gdumb": 2}.get(settings.method, 8 if "dataset" not in changes else 2))
        try:
            path = run(settings, observer)
        except KeyboardInterrupt:
            stops += 1
            continue
        finally:
            resumed.append(observer.resumed)
        break
    assert result(path) == whole and stops >= 3
    assert resumed[0] is None and resumed[1:] == sorted(resumed[1:])


def test_state_of_a_learners_own(tmp_path, monkeypatch):
    monkeypatch.setitem(_LEARNERS, "remembering", Remembering)
    settings = BASE.replace(method="remembering")
    whole = result(run(settings.replace(results_dir=str(tmp_path / "whole"))))
    for questions in (3, 20, 40):
        settings = settings.replace(results_dir=str(tmp_path / str(questions)))
        with pytest.raises(KeyboardInterrupt):
            run(settings, Stop(questions))
        assert result(run(settings)) == whole


@pytest.mark.parametrize("self_contained", [False, True])
def test_a_memory_that_changes_inside_epochs(self_contained, tmp_path, monkeypatch):
    monkeypatch.setitem(_LEARNERS, "moving", Moving)
    settings = BASE.replace(method="moving", epochs=4, self_contained=self_contained)
    whole = result(run(settings.replace(results_dir=str(tmp_path / "whole"))))
    for questions in (1, 6, 7, 12):
        settings, observer = settings.replace(results_dir=str(tmp_path / str(questions))), Stop(10**9)
        with pytest.raises(KeyboardInterrupt):
            run(settings, Stop(questions))
        assert result(run(settings, observer)) == whole and observer.resumed is not None


def killed(folder: Path, *arguments: str) -> list[dict]:
    return [json.loads(line) for line in run_python(str(HERE / "killed_runs.py"), str(folder), *arguments).splitlines()]


def check_nothing_finished_is_lost(rows: list[dict]) -> None:
    """A child goes on after every task that an earlier one reported or wrote to metrics.jsonl."""
    done = 0
    for row in rows:
        resumed = [task for kind, task in row["told"] if kind == "resumed"]
        assert (resumed[0] if resumed else 0) >= done or not row["told"], rows
        done = max([done, row["lines"], *(task for _, task in row["told"])])


def whole_and(folder: Path, name: str) -> tuple[dict, dict]:
    return tuple(result(CONFIG.replace(results_dir=str(folder / each)).directory(12)) for each in ("whole", name))


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_at_random_moments(seed, tmp_path):
    rows = killed(tmp_path, "clock", str(seed))
    check_nothing_finished_is_lost(rows)
    whole, cut = whole_and(tmp_path, "cut")
    assert cut == whole and sum(not row["ended"] for row in rows) >= 1


def test_kill_at_renames(tmp_path):
    """Instants before and after a file of the run gets its name, from the first to the last."""
    places = list(range(1, 82, 5))
    rows = killed(tmp_path, "rename", *map(str, places))
    for place in places:
        mine = [row for row in rows if row["folder"].endswith(f"/{place}")]
        check_nothing_finished_is_lost(mine)
        whole, cut = whole_and(tmp_path, str(place))
        assert cut == whole, f"place {place}"
        assert not list((tmp_path / str(place)).glob("*/*/seed0/**/*.tmp"))
    assert [row["ended"] for row in rows] == [False, True] * len(places)


def test_interrupt_from_the_terminal(tmp_path):
    """Ctrl-C finishes the batch, leaves `last.pt` inside a task, status 130; the same command goes on."""
    line = "--smoke --epochs 20 --quant hdqt --threads 1 --results_dir".split()
    process = start(HAR, *line, "cut", folder=tmp_path)
    seed = tmp_path / "cut/smoke/synthetic_icarl_B2_Inc2_hdqt_w4a4acc8/seed0"
    deadline = time.monotonic() + 120
    while not (seed / "ckpt/last.pt").is_file():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    status, _, errors = finished(process)
    assert (status, errors.strip()) == (130, "stopped; what is finished is kept, the same command goes on from here")
    content = read_checkpoint(seed / "ckpt/last.pt")
    assert 1 <= content["task"] < 6 and not list(seed.rglob("*.tmp"))
    status, output, errors = finished(start(HAR, *line, "cut", folder=tmp_path))
    assert (status, errors) == (0, "") and f"goes on after task {content['task']}" in output
    settings = stored_config(content["config"]).replace(results_dir=str(tmp_path / "whole"), threads=1)
    assert result(seed.parent) == result(run(settings))


def test_start_from_and_stop_after(tmp_path):
    settings = BASE.replace(results_dir=str(tmp_path), save_checkpoint="task")
    path = run(settings)
    whole, checkpoints = result(path), path / "seed0" / "ckpt"
    assert sorted(os.listdir(checkpoints)) == ["last.pt", "task1.pt", "task2.pt", "task3.pt"]
    assert (checkpoints / "task3.pt").read_bytes() == (checkpoints / "last.pt").read_bytes()
    run(settings, start_from=2, stop_after=2)
    assert sorted(os.listdir(checkpoints)) == ["last.pt", "task1.pt", "task2.pt"]
    assert read_run(path).unfinished == [0] and len(files(path / "seed0")["metrics.jsonl"].splitlines()) == 2
    assert not (path / "seed0" / "confusion_cnn_t3.npz").exists()
    assert result(run(settings)) == whole
    for first in (1, 2, 3):
        assert result(run(settings, start_from=first)) == whole
    (checkpoints / "task1.pt").unlink()
    for options, error, message in [
        (dict(start_from=2), FileNotFoundError, "run: expected .*task1.pt to start from task 2, got no file \\(kept after tasks: 2, 3;"),
        (dict(start_from=4), ValueError, "run: expected start_from in 1..3, got 4$"),
        (dict(stop_after=0), ValueError, "run: expected stop_after in 1..3, got 0$"),
        (dict(start_from=3, stop_after=2), ValueError, "run: expected start_from of at most stop_after, got 3 and 2$"),
        (dict(start_from=3, force=True), ValueError, "run: expected start_from without force, got 3 and force$"),
    ]:  # fmt: skip
        with pytest.raises(error, match=f"^{message}"):
            run(settings, **options)
    assert result(path) == whole


def test_options_of_the_command_line(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for options, said in [
        ("--stop_after 1", "stopped after task 1 as asked; without --stop_after the command goes on"),
        ("--stop_after 2", "goes on after task 1 ("),
        ("--resume false --stop_after 1", "stopped after task 1 as asked"),
        ("", "goes on after task 1 ("),
        ("", "already finished, kept"),
        ("--start_from 2", "error: run: expected "),
    ]:
        status = train(parser.parse_args(options.split()), BASE.replace(results_dir=str(tmp_path)))
        printed = capsys.readouterr()
        assert said in printed.out + printed.err and status == (2 if said.startswith("error") else 0)
    assert not list(tmp_path.glob("*/*/seed0/ckpt/task*.pt"))


def test_start_from_an_interrupted_task(tmp_path):
    """`last.pt` inside task 2 also serves to train task 2 from its start."""
    settings = BASE.replace(results_dir=str(tmp_path / "cut"))
    whole = result(run(settings.replace(results_dir=str(tmp_path / "whole"))))
    with pytest.raises(KeyboardInterrupt):
        run(settings, Stop(50))
    content = read_checkpoint(settings.directory(12) / "seed0/ckpt/last.pt")
    assert content["task"] == 1 and content["running"]["epoch"] == 1
    assert result(run(settings, start_from=2)) == whole


def test_without_resuming(tmp_path):
    """save_checkpoint none leaves nothing to go on from; resume=False and force start again."""
    whole = result(run(BASE.replace(results_dir=str(tmp_path / "whole"))))
    for save, options in (("none", {}), ("last", dict(resume=False)), ("task", dict(force=True))):
        settings = BASE.replace(results_dir=str(tmp_path / save), save_checkpoint=save)
        path = run(settings, stop_after=2)
        assert (path / "seed0" / "ckpt").exists() == (save != "none")
        observer = Stop(10**9)
        run(settings.replace(save_checkpoint="last"), observer, **options)
        assert observer.resumed is None and result(path) == whole


def test_what_may_change_and_what_may_not(tmp_path):
    settings = BASE.replace(results_dir=str(tmp_path), method="finetune", threads=2)
    path = run(settings, stop_after=1)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    changed = settings.replace(lr=0.1, exemplar_bits=8)
    with pytest.raises(ValueError, match=r"got exemplar_bits = None instead of 8 \(differing: exemplar_bits, lr;"):
        run(changed)
    moved = RunConfig(**{**vars(settings), "results_dir": str(tmp_path / "moved"), "threads": 1, "data_root": "x"})
    (tmp_path / "moved").mkdir()
    os.rename(tmp_path / "default", tmp_path / "moved" / "default")
    assert {file.relative_to(path): data for file, data in before.items()} == {
        file.relative_to(moved.directory(12)): file.read_bytes() for file in moved.directory(12).rglob("*") if file.is_file()
    }  # fmt: skip
    observer = Stop(10**9)
    run(moved.replace(save_checkpoint="task", self_contained=True), observer)
    assert observer.resumed == (1, 0)
    assert re.fullmatch(r"[0-9a-f]{64}", read_checkpoint(moved.directory(12) / "seed0/ckpt/task3.pt")["config_hash"])
