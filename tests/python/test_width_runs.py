"""Runs over widths and the search for widths, as their scripts start them: stages, files, resuming, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import quintil
import torch
from PIL import Image
from quintil.bits import get_bits
from quintil.cli import search_result, search_widths, train_widths, width_run
from quintil.cli.width_run import read_state, restored_model
from quintil.nn import SwitchableBatchNorm2d

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = "--dataset digits --bits 4,2 --epochs 2 --batch_size 24 --limit_batches 2 --trace_images 24 --trace_draws 1"


def train(folder: Path, *more: str) -> Path:
    """Run the options in-process; the run's folder."""
    options = [*OPTIONS.split(), "--results_dir", str(folder), "--threads", "1", *more]
    assert train_widths.main(options) == 0
    return train_widths.run_from(train_widths.parsed(options), 0).folder


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Folders of a float stage, and of a multi and a mixed one started from it."""
    folder = tmp_path_factory.mktemp("runs")
    first = train(folder, "--stage", "float")
    second = train(folder, "--start", str(first))
    third = train(folder, "--stage", "mixed", "--start", str(second), "--mix_warmup", "0", "--lr", "1e-3")
    return first, second, third


def test_stages_leave_their_files(stages):
    names = [
        "digits_resnet20_float",
        "digits_resnet20_multi_double_rounding_w42",
        "digits_resnet20_mixed_double_rounding_w42",
    ]
    assert [stage.parent.name for stage in stages] == names
    for stage, widths in zip(stages, (["32"], ["4", "2"], ["4", "2"])):
        files = {"config.json", "last.pt", "log.jsonl", "summary.json", "timing.jsonl", "traces.json"}
        assert {file.name for file in stage.iterdir()} == files
        rows = [json.loads(line) for line in (stage / "log.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in rows] == [1, 2]
        assert all(list(row["accuracy"]) == list(row["loss"]) == widths for row in rows)
        summary = json.loads((stage / "summary.json").read_text())
        assert summary["accuracy"] == rows[-1]["accuracy"] and summary["epochs"] == 2
        assert summary["best_mean_accuracy"] >= summary["mean_accuracy"]
    traces = [json.loads((stage / "traces.json").read_text()) for stage in stages]
    assert traces[0] == traces[1] == traces[2] and len(traces[0]) == 22
    config = json.loads((stages[2] / "config.json").read_text())
    assert config["scheme"]["transitional_norm"] and config["training"]["sampling"] == "hasb"


def test_the_last_epoch_is_tested(tmp_path):
    folder = train(tmp_path, "--stage", "float", "--epochs", "3", "--test_every", "2", "--trace_images", "0")
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert ["accuracy" in row for row in rows] == [False, True, True]


def test_a_stage_starts_from_the_values_of_the_one_before(stages, tmp_path):
    state = read_state(stages[1])["state"]["model"]
    options = ["--stage", "mixed", "--start", str(stages[1]), "--lr", "0", "--epochs", "1"]
    after = read_state(train(tmp_path, *options))["state"]["model"]
    assert all(
        torch.equal(after[key], value) for key, value in state.items() if "running" not in key and "num_" not in key
    )
    assert "stages.0.0.bn2.norms.4_2.weight" in after
    model = restored_model(read_state(stages[2]), 10, 1)
    assert get_bits(model)["stages.0.0.conv1"] == 4 and isinstance(model.bn, SwitchableBatchNorm2d)
    with torch.no_grad():
        assert quintil.set_bits(model.eval(), 2)(torch.rand(2, 1, 8, 8)).isfinite().all()


@pytest.mark.parametrize("method", ["double_rounding", "lsq"])
def test_where_weight_steps_start(method):
    options = [*OPTIONS.split(), "--method", method, "--bits", "4"]
    given = (options, [*options, "--weight_init", "vecq"])
    runs = [train_widths.run_from(train_widths.parsed(each), 0) for each in given]
    assert [run.scheme.weight_init for run in runs] == ["lsq", "vecq"] and runs[0].scheme.bits == (4,)


class Killed(Exception):
    pass


def test_a_stopped_run_ends_with_the_bytes_of_an_uninterrupted_one(tmp_path, monkeypatch):
    options = [*OPTIONS.split(), "--distillation", "previous_epoch", "--results_dir"]
    runs = [train_widths.run_from(train_widths.parsed([*options, str(tmp_path / name)]), 0) for name in ("a", "b")]
    width_run.train_widths(runs[0])

    def kill(row: dict) -> None:
        raise Killed

    with pytest.raises(Killed):
        width_run.train_widths(runs[1], on_epoch=kill)
    assert not (runs[1].folder / "summary.json").exists()
    rows = []
    width_run.train_widths(runs[1], on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == [2]
    for name in ("log.jsonl", "summary.json", "config.json"):
        assert (runs[0].folder / name).read_bytes() == (runs[1].folder / name).read_bytes()
    a, b = (read_state(run.folder)["state"]["model"] for run in runs)
    assert all(torch.equal(a[key], value) for key, value in b.items())


def test_finished_runs_are_kept_and_other_options_refused(stages, capsys):
    folder = stages[0].parents[2]
    before = (stages[0] / "timing.jsonl").read_bytes()
    train(folder, "--stage", "float")
    assert (stages[0] / "timing.jsonl").read_bytes() == before
    shown = capsys.readouterr().out
    assert "plan  digits, resnet20, float" in shown and "seed 0  accuracy  w32" in shown
    options = [*OPTIONS.split(), "--results_dir", str(folder), "--stage", "float"]
    assert train_widths.main([*options, "--lr", "1"]) == 1
    assert "to hold a run of the same options, got training = " in capsys.readouterr().err
    train(folder, "--stage", "float", "--force")
    assert (stages[0] / "timing.jsonl").read_bytes() != before


@pytest.mark.parametrize(
    "more, message",
    [
        (["--stage", "mixed"], "expected a checkpoint to start from with sampling hasb, got none"),
        (["--start", "nowhere"], "read_state: expected nowhere to be a checkpoint, got no file"),
        (["--bits", "9,2"], "DoubleRounding: expected bits to be different widths in 1..8, the highest at least 2"),
        (["--dataset", "hapt_raw", "--data_root", "nowhere"], "nowhere"),
        (["--dataset", "synthetic:har"], "make_batches: expected images [channels, height, width], got samples [64]"),
        (["--dataset", "photos:nowhere"], "PhotoBatches: expected nowhere to hold train/ and val/, got no folder"),
        (["--method", "lsq"], "baseline: expected one width for lsq, got (4, 2)"),
    ],
)
def test_refused_in_one_line(more, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train_widths.main([*OPTIONS.split(), *more]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and message in shown and len(shown.splitlines()) == 1


def test_a_checkpoint_of_other_widths_is_refused(stages, tmp_path, capsys):
    options = [*OPTIONS.split(), "--stage", "mixed", "--start", str(stages[1]), "--bits", "8,4"]
    assert train_widths.main([*options, "--results_dir", str(tmp_path)]) == 1
    assert (
        "to be of DoubleRounding(bits=(8, 4), transitional_norm=True), got DoubleRounding(bits=(4, 2),"
        in capsys.readouterr().err
    )
    (tmp_path / "broken.pt").write_bytes(b"no")
    torch.save({"format": 7}, tmp_path / "other.pt")
    for name, words in (("broken.pt", "to be a whole checkpoint"), ("other.pt", "of a run over widths, got another")):
        with pytest.raises(ValueError, match=words):
            read_state(tmp_path / name)


def test_photographs_train_too(tmp_path):
    for side in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / "data" / side / label).mkdir(parents=True)
            for k in range(2):
                Image.fromarray(np.full((40, 50, 3), 40 * k, np.uint8)).save(
                    tmp_path / "data" / side / label / f"{k}.png"
                )
    options = [
        "--dataset",
        f"photos:{tmp_path / 'data'}",
        "--image_size",
        "32",
        "--epochs",
        "1",
        "--model",
        "mobilenet_v2",
    ]
    folder = train(tmp_path, *options, "--activation_offset")
    assert json.loads((folder / "summary.json").read_text())["accuracy"].keys() == {"4", "2"}


# Search -----------------------------------------------------------------------------------------------------------


def search(run: Path, *more: str) -> dict:
    out = run / "search.json"
    out.unlink(missing_ok=True)
    assert search_widths.main([str(run), *more]) == 0
    found = json.loads(out.read_text())
    out.unlink()
    return found


def test_search(stages, capsys):
    found = search(stages[2], "--mean_bits", "3", "--no_pool", "--recalibrate", "1")
    (row,) = found["candidates"]
    assert found["front"] == [0] and row["mean_bits"] == 3.0 and 0 <= row["accuracy"] <= 100
    assert [row["mean_bits"] for row in found["uniform"]] == [4.0, 2.0]
    assert set(row["bits"]) == set(found["layers"]) == set(found["traces"]) and len(found["layers"]) == 20
    shown = capsys.readouterr().out
    assert "1 candidates over 20 layers" in shown
    assert f"    3.000  {row['judged']:9.2f}  {row['accuracy']:8.2f}  " in shown
    assert (stages[2] / "search.png").is_file() and (stages[2] / "search.svg").is_file()
    model = restored_model(read_state(stages[2]), 10, 1)
    quintil.set_bits(model, row["bits"])


def test_training_images_choose_and_the_test_side_reports(stages, monkeypatch):
    """The test side is read for the front and the uniform widths alone, unless it is told to choose."""
    sides = []
    real = search_result.evaluate
    monkeypatch.setattr(search_result, "evaluate", lambda model, side: sides.append(type(side)) or real(model, side))
    found = search(stages[1], "--mean_bits", "2.5", "3", "--judge_images", "48")
    tests = len(found["front"]) + len(found["uniform"])
    assert (
        sides.count(list) == len(found["candidates"]) + len(found["uniform"])
        and len(sides) - sides.count(list) == tests
    )
    assert sum("accuracy" in row for row in found["candidates"]) == len(found["front"]) < len(found["candidates"])
    sides.clear()
    found = search(stages[1], "--mean_bits", "3", "--no_pool", "--judge_images", "0")
    assert list not in sides and found["candidates"][0]["judged"] == found["candidates"][0]["accuracy"]


def test_budgets_of_a_search(stages, tmp_path, capsys):
    latency = {
        layer: {"4": 2.0, "2": 1.0}
        for layer in search(stages[1], "--mean_bits", "3", "--no_pool", "--no_test")["layers"]
    }
    (tmp_path / "latency.json").write_text(json.dumps(latency))
    limits = ["--model_bytes", "80000", "--mac_bits", "1e7", "--table", "latency", str(tmp_path / "latency.json"), "30"]
    found = search(stages[1], *limits, "--no_pool", "--no_test")
    used = found["candidates"][0]["used"]
    assert used.keys() == {"model bytes", "MACs x bits", "latency"}
    assert used["latency"] <= 30 and used["model bytes"] <= 80000 and found["front"] == []
    pool = search(stages[1], "--sweep", "2.5", "3.5", "0.5", "--no_test")["candidates"]
    assert {row["mean_bits"] for row in pool} == {2.5, 3.0, 3.5} and len(pool) > 20
    for more, message in (
        ([], "search: expected --mean_bits, --sweep or a budget, got none"),
        (["--model_bytes", "10"], "allocate: expected model bytes of at least 6"),
        (["--sweep", "4", "3", "1"], "search: expected sweep as FROM <= TO and STEP > 0, got [4.0, 3.0, 1.0]"),
    ):
        capsys.readouterr()
        assert search_widths.main([str(stages[1]), "--no_test", *more]) == 1
        assert message in capsys.readouterr().err


def test_a_search_needs_traces(stages, tmp_path, capsys):
    shutil.copy(stages[1] / "last.pt", tmp_path / "last.pt")
    assert search_widths.main([str(tmp_path), "--mean_bits", "3"]) == 1
    assert "traces.json (a float stage writes it), got no file" in capsys.readouterr().err
    (tmp_path / "some.json").write_text('{"conv1": 1.0}')
    assert search_widths.main([str(tmp_path), "--mean_bits", "3", "--traces", str(tmp_path / "some.json")]) == 1
    assert "expected a trace of every quantised layer, got none of 'stages.0.0.conv1'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        search_widths.main([])


@pytest.mark.parametrize("name", ["train_double_rounding", "search_bits"])
def test_help_teaches(name):
    command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == ""
    for words in ("python scripts/search_bits.py RUN --mean_bits", "--smoke", "Results: "):
        assert words in done.stdout


def test_smoke(tmp_path, monkeypatch, capsys):
    """A search trains two stages for itself; nothing is needed."""
    monkeypatch.chdir(tmp_path)
    assert search_widths.main(["--smoke", "--no_pool"]) == 0
    shown = capsys.readouterr().out
    assert "plan  synthetic:cifar, resnet20, float" in shown and "plan  synthetic:cifar, resnet20, multi" in shown
    (found,) = (tmp_path / "runs" / "smoke_search").glob("*_multi_*_w842/seed0/search.json")
    assert f"results {found.relative_to(tmp_path)}" in shown


def test_table_of_runs(stages):
    """`scripts/reproduce/width_table.py` reads result files alone."""
    folder = stages[0].parents[1]
    assert search_widths.main([str(stages[2]), "--mean_bits", "3", "--no_pool"]) == 0
    searched = json.loads((stages[2] / "search.json").read_text())
    found, uniform = searched["candidates"][0]["accuracy"], searched["uniform"][-1]["accuracy"]
    script = str(ROOT / "scripts" / "reproduce" / "width_table.py")
    done = subprocess.run([sys.executable, script, str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == ""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    assert rows[0] == ["run", "seeds", "float32", "w4a4", "w2a2"]
    accuracy = json.loads((stages[1] / "summary.json").read_text())["accuracy"]
    assert [
        "digits_resnet20_multi_double_rounding_w42",
        "1",
        "",
        f"{accuracy['4']:.2f}",
        f"{accuracy['2']:.2f}",
    ] in rows
    assert ["digits_resnet20_mixed_double_rounding_w42/seed0", "3.000", f"{found:.2f}"] in rows
    assert rows[-1] == ["all layers the same", "2", f"{uniform:.2f}"]
    (stages[2] / "search.json").unlink()
    empty = subprocess.run([sys.executable, script, str(folder / "none")], capture_output=True, text=True, timeout=120)
    assert empty.returncode == 1 and "expected finished runs" in empty.stderr
