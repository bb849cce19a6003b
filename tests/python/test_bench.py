"""The benchmarks of whole steps as processes on tiny rows, and their arithmetic of times."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from conftest import run_python
from PIL import Image

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.append(str(SCRIPTS))

import bench_common  # noqa: E402
import bench_draw  # noqa: E402
import bench_growth  # noqa: E402
import bench_ops  # noqa: E402
import bench_step  # noqa: E402
import bench_widths  # noqa: E402

STEP = str(SCRIPTS / "bench_step.py")


def test_calls_take_turns():
    """Each round starts with another call; a call with few repeats takes part in the first rounds only."""
    seen = []
    calls = {name: lambda name=name: seen.append(name) for name in "abc"}
    times = bench_common.interleaved(calls, {"a": 4, "b": 4, "c": 1})
    assert {name: len(taken) for name, taken in times.items()} == {"a": 4, "b": 4, "c": 1}
    assert (seen.count("a"), seen.count("c")) == (bench_common.WARM_UP + 4, 2)
    first_of_timed = seen[bench_common.WARM_UP * 2 + 1 :]
    assert first_of_timed == [*"abc", *"ba", *"ab", *"ab"]


def test_ratios():
    assert bench_common.ratios([2.0, 3.0, 9.0], [4.0, 4.0]) == {"ratio": 0.5, "ratio_median": 0.625}


def test_surprise_is_growth_beyond_the_work():
    assert bench_growth.surprise([1, 2, 4], [8.0, 4.0, 2.0], 0) == (1.0, 1)
    assert bench_growth.surprise([2, 4, 8], [4.0, 16.0, 192.0], 2) == (3.0, 8)


def test_rows(tmp_path):
    """Two repeats of the smallest row: JSON, table and pictures; the same table from the stored numbers."""
    out, picture = tmp_path / "step.json", tmp_path / "step.svg"
    options = "--rows linear_128x256x256 --threads 1 --repeats 2 --markdown".split()
    output = run_python(STEP, *options, "--out", str(out), "--plot", str(picture))
    result = json.loads(out.read_text())
    assert {"cpu", "isa", "torch", "commit", "load"} <= set(result["machine"])
    assert result["defaults"]["hadamard_block"] == 64
    (row,) = result["rows"]
    sides = ["hdqt", "layers", "paper", "best", "float32", "bfloat16", "simulation"]
    assert list(row["sides"]) == sides and row["threads"] == 1
    for side, numbers in row["sides"].items():
        assert 0 < numbers["ms"] <= numbers["median_ms"] and numbers["repeats"] == 2
        if side != "hdqt":
            assert numbers["ratio"] == pytest.approx(row["sides"]["hdqt"]["ms"] / numbers["ms"])
    table = bench_draw.markdown(result)
    assert output.endswith(table) and table.count("\n") == 3 and "simulation, 1 thread" in table
    with Image.open(picture.with_suffix(".png")) as image:
        image.load()
    assert picture.read_text().count("<svg") == 1


def test_growth_and_stored_numbers(tmp_path, capsys):
    out = tmp_path / "growth.json"
    options = "--growth --curves width --largest 48 --threads 1 --repeats 2 --out".split()
    assert bench_step.main([*options, str(out)]) == 0
    (curve,) = json.loads(out.read_text())["growth"]
    assert curve["sizes"] == [32, 48] and len(curve["sides"]["float32"]["us_per_sample"]) == 2
    capsys.readouterr()
    assert bench_step.main(["--read", str(out), "--markdown", "--plot", str(tmp_path / "growth")]) == 0
    assert capsys.readouterr().out.startswith("| step | grows with | threads | HDQT, at worst |")
    assert (tmp_path / "growth.png").is_file() and (tmp_path / "growth.svg").is_file()


def test_a_compiler_that_fails_is_named(monkeypatch):
    def fails(model):
        raise RuntimeError("No working C++ compiler found in\n$CXX\n\nand a long explanation")

    monkeypatch.setattr(bench_step.torch, "compile", fails)
    row = bench_step.measure_row("linear_128x256x256", 1, ["float32", "compile"], 1)
    assert list(row["sides"]) == ["hdqt", "float32"]
    assert row["skipped"] == {"compile": "RuntimeError: No working C++ compiler found in $CXX"}


def test_check_complains_about_limits(tmp_path, capsys):
    row = {"row": "a", "what": "A", "threads": 2, "sides": {"hdqt": {"ms": 3.0}}}
    row["sides"]["float32"] = {"ms": 1.0, "ratio": 3.0, "limit": 1.5}
    stored = tmp_path / "step.json"
    stored.write_text(json.dumps({"rows": [row]}))
    assert bench_step.main(["--read", str(stored)]) == 0
    assert bench_step.main(["--read", str(stored), "--check"]) == 1
    message = "error: a, 2 threads: expected a ratio to float32 of at most 1.5, got 3.000\n"
    assert capsys.readouterr().err == message


def test_widths(tmp_path, capsys):
    """One row measured, stored and shown; limits hold for the row that has them."""
    out = tmp_path / "widths.json"
    options = ["--rows", "resnet20_b1", "--threads", "1", "--repeats", "1", "--out", str(out), "--check"]
    assert bench_widths.main(options) == 0
    result = json.loads(out.read_text())
    (row,) = result["rows"]
    sides = [f"{width} bits{how}" for width in (8, 6, 4, 2) for how in ("", ", layers")]
    assert list(row["sides"]) == ["float32", "float32 folded", *sides] and result["switches"] == []
    assert all(side["ms"] > 0 and side["ratio"] > 0 for side in row["sides"].values())
    capsys.readouterr()
    row.update(row="resnet20_b64")
    row["sides"]["8 bits"].update(ratio_median=1.4, ms=5.0)
    row["sides"]["4 bits"]["ms"] = 6.0
    out.write_text(json.dumps(result))
    assert bench_widths.main(["--read", str(out), "--check"]) == 1
    shown = capsys.readouterr()
    assert "1.40 (5.00 ms)" in shown.out
    assert "8 bits 1.40 x" in shown.err and "4 bits slower than 8" in shown.err


def test_a_switch_is_measured_against_a_copy():
    row = bench_widths.measure_switch("resnet20_b1", 1, 1)
    assert list(row["sides"]) == ["copy", "to 4 bits", "to 2 bits", "to 8 bits"] and "0.3 M weights" in row["what"]
    assert row["sides"]["copy"]["ratio"] == 1.0


@pytest.mark.parametrize("name", ["vecq_weights", "vecq_search", "lenet5", "lenet5_folded"])
def test_rows_of_vecq(name):
    """The calls do what the rows say: 11.7 million weights, logits of 64 images."""
    ours, other = (call() for call in bench_ops.ROWS[name].build())
    if name.startswith("lenet5"):
        assert ours.shape == other.shape == (64, 10) and ours.is_inference()
        assert (ours - other).abs().mean() < 0.1 * other.abs().mean()
    else:
        weights = [p for p in bench_ops.preact_resnet18(1000).parameters() if p.dim() > 1]
        assert 11e6 < sum(p.numel() for p in weights) < 12e6 and len(ours) == len(other) == len(weights)


def test_limits_of_ratio_and_time():
    row = bench_ops.Row(lambda: None, "", 1, limit=2.0, longest_ms=10.0)
    for ratio, ms, found in ((2.0, 10.0, False), (2.1, 1.0, True), (0.5, 11.0, True)):
        assert bench_ops.missed(row, {"ratio": ratio, "quintil_ms": ms}) == found
    assert not bench_ops.missed(bench_ops.Row(lambda: None, "", 1), {"ratio": 99.0, "quintil_ms": 99.0})


def test_memory_of_a_step():
    """Gradients and momentum of 65,792 parameters at least."""
    output = run_python(str(SCRIPTS / "bench_memory.py"), "linear_128x256x256", "hdqt")
    numbers = json.loads(output)
    assert numbers["arithmetic"] == "hdqt" and 0.5 < numbers["peak_mib"] < 50 < numbers["before_mib"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--read absent.json --markdown", "error: [Errno 2] No such file or directory: 'absent.json'"),
        ("--read other.json --markdown", "error: expected numbers of bench_step.py with one of rows, growth, memory"),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text('{"machine": {}}')
    assert bench_step.main(arguments.split()) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--repeats 0", "error: argument --repeats: expected a whole number of at least 1, got '0'"),
        ("--growth --memory", "error: argument --memory: not allowed with argument --growth"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        bench_step.main(arguments.split())
    assert stopped.value.code == 2 and capsys.readouterr().err.splitlines()[-1].endswith(message)
