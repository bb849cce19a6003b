"""Runs of VecQ as their script starts them: stages, files, sizes, resuming, refusals."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import quintil
import torch
from conftest import same_bits
from quintil.cli import train_vecq, vecq_run
from quintil.cli.stage_run import read_checkpoint
from quintil.cli.vecq_config import TwoClassCnnLstm, make_batches
from quintil.models import CnnLstm, lenet5
from quintil.nn.levels import ActivationQuantizer
from quintil.nn.tensor_file import read_tensors

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = "--dataset digits --epochs 1 --batch_size 24 --limit_batches 2 --calibration 48 --threads 1"


def run_of(options: list[str], seed: int = 0) -> train_vecq.VecQRun:
    return train_vecq.run_from(train_vecq.parsed(options), seed)


def train(folder: Path, *more: str) -> Path:
    """Run the options in-process; the run's folder."""
    options = [*OPTIONS.split(), "--results_dir", str(folder), *more]
    assert train_vecq.main(options) == 0
    return run_of(options).folder


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Folders of a float stage, and of what started from it: training, and two without."""
    folder = tmp_path_factory.mktemp("runs")
    first = train(folder, "--stage", "float")
    start = ["--start", str(first.parent)]  # the folder of all seeds
    tuned = train(folder, *start, "--weight_bits", "2", "--activation_bits", "8")
    post = train(folder, *start, "--stage", "post", "--weight_bits", "8")
    calibrated = train(folder, *start, "--stage", "post", "--activation_bits", "6")
    return first, tuned, post, calibrated


def test_stages_leave_their_files(stages):
    names = ["float", "vecq_w2a8", "post_w8a32", "post_w4a6"]
    assert [stage.parent.name for stage in stages] == [f"digits_lenet5_{name}" for name in names]
    kept = {"config.json", "summary.json", "model.safetensors"}
    for stage, label, bits in zip(stages, ("32a32", "2a8", "8a32", "4a6"), (32, 2, 8, 4)):
        epochs = {"last.pt", "log.jsonl", "timing.jsonl"} if bits in (32, 2) else set()
        assert {file.name for file in stage.iterdir()} == kept | epochs
        found, size = summary(stage), (stage / "model.safetensors").stat().st_size
        assert list(found["accuracy"]) == [label] and found["bytes"] == size and found["epochs"] == bool(epochs)
        assert bits / 32 < size / (4 * 1_663_370) < bits / 32 * 1.02 + 0.003  # BatchNorms are float
        if epochs:
            (row,) = map(json.loads, (stage / "log.jsonl").read_text().splitlines())
            assert row["accuracy"] == found["accuracy"] and list(row["loss"]) == [label]
    assert json.loads((stages[3] / "config.json").read_text())["scheme"]["ema_debias"]


def test_files_have_the_accuracy_of_the_summary(stages):
    batches = make_batches(run_of(OPTIONS.split()))
    assert batches.sample_shape == (1, 28, 28)
    for stage in stages[1:]:
        model = quintil.load_quantized(lenet5(), stage / "model.safetensors")
        (accuracy,) = summary(stage)["accuracy"].values()
        assert vecq_run.evaluate(model, batches.test()) == accuracy
        started = [m.averages[2] < 1 for m in model.modules() if isinstance(m, ActivationQuantizer) and m.bits]
        assert all(started) and len(started) == (0 if stage == stages[2] else 4)
    plain, _ = read_tensors(stages[0] / "model.safetensors")
    lenet5().load_state_dict(plain)


def test_a_stage_starts_from_the_values_of_the_one_before(stages, tmp_path):
    before = read_checkpoint(stages[1], "a run of VecQ")["state"]["model"]
    folder = train(tmp_path, "--start", str(stages[1]), "--weight_bits", "3", "--lr", "0")  # of other bits
    after = read_checkpoint(folder, "a run of VecQ")["state"]["model"]
    names = [name for name, _ in lenet5().named_parameters()]
    assert all(torch.equal(after[name], before[name]) for name in names)
    assert not torch.equal(after["0.weight"], lenet5(generator=torch.Generator().manual_seed(0))[0].weight)


def test_other_levels_and_places(stages, tmp_path):
    options = ["--levels", "ul2q", "--activation_place", "before_activation", "--activation_bits", "8"]
    folder = train(tmp_path, "--start", str(stages[0]), "--stage", "post", *options)
    model = quintil.load_quantized(lenet5(), folder / "model.safetensors")
    assert model[0].scheme.levels == "ul2q" and not model[0].integers
    used = [name for name, m in model.named_modules() if isinstance(m, ActivationQuantizer) and m.bits]
    assert used == [f"{place}.input_quantizer" for place in (2, 6, 11)]
    batches = make_batches(run_of(OPTIONS.split()))
    assert summary(folder)["accuracy"] == {"4a8": vecq_run.evaluate(model, batches.test())}


def folder_of(*more: str) -> str:
    return run_of([*OPTIONS.split(), "--start", "x", *more]).folder.parent.name.removeprefix("digits_lenet5_")


@pytest.mark.parametrize(
    "more, name",
    [
        ("", "vecq_w4a32"),
        ("--activation_bits 8 --levels ul2q --per_channel", "vecq_w4a8_per_channel_ul2q"),
        ("--activation_place before_activation --ema_debias", "vecq_w4a32_before_activation_ema_debias"),
        ("--activation_place output --lambda_mode search", "vecq_w4a32_output_search"),
        ("--stage post --float_bias", "post_w4a32_float_bias"),
        ("--stage post --ema_debias", "post_w4a32"),  # which it has always
        ("--stage float --levels ul2q", "float_tuned"),
    ],
)
def test_names_tell_what_differs(more, name):
    assert folder_of(*more.split()) == name


@pytest.mark.parametrize("stage", ["vecq", "post"])
def test_no_two_schemes_share_a_folder(stage):
    """Every field, changed from what the stage has, is another folder."""
    scheme = run_of([*OPTIONS.split(), "--stage", stage, "--start", "x"]).scheme
    changes: dict[str, list] = {
        "weight_bits": [2], "activation_bits": [8], "drive": ["norm", "none"], "momentum": [0.5, 0.99],
        "activation_place": ["output", "before_activation"], "per_channel": [True], "group_size": [4, 8],
        "quantize_bias": [False], "lambda_mode": ["search"], "levels": ["ul2q"], "tie": ["away"],
        "sigma": ["unbiased"], "grad_mode": ["pwl", "pwl_c"], "grad_ratio": [0.25], "ema_debias": [stage == "vecq"],
    }  # fmt: skip
    assert changes.keys() == {field.name for field in dataclasses.fields(scheme)}
    needs = {"tie": {"levels": "ul2q"}, "grad_ratio": {"grad_mode": "pwl"}}
    schemes = [scheme]
    for name, values in changes.items():
        schemes += [dataclasses.replace(scheme, **{name: value}, **needs.get(name, {})) for value in values]
    folders = [train_vecq.VecQRun(stage=stage, scheme=each, start="x").folder for each in schemes]
    assert len(set(folders)) == len(folders)


class Killed(Exception):
    pass


def test_a_stopped_run_ends_with_the_bytes_of_an_uninterrupted_one(tmp_path):
    options = [*OPTIONS.split(), "--epochs", "2", "--activation_bits", "8", "--results_dir"]
    runs = [run_of([*options, str(tmp_path / name)]) for name in ("a", "b")]
    vecq_run.train_vecq(runs[0])

    def kill(row: dict) -> None:
        raise Killed

    with pytest.raises(Killed):
        vecq_run.train_vecq(runs[1], on_epoch=kill)
    assert not (runs[1].folder / "summary.json").exists()
    rows = []
    vecq_run.train_vecq(runs[1], on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == [2]
    for name in ("log.jsonl", "summary.json", "config.json", "model.safetensors"):
        assert (runs[0].folder / name).read_bytes() == (runs[1].folder / name).read_bytes()


@pytest.mark.parametrize(
    "more, message",
    [
        (["--stage", "post"], "VecQRun: expected a checkpoint to start from in the stage post, got none"),
        (["--start", "nowhere"], "read_state: expected nowhere to be a checkpoint, got no file"),
        (["--weight_bits", "17"], "VecQ: expected weight_bits in 1..16, got 17"),
        (["--calibration", "0"], "VecQRun: expected calibration of at least 1, got 0"),
        (["--dataset", "synthetic:har"], "expected images [channels, height, width] for lenet5, got samples [64] of"),
        (["--model", "cnn_lstm"], "expected words [length], int64 for cnn_lstm, got samples [1, 8, 8] of"),
        (["--dataset", "mnist", "--data_root", "nowhere"], "nowhere"),
    ],
)
def test_refused_in_one_line(more, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train_vecq.main([*OPTIONS.split(), *more]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and message in shown and len(shown.splitlines()) == 1


def test_checkpoints_that_do_not_fit(stages, tmp_path, capsys):
    options = [*OPTIONS.split(), "--results_dir", str(tmp_path)]
    assert train_vecq.main([*options, "--model", "vgg_like", "--start", str(stages[0])]) == 1
    assert "to have 0.weight [64, 1, 3, 3], got [32, 1, 5, 5]" in capsys.readouterr().err
    torch.save({"format": 1}, tmp_path / "widths.pt")
    assert train_vecq.main([*options, "--start", str(tmp_path / "widths.pt")]) == 1
    assert "to be a checkpoint of a run of VecQ, got another file" in capsys.readouterr().err
    assert train_vecq.main([*OPTIONS.split(), "--results_dir", str(stages[0].parents[2]), "--stage", "float",
                            "--lr", "1"]) == 1  # fmt: skip
    assert "to hold a run of the same options, got training = " in capsys.readouterr().err


def texts(folder: Path) -> Path:
    """Eight reviews, in IMDB's folders."""
    for side in ("train", "test"):
        for label, word in (("neg", "bad"), ("pos", "good")):
            (folder / "aclImdb" / side / label).mkdir(parents=True)
            for k in range(2):
                (folder / "aclImdb" / side / label / f"{k}_7.txt").write_text(f"a {word} film {k}")
    return folder


def test_texts(tmp_path):
    options = ["--dataset", "imdb", "--model", "cnn_lstm", "--data_root", str(texts(tmp_path))]
    first = train(tmp_path, *options, "--stage", "float")
    folder = train(tmp_path, *options, "--weight_bits", "2", "--activation_bits", "8", "--start", str(first))
    assert summary(folder)["bytes"] / 2**20 == pytest.approx(0.63, rel=0.02)
    net = quintil.load_quantized(CnnLstm(), folder / "model.safetensors")
    twin = quintil.load_quantized(TwoClassCnnLstm(2), folder / "model.safetensors")
    words = torch.randint(0, 20_000, (3, 100))
    with torch.no_grad():
        assert same_bits(twin(words)[:, 1], net(words)) and not twin(words)[:, 0].any()
    with pytest.raises(ValueError, match="^TwoClassCnnLstm: expected 2 classes, got 10$"):
        TwoClassCnnLstm(10)


def test_smoke_and_help(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train_vecq.main(["--smoke", "--epochs", "1"]) == 0
    assert "plan  synthetic:cifar, vgg_like, vecq, VecQ(activation_bits=8)" in capsys.readouterr().out
    (file,) = (tmp_path / "runs" / "smoke").glob("synthetic-cifar_vgg_like_vecq_w4a8/seed0/model.safetensors")
    command = [sys.executable, str(ROOT / "scripts" / "train_vecq.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == ""
    for words in ("--stage post --start RUN", "--smoke", "Results: "):
        assert words in done.stdout


def test_table_of_runs(stages):
    """`scripts/reproduce/vecq_table.py` reads result files alone."""
    folder = stages[0].parents[1]
    script = str(ROOT / "scripts" / "reproduce" / "vecq_table.py")
    done = subprocess.run([sys.executable, script, str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == ""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    assert rows[0] == ["data, model", "stage", "W/A", "seeds", "accuracy", "to float32", "MiB"]
    found = {(row[1], row[2]): row for row in rows[2:]}
    assert list(found) == [("float", "32/32"), ("post", "4/6"), ("post", "8/32"), ("vecq", "2/8")]
    plain, tuned = (summary(stages[place]) for place in (0, 1))
    accuracy, before = tuned["accuracy"]["2a8"], plain["accuracy"]["32a32"]
    size = f"{tuned['bytes'] / 2**20:.2f}"
    want = ["digits_lenet5", "vecq", "2/8", "1", f"{accuracy:.2f}", f"{accuracy - before:+.2f}", size]
    assert found["vecq", "2/8"] == want and found["float", "32/32"][5] == ""
    empty = subprocess.run([sys.executable, script, str(folder / "none")], capture_output=True, text=True, timeout=120)
    assert empty.returncode == 1 and "expected finished runs" in empty.stderr


def test_what_was_fine_tuned_is_paired_with_float32_trained_as_long(tmp_path):
    accuracies = {
        "float": ("32a32", 80.0),
        "float_tuned": ("32a32", 79.0),
        "vecq_w2a8": ("2a8", 78.5),
        "vecq_w2a8_per_channel_ul2q": ("2a8", 79.5),
        "post_w8a32": ("8a32", 79.5),
    }
    for name, (label, accuracy) in accuracies.items():
        for seed, shift in ((0, 0.0), (1, 1.0)):
            folder = tmp_path / f"digits_lenet5_{name}" / f"seed{seed}"
            folder.mkdir(parents=True)
            (folder / "summary.json").write_text(json.dumps({"accuracy": {label: accuracy + shift}, "bytes": 1 << 20}))
    script = str(ROOT / "scripts" / "reproduce" / "vecq_table.py")
    done = subprocess.run([sys.executable, script, str(tmp_path)], capture_output=True, text=True, timeout=120)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]
    assert {(row[1], row[2]): row[5] for row in rows} == {
        ("float", "32/32"): "", ("float_tuned", "32/32"): "-1.00 ± 0.00", ("post", "8/32"): "-0.50 ± 0.00",
        ("vecq", "2/8"): "-0.50 ± 0.00", ("vecq", "2/8 per_channel_ul2q"): "+0.50 ± 0.00",
    }  # fmt: skip


def test_float32_trains_on_in_a_folder_of_its_own_and_validation_never_sees_the_test_side(stages, tmp_path):
    start = str(stages[0].parent)
    shared = ["--dataset", "digits", "--model", "lenet5", "--stage", "float", "--start", start, "--epochs", "1"]
    line = [*shared, "--limit_batches", "2", "--results_dir", str(tmp_path), "--validation", "--threads", "1"]
    assert train_vecq.main(line) == 0
    (found,) = tmp_path.rglob("summary.json")
    assert found.parent.parent.name == "digits_lenet5_float_tuned"
    assert json.loads((found.parent / "config.json").read_text())["validation"] is True
