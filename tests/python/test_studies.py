"""`quintil study`: arms that differ in one thing, equal seeds, paired numbers, going on after a kill, pooled seeds."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import quintil
import torch
from quintil.cli import main
from quintil.continual import preset
from quintil.continual.run import build_net, prepare
from quintil.continual.streams import Streams
from quintil.experiments import STUDIES, Arm, Study, cells, from_json, pooled, rows, study
from quintil.experiments.run_energy import run_joules
from quintil.metrics import estimate, paired_difference

LINE = "hadamard-ablation --dataset digits --epochs 1 --seeds 2 --arms none"


def command(line: str, capsys) -> tuple[int, str, str]:
    status = main(["study", *line.split()])
    output = capsys.readouterr()
    return status, output.out, output.err


# What is trained ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STUDIES)
def test_every_arm_has_runs_of_its_own_on_equal_seeds(name):
    asked = cells(STUDIES[name], results_dir="r")
    assert len({cell.config.directory(19) for cell in asked}) == len(asked)
    assert len({(cell.dataset, cell.config.seeds) for cell in asked}) == len({cell.dataset for cell in asked})
    known = {arm.label for arm in STUDIES[name].arms}
    assert {label for _, _, label in STUDIES[name].published} <= known | {"HDQT, paper", "HDQT"}


def differing(scheme, base) -> set[str]:
    return {f.name for f in dataclasses.fields(base) if getattr(scheme, f.name) != getattr(base, f.name)}


def test_arms_differ_from_hdqt_in_what_the_study_is_about():
    allowed = {
        "accumulator-sweep": {"accumulator_bits", "tile_size", "backward_tile_size"},
        "hadamard-ablation": {"hadamard", "hadamard_block"},
        "rounding-ablation": {"stochastic"},
        "requantize-ablation": {"requantize", "backward_accumulator_bits"},
        "bit-sweep": {"bits", "accumulator_bits"},
        "learning-rate": set(),
        "hold-one-out": {"accumulator_bits", "backward_accumulator_bits", "weight_gradient_accumulator_bits"},
        "dc-row": {"dc_row", "hadamard_block"},
        "baselines": {"accumulator_bits"},
    }
    for name, fields in allowed.items():
        for arm in STUDIES[name].arms:
            if isinstance(arm.scheme, quintil.HDQT) and "paper" not in arm.label:
                assert differing(arm.scheme, quintil.HDQT()) <= fields, arm.label
    scaled = next(arm.scheme for arm in STUDIES["hadamard-ablation"].arms if arm.label == "paper, none, as published")
    assert differing(scaled, quintil.HDQT.paper()) == {"hadamard"} and scaled.hadamard == "none_scaled"


def test_runs_follow_the_protocol_and_keep_folders_apart():
    own = cells(
        STUDIES["learning-rate"], datasets=["hapt"], learners=["bic-compat"], seeds=3, first_seed=1, data_root="d"
    )
    base = preset("hdqt-hapt")
    assert [c.config.milestones for c in own] == [(), (50,), (), (50,)]
    assert all(c.config.bic_compat and c.config.method == "bic" and c.config.data_root == "d" for c in own)
    assert {c.config.seeds for c in own} == {base.seeds[1:3]}
    assert [c.config.exp_name for c in own] == ["hapt_bic-compat", "hapt_bic-compat_milestones-50"] * 2
    short = cells(STUDIES["learning-rate"], datasets=["hapt"], epochs=20)
    assert [(c.config.epochs, c.config.milestones) for c in short] == [(20, ()), (20, (10,))] * 2
    assert short[0].config.exp_name == "hapt_icarl_20-epochs"


def test_equal_arms_of_two_studies_share_their_runs():
    def default(name: str):
        found = cells(STUDIES[name], datasets=["dsads"], learners=["icarl"], seeds=2)
        return {c.config for c in found if c.arm.scheme == quintil.HDQT() and not c.arm.changes}

    assert default("accumulator-sweep") == default("hadamard-ablation") == default("rounding-ablation")


def test_what_cannot_be_studied(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"study: expected name to be one of .* \(did you mean bit-sweep\?\)"):
        study("bits-sweep")
    with pytest.raises(ValueError, match="expected arms to match one of float32, .*, got 'nonsense'"):
        STUDIES["bit-sweep"].chosen(["nonsense"])
    with pytest.raises(ValueError, match=r"expected first_seed < seeds <= 20 \(the seeds of dsads\), got 0 and 21"):
        cells(STUDIES["bit-sweep"], seeds=21)
    with pytest.raises(ValueError, match="expected dataset to be one of .*, got 'mars'"):
        cells(STUDIES["bit-sweep"], datasets=["mars"])
    with pytest.raises(ValueError, match="expected different labels with 'float32' among them"):
        Study("a", "b", "c", (Arm("x", None), Arm("x", None)))
    for line, said in (
        ("bits-sweep", "error: study: expected name"),
        ("bit-sweep --data_root nowhere", "error: "),
        ("bit-sweep --dataset digits --seeds 0", "error: study: expected first_seed < seeds"),
        ("bit-sweep --dataset digits --pool absent.json", "error: [Errno 2] No such file"),
        ("bit-sweep --dataset digits --epochs 0", "error: RunConfig: expected epochs of at least 1, got 0"),
        ("bit-sweep --dataset digits --workers 0", "error: sweep: expected workers and threads of at least 1"),
    ):
        status, out, err = command(line, capsys)
        assert status == 2 and err.startswith(said) and "Traceback" not in err, line


# What comes out -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One small study, killed in the middle of its runs and started again; its folder and what both starts printed."""
    folder = tmp_path_factory.mktemp("study")
    start = [sys.executable, "-m", "quintil", "study", *LINE.split(), "--workers", "1", "--results_dir", "runs"]
    with (folder / "first.log").open("w") as log:
        first = subprocess.Popen(start, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + 300
        while "1/4" not in (folder / "first.log").read_text() and first.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    kept = sorted(path.relative_to(folder) for path in folder.rglob("summary.json"))
    times = {path: (folder / path).stat().st_mtime_ns for path in kept}
    second = subprocess.run(start, cwd=folder, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    return folder, kept, times, second.stdout


def test_a_killed_study_goes_on_where_it_stopped(finished):
    folder, kept, times, said = finished
    assert 1 <= len(kept) < 4 and all((folder / path).stat().st_mtime_ns == times[path] for path in kept)
    assert f"hadamard-ablation: 4 runs, {len(kept)} finished" in said
    assert len(list(folder.rglob("summary.json"))) == 4


def test_the_numbers_are_those_of_the_runs(finished):
    folder = finished[0]
    values = json.loads((folder / "runs/hadamard-ablation.json").read_text())
    assert values["study"] == "hadamard-ablation" and values["facts"]["isa"] == quintil.active_isa()
    arms = from_json(values)
    assert [(arm.label, arm.dataset, arm.seeds) for arm in arms] == [
        ("float32", "digits", [0, 1]), ("none", "digits", [0, 1]),
    ]  # fmt: skip
    for arm in arms:
        run = next(p for p in folder.glob("runs/*/*") if p.name.endswith("_Inc2") == (arm.label == "float32"))
        own = {
            int(p.parent.name[4:]): json.loads(p.read_text())["last_acc_cnn"] for p in run.glob("seed*/summary.json")
        }
        assert arm.numbers["last_acc_cnn"] == own
    table = rows(STUDIES["hadamard-ablation"], arms)
    float32, none = (arm.numbers["last_acc_cnn"] for arm in arms)
    gap = paired_difference(none, float32)
    assert table[1][2] == str(estimate(list(float32.values()))) and table[1][-1] == ""
    assert table[2][-1] == f"{gap.mean:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"
    page = (folder / "runs/hadamard-ablation.md").read_text()
    assert "| " + " | ".join(table[2]) + " |" in page and "`quintil study hadamard-ablation --dataset digits" in page
    assert (folder / "runs/hadamard-ablation.png").stat().st_size > 5000


def test_seeds_of_two_machines_are_pooled(finished):
    arms = from_json(json.loads((finished[0] / "runs/hadamard-ablation.json").read_text()))
    only = [
        [dataclasses.replace(arm, numbers={n: {s: v[s]} for n, v in arm.numbers.items()}) for arm in arms]
        for s in (0, 1)
    ]
    assert pooled(*only) == arms and pooled(arms, []) == arms
    with pytest.raises(
        ValueError, match=r"expected other seeds in the pooled file, got 1 twice \(digits, icarl, float32\)"
    ):
        pooled(arms, only[1])
    with pytest.raises(ValueError, match="study: expected a file that a study wrote"):
        from_json({"arms": [{"label": "x"}]})


def test_a_failed_run_stops_no_other(finished, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = Path("runs/digits_icarl_1-epochs/digits_icarl_B2_Inc2/seed1/ckpt/last.pt")
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"damage")
    status, out, err = command(f"{LINE} --results_dir runs", capsys)
    assert status == 1 and "digits icarl, float32, seed 1: failed" in out
    assert err.startswith("error: sweep: expected every job to finish, got 1 failed")
    assert len(list(tmp_path.rglob("summary.json"))) == 3
    page = Path("runs/hadamard-ablation.md").read_text()
    assert "| float32 | 1 |" in page and "| none | 2 |" in page and page.strip() in out
    assert "Without 1 runs that failed: digits icarl float32 seed 1: " in page
    arms = json.loads(Path("runs/hadamard-ablation.json").read_text())["arms"]
    assert [len(arm["numbers"]["last_acc_cnn"]) for arm in arms] == [1, 2]


def test_arms_without_a_finished_run_are_left_out(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = "hadamard-ablation --dataset digits --epochs 1 --seeds 1 --arms none binary --results_dir runs"
    assert command(line, capsys)[0] == 0
    scheme = next(
        path for path in Path("runs").glob("*/*hdqt*") if '"none"' in (path / "seed0/config.json").read_text()
    )
    (scheme / "seed0/summary.json").unlink()
    (scheme / "seed0/ckpt/last.pt").write_bytes(b"damage")
    assert command(line, capsys)[0] == 1
    page = Path("runs/hadamard-ablation.md").read_text()
    assert "| binary | 1 |" in page and "| none |" not in page


# Energy -------------------------------------------------------------------------------------------------------------


def test_energy_of_a_run_is_that_of_its_steps():
    """One task: epochs x batches steps of the network with its head; float32 against itself is 1."""
    config = preset("digits").replace(init_cls=10, increment=0, method="joint", epochs=3, batch_size=50, seeds=(4,))
    setup = prepare(config, 4)
    net = build_net(config, setup.dataset, Streams(4))
    net.grow(10, generator=torch.Generator().manual_seed(0))
    x = setup.dataset.transform(setup.dataset.x_train[:50])
    steps = 3 * math.ceil(len(setup.dataset.x_train) / 50)
    for scheme in (None, quintil.HDQT(bits=3, accumulator_bits=6)):
        found = run_joules(config.replace(scheme=scheme))
        step = quintil.energy(net, x, scheme)
        assert found == pytest.approx(
            (steps * step.picojoules() * 1e-12, steps * step.picojoules(float32=True) * 1e-12)
        )
        assert (found[0] == found[1]) == (scheme is None)


def test_more_tasks_train_on_stored_samples_too_and_narrow_codes_take_less():
    config = preset("digits").replace(seeds=(4,))
    float32, wide, narrow = (
        run_joules(config.replace(scheme=s)) for s in (None, quintil.HDQT(bits=8), quintil.HDQT(bits=3))
    )
    assert narrow[0] < wide[0] < float32[0] and wide[1] == narrow[1] == float32[0]
    less = run_joules(config.replace(memory_size=10))
    assert less[0] < float32[0]
    assert run_joules(config.replace(scheme=quintil.LUQ())) is None
    assert run_joules(config.replace(method="der")) is None


@pytest.mark.parametrize("damaged", [1, 2])
def test_no_page_without_a_run_to_compare_with(damaged, capsys, tmp_path, monkeypatch):
    """The reference failed, alone or with every other run."""
    monkeypatch.chdir(tmp_path)
    asked = cells(
        STUDIES["hadamard-ablation"].chosen(["none"]), datasets=["digits"], seeds=1, epochs=1, results_dir="runs"
    )
    for cell in asked[:damaged]:
        bad = cell.config.directory(10) / f"seed{cell.config.seeds[0]}/ckpt/last.pt"
        bad.parent.mkdir(parents=True)
        bad.write_bytes(b"damage")
    line = "hadamard-ablation --dataset digits --epochs 1 --seeds 1 --arms none --results_dir runs"
    status, _, err = command(line, capsys)
    assert status == 1 and err.startswith(f"error: sweep: expected every job to finish, got {damaged} failed")
    assert not Path("runs/hadamard-ablation.md").exists()


def test_places_of_an_axis_stand_in_order_whichever_arms_were_chosen():
    from quintil.experiments.figure import by_number

    assert sorted(["8", "none", "6", "no limit", "10"], key=by_number) == ["6", "8", "10", "none", "no limit"]
    assert sorted(["8/16", "3/6", "10/20"], key=by_number) == ["3/6", "8/16", "10/20"]
