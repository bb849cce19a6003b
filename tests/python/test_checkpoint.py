"""Checkpoint files: what they hold, what a learner loaded from one predicts, damage, and disks that fill up."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import random
import re
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_same, run_python, same_bits
from quintil import HDQT, DoubleRounding
from quintil.continual import Learner, Observer, RunConfig, load_checkpoint, run
from quintil.continual.checkpoint import digest, read_checkpoint, write_checkpoint
from test_resume import IMAGES, result
from test_run_directory import BASE, files


class Predictions(Observer):
    """Scores of the learner after every task."""

    def __init__(self):
        self.scores, self.memory, self.setup = {}, {}, None

    def on_seed(self, setup):
        self.setup = setup

    def on_task(self, task, record, timing):
        learner = self.setup.learner
        self.scores[task.number] = (task.x_test, learner.scores(task.x_test))
        if learner.memory is not None:
            self.memory[task.number] = (learner.memory.x, learner.memory.y, learner.memory.index)


VARIANTS = [
    dict(), dict(scheme=HDQT(), norm="batch", bias=True), dict(method="finetune", scheme=HDQT.paper()),
    dict(method="icarl_bce"), dict(exemplar_bits=4), dict(exemplar_selection="reservoir"), dict(skip=("head",), scheme=HDQT()),
    dict(**IMAGES, scheme=HDQT(), exemplar_selection="random"),
    dict(scheme=DoubleRounding(skip_ends=False), norm="batch"),
]  # fmt: skip


@pytest.mark.parametrize("self_contained", [False, True])
@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: ",".join(map(str, changes)) or "icarl")
def test_a_loaded_learner_predicts_what_the_run_measured(changes, self_contained, tmp_path):
    settings, seen = (
        BASE.replace(results_dir=str(tmp_path), save_checkpoint="task", self_contained=self_contained, **changes),
        Predictions(),
    )
    path = run(settings, seen) / "seed0"
    config = json.loads((path / "config.json").read_text())
    for task, (x, scores) in seen.scores.items():
        for given in (None, settings):
            learner = load_checkpoint(path / "ckpt" / f"task{task}.pt", given)
            assert isinstance(learner, Learner) and not learner.net.training and learner.heads() == tuple(scores)
            assert learner.class_names == tuple(config["class_names"][label] for label in config["class_order"])
            for head, values in learner.scores(x).items():
                assert same_bits(values, scores[head])
                assert_same(learner.predict(x, head), values.argmax(1))
            if task in seen.memory and (self_contained or given is not None):
                for got, want in zip((learner.memory.x, learner.memory.y, learner.memory.index), seen.memory[task]):
                    assert_same(got, want)
    assert {file.name for file in (path / "ckpt").iterdir()} == {"last.pt", *(f"task{t}.pt" for t in seen.scores)}


def test_contents_are_plain(tmp_path):
    """Only tensors and JSON values; a file can be opened without any class of the package."""
    path = run(BASE.replace(results_dir=str(tmp_path), scheme=HDQT(), norm="batch")) / "seed0/ckpt/last.pt"
    code = f"import sys, torch; c = torch.load({str(path)!r}, weights_only=True); print(*c); assert 'quintil' not in sys.modules"
    keys = run_python("-c", code).split()
    assert {
        "format",
        "version",
        "config",
        "config_hash",
        "seed",
        "task",
        "learner",
        "history",
        "rows",
        "checksum",
    } <= set(keys)
    content = read_checkpoint(path)
    kinds = set()

    def visit(value):
        kinds.add(type(value))
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            visit(item)

    visit(content)
    assert kinds <= {dict, list, str, int, float, bool, type(None), torch.Tensor}
    assert content["learner"]["teacher"] == "net" and content["running"] is None and content["task"] == 3
    assert {"init", "shuffle", "rounding"} <= set(content["learner"]["streams"])
    counts = np.load(path.parents[1] / "confusion_nme_t2.npz")["counts"]
    np.testing.assert_array_equal(content["history"]["nme"][1].numpy(), counts)
    with pytest.raises(TypeError, match=r"expected plain tensors and JSON values, got set \(at checkpoint.a\[1\]\)"):
        write_checkpoint(tmp_path / "x.pt", {"a": [1, {2}]})
    assert not (tmp_path / "x.pt").exists()


def test_sizes(tmp_path):
    """Places are 24 bytes a sample at most; the samples themselves are there only if asked for."""
    sizes = {}
    for contained, bits in ((False, None), (True, None), (True, 4)):
        settings = BASE.replace(
            self_contained=contained, exemplar_bits=bits, results_dir=str(tmp_path / f"{contained}{bits}")
        )
        path = run(settings) / "seed0"
        sizes[contained, bits] = (path / "ckpt/last.pt").stat().st_size
    assert 60 * 64 * 4 <= sizes[True, None] - sizes[False, None] < 60 * 64 * 4 + 2000
    assert 60 * 64 // 2 <= sizes[True, 4] - sizes[False, None] < 60 * 64 // 2 + 3000


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> tuple[RunConfig, bytes, dict]:
    """A run stopped after two of three tasks: its configuration, its checkpoint, and what it should come to."""
    settings = BASE.replace(results_dir=str(tmp_path_factory.mktemp("stopped")), scheme=HDQT())
    whole = result(run(settings.replace(results_dir=str(tmp_path_factory.mktemp("whole")))))
    run(settings, stop_after=2)
    return settings, (settings.directory(12) / "seed0/ckpt/last.pt").read_bytes(), whole


def everything(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def changed(data: bytes, change) -> bytes:
    content = torch.load(io.BytesIO(data), weights_only=True)
    change(content)
    with contextlib.suppress(TypeError):
        content["checksum"] = digest({key: v for key, v in content.items() if key not in ("format", "checksum")})
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def set_at(*keys):
    *path, value = keys

    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


NET = ("learner", "net")
DAMAGED = {
    "empty": (lambda data: b"", "to be a whole checkpoint, got "),
    "half": (lambda data: data[: len(data) // 2], "to be a whole checkpoint, got "),
    "one byte short": (lambda data: data[:-1], "to be a whole checkpoint, got "),
    "text": (lambda data: b"not a checkpoint at all", "to be a whole checkpoint, got UnpicklingError: "),
    "pickled code": (lambda data: changed(data, set_at("learner", "extra", {"code": io.BytesIO})), "got UnpicklingError: "),
    "a model": (lambda data: changed(data, lambda c: c.pop("format")), "to be a checkpoint of quintil, got another file of torch"),
    "format": (lambda data: changed(data, set_at("format", 99)), "to have format 1, got another one"),
    "no streams": (lambda data: changed(data, lambda c: c.pop("rows")), "to hold rows, got "),
    "checksum": (lambda data: data.replace(b"cross-entropy + dist", b"cross-entropy - dist"), "got contents that were changed"),
    "configuration": (lambda data: changed(data, set_at("config", "lr", 9.0)),
                      "to be of the same configuration, got lr = 9.0 instead of 0.05 (differing: lr)"),
    "version": (lambda data: changed(data, set_at("config", "version", "9")), "got version = '9' instead of "),
    "shape": (lambda data: changed(data, set_at(*NET, "backbone.layers.2.weight", torch.zeros(64, 47))),
              "expected tensor backbone.layers.2.weight to be torch.float32 [64, 48], got torch.float32 [64, 47] (in net of "),
    "dtype": (lambda data: changed(data, set_at(*NET, "head.weight", torch.zeros(10, 64).half())),
              "expected tensor head.weight to be torch.float32 [10, 64], got torch.float16 [10, 64] (in net of "),
    "head": (lambda data: changed(data, set_at(*NET, "head.weight", torch.zeros(5, 64))),
             "expected tensor head.weight to be torch.float32 [10, 64], got torch.float32 [5, 64] (in net of "),
    "absent": (lambda data: changed(data, lambda c: c["learner"]["net"].pop("head.weight")), "expected tensor head.weight, got none (in net of "),
    "unknown": (lambda data: changed(data, set_at(*NET, "more", torch.zeros(1))), "expected known tensors, got more (in net of "),
    "memory": (lambda data: changed(data, set_at("learner", "memory", None)), "to fit method icarl, got another memory"),
    "data": (lambda data: changed(data, set_at("learner", "memory", "index", torch.arange(60))),
             "expected the data set of "),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_told_and_loses_nothing(kind, stopped):
    settings, good, whole = stopped
    damage, message = DAMAGED[kind]
    folder = settings.directory(12)
    last = folder / "seed0/ckpt/last.pt"
    bad = damage(good)
    assert bad != good
    last.write_bytes(bad)
    before = everything(folder)
    try:
        for call in (lambda: run(settings), lambda: load_checkpoint(last, settings)):
            with pytest.raises(ValueError, match="^load_checkpoint: expected ") as caught:
                call()
            text = str(caught.value)
            assert message in text and str(last) in text and "\n" not in text
        assert everything(folder) == before
    finally:
        last.write_bytes(good)


def test_every_changed_byte_is_noticed(stopped, tmp_path):
    """A flipped bit gives an error or, in the padding of the file, the same contents; torch alone notices few."""
    settings, good, _ = stopped
    chance, want, path = (
        random.Random(3),
        digest(read_checkpoint(settings.directory(12) / "seed0/ckpt/last.pt")),
        tmp_path / "x.pt",
    )
    noticed = 0
    for _ in range(150):
        data = bytearray(good)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            assert digest(read_checkpoint(path)) == want
        except ValueError as error:
            assert str(path) in str(error)
            noticed += 1
    assert noticed > 100
    with pytest.raises(
        FileNotFoundError, match="^load_checkpoint: expected .*absent.pt to be a checkpoint, got no file$"
    ):
        load_checkpoint(tmp_path / "absent.pt")


def test_a_kept_task_serves_when_the_last_file_is_damaged(tmp_path):
    settings = BASE.replace(results_dir=str(tmp_path), save_checkpoint="task")
    path = run(settings)
    whole, last = result(path), path / "seed0/ckpt/last.pt"
    (path / "seed0/summary.json").unlink()
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(ValueError, match="last.pt to be a whole checkpoint"):
        run(settings)
    assert result(run(settings, start_from=3)) == whole


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> tuple[dict, list[int]]:
    """What a run that keeps every checkpoint comes to, and the sizes of the first two."""
    path = run(BASE.replace(results_dir=str(tmp_path_factory.mktemp("kept")), save_checkpoint="task"))
    return result(path), [(path / f"seed0/ckpt/task{t}.pt").stat().st_size for t in (1, 2)]


@pytest.mark.parametrize("call", [0, 2, 3, 5, 9, 11, 12, 20, 30])
def test_a_disk_that_fills_up(call, kept, tmp_path, monkeypatch):
    """Every write fails from some fsync on: one clear error, nothing finished is lost, and resuming gives the same."""
    settings = BASE.replace(results_dir=str(tmp_path / "cut"), save_checkpoint="task")
    whole, _ = kept
    fsync, calls = os.fsync, 0

    def full(file):
        nonlocal calls
        calls += 1
        if calls > call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            run(settings)
    seed = settings.directory(12) / "seed0"
    left = files(seed)
    rows = left.get("metrics.jsonl", b"").splitlines()
    assert rows == whole["metrics.jsonl"].splitlines()[: len(rows)] and not list(seed.rglob("*.tmp"))
    tasks = [read_checkpoint(path)["task"] for path in sorted(seed.glob("ckpt/*.pt"))]
    assert len(rows) <= max(tasks, default=0)
    assert result(run(settings)) == whole


def test_a_file_that_may_not_grow(kept, tmp_path):
    """RLIMIT_FSIZE below the size of the second checkpoint, in a process of its own."""
    whole, sizes = kept
    assert sizes[0] + 200 < sizes[1]
    code = (
        "import resource; from quintil.continual import run; from test_run_directory import BASE\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({sizes[1] - 100}, {resource.RLIM_INFINITY}))\n"
        f"try: run(BASE.replace(results_dir={str(tmp_path / 'cut')!r}, save_checkpoint='task'))\n"
        "except OSError as error: print(error)"
    )
    said = run_python("-c", code)
    pattern = r"write_checkpoint: expected to write \d+ bytes to .*/ckpt/task2.pt, got File too large \(earlier checkpoints and "
    assert re.match(pattern, said)
    settings = BASE.replace(results_dir=str(tmp_path / "cut"), save_checkpoint="task")
    seed = settings.directory(12) / "seed0"
    assert (
        sorted(os.listdir(seed / "ckpt")) == ["last.pt", "task1.pt"]
        and read_checkpoint(seed / "ckpt/last.pt")["task"] == 1
    )
    assert files(seed)["metrics.jsonl"] == b"".join(whole["metrics.jsonl"].splitlines(keepends=True)[:1])
    assert result(run(settings)) == whole
