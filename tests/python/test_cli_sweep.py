"""`quintil sweep`: which jobs it makes, what it refuses before the first one, resuming, failures, the report."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import quintil
from quintil.cli import main, sweep
from quintil.cli.sweep import configs_of, parser
from quintil.continual import preset
from quintil.metrics import read_run

SHORT = "--epochs 1 --memory_size 24 --init_cls 6 --increment 6 --limit_batches 2"


def configured(line: str):
    return configs_of(parser().parse_args(line.split()))


def command(line: str, capsys) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `quintil sweep LINE`."""
    try:
        status = main(["sweep", *line.split()])
    except SystemExit as caught:
        status = caught.code
    output = capsys.readouterr()
    return status, output.out, output.err


# Which jobs ---------------------------------------------------------------------------------------------------------


def test_the_product_in_order():
    """Every data set starts from its own preset, every learner from what the preset says about it."""
    found = configured("--dataset digits hapt --method icarl bic --quant none hdqt hdqt-paper --seed 3 4 --epochs 7")
    assert [(c.dataset, c.method, c.scheme) for c in found] == [
        (dataset, method, scheme)
        for dataset in ("digits", "hapt")
        for method in ("icarl", "bic")
        for scheme in (None, quintil.HDQT(), quintil.HDQT.paper())
    ]
    shared = {"seeds": (3, 4), "epochs": 7, "threads": 1}
    assert found[0] == preset("digits").replace(**shared)
    assert found[-1] == preset("hdqt-hapt", "bic").replace(**shared, scheme=quintil.HDQT.paper())
    assert found[-1].bic_compat and not found[3].bic_compat


def test_one_value_each_is_what_train_would_run():
    assert configured("--preset pycil-b0-inc10 --method finetune") == [
        preset("pycil-b0-inc10", "finetune").replace(threads=1)
    ]
    assert configured("--dataset pamap --threads 2") == [preset("hdqt-pamap2").replace(threads=2)]


def test_options_of_a_scheme_concern_the_runs_that_have_one(capsys):
    assert [c.scheme for c in configured("--dataset digits --quant none hdqt noq --bits 5")] == [
        None, quintil.HDQT(bits=5), None,
    ]  # fmt: skip
    status, _, said = command("--dataset digits --bits 5", capsys)
    assert status == 2 and said == "error: config_from: expected quant to be hdqt with bits, got none\n"


def test_config_file_with_lists(tmp_path):
    content = {
        "dataset": ["digits", "synthetic"],
        "quant": ["none", "ours"],
        "seed": [1, 2],
        "workers": 3,
        "method": "wa",
    }
    (tmp_path / "s.json").write_text(json.dumps(content))
    (tmp_path / "s.yaml").write_text(
        "dataset: [digits, synthetic]\nquant:\n  - none\n  - ours\nseed: [1, 2]\nworkers: 3\nmethod: wa\n"
    )
    for name in ("s.json", "s.yaml"):
        args = parser().parse_args(["--config", str(tmp_path / name)])
        assert (args.dataset, args.method, args.quant) == (["digits", "synthetic"], ["wa"], ["none", "ours"])
        assert (args.seeds, args.workers, len(configs_of(args))) == ((1, 2), 3, 4)
        args = parser().parse_args(["--quant", "hdqt", "--config", str(tmp_path / name), "--seed", "5"])
        assert (args.dataset, args.quant, args.seeds) == (["digits", "synthetic"], ["hdqt"], (5,))


# Refused before anything runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, message",
    [
        ("", "error: train: expected --preset or --dataset, got neither (presets: b50-inc10, "),
        ("--dataset digits --method icarl icral", "error: find_learner: expected method to be one of bic, "),
        ("--dataset digits digitz", "error: load: expected name to be one of cifar100, "),
        ("--dataset digits --quant none luc", "argument --quant/--quantMethod/-qmethod: invalid choice: 'luc'"),
        ("--dataset digits --workers 0", "argument --workers: expected an integer of at least 1, got '0'"),
        ("--dataset digits --threads 0", "error: RunConfig: expected threads of at least 1, got 0"),
        ("--dataset digits --works 2", "unrecognized arguments: --works 2 (did you mean --workers?)"),
        ("--dataset digits --method finetune icarl --memory_size 0",
         "error: icarl: expected memory_size of at least 1, got 0 (the method trains on stored exemplars) (in digits icarl "
         "float32 seed 0)"),
        ("--dataset digits synthetic --init_cls 11", "error: task_sizes: expected init_cls in 1..10, got 11 "),
        ("--dataset digits --stop_after 9", "error: run: expected stop_after in 1..5, got 9 (in digits icarl float32 seed 0)"),
        ("--dataset custom:absent.npz", "error: custom: expected absent.npz to exist, got nothing there"),
        ("--dataset digits --method offline nocl --init_cls 10 --increment 0",
         "error: sweep: expected a folder of its own for every configuration, got runs/default/digits_offline_B10_Inc0 for two "
         "(digits offline float32 seed 0 and digits offline float32 seed 0)"),
        ("--dataset digits --quant hdqt hdqt-paper --paper_compat", "error: sweep: expected a folder of its own for every "),
    ],
)  # fmt: skip
def test_refused(line, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, out, err = command(line, capsys)
    assert (status, out) == (2, "") and message in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


# Runs ---------------------------------------------------------------------------------------------------------------


def test_failure_resume_and_report(tmp_path, monkeypatch, capsys):
    """A damaged checkpoint ends its own job alone; once it is gone the same command does just that job."""
    monkeypatch.chdir(tmp_path)
    line = f"--dataset synthetic --method finetune icarl --seed 0 1 {SHORT} --exp_name a --workers 2"
    bad = Path("runs/a/synthetic_icarl_B6_Inc6/seed1/ckpt/last.pt")
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"damage")
    status, out, err = command(line, capsys)
    assert status == 1 and "sweep  2 configurations, 4 jobs\n" in out
    assert err.splitlines() == [
        "error: sweep: expected every job to finish, got 1 failed",
        f"  synthetic icarl float32 seed 1: ValueError: load_checkpoint: expected {bad} to be a whole checkpoint, got "
        f"{err.split('whole checkpoint, got ')[1].rstrip()}",
    ]
    assert {row.split()[0] for row in out.splitlines() if " seed " in row} == {"1/4", "2/4", "3/4", "4/4"}
    finished = [sorted(read_run(Path(f"runs/a/synthetic_{method}_B6_Inc6")).seeds) for method in ("finetune", "icarl")]
    assert finished == [[0, 1], [0]]
    titles = [f"synthetic, {method}, 2 tasks (6, 6 classes)" for method in ("finetune", "icarl")]
    report = Path("runs/a/report.md").read_text()
    assert all(title in report and title in out.splitlines() for title in titles)
    assert out.endswith("\nreport: runs/a/report.html, runs/a/report.md\n")

    def written() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in Path("runs").rglob("metrics.jsonl")}

    before = written()
    bad.unlink()
    status, out, err = command(f"{line} --dry-run", capsys)
    assert (status, err, written()) == (0, "", before) and "4 jobs, 3 finished already\n" in out
    assert "  begun     synthetic icarl float32 seed 1\n" in out and out.count("  finished  ") == 3
    status, out, err = command(f"{line} --workers 1", capsys)
    assert (status, err) == (0, "") and "\n1/1  synthetic icarl float32 seed 1  last CNN " in out
    after = written()
    assert after.keys() - before.keys() == {str(bad.parents[1] / "metrics.jsonl")}
    assert before.items() <= after.items()


def test_what_the_workers_are_given(tmp_path, monkeypatch, capsys):
    """Workers, threads, Ray and the options of going on reach the jobs; too many threads are told."""
    given = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "sweep", lambda configs, **options: given.update(options, configs=configs))
    cores = os.cpu_count() or 1
    status, out, _ = command(f"--dataset digits --workers {cores} --threads 3 --stop_after 2 --resume false", capsys)
    assert status == 0 and f"  note: {cores} x 3 threads on {cores} cores wait for each other" in out
    told = {
        name: given[name]
        for name in ("workers", "threads", "ray_address", "force", "resume", "start_from", "stop_after")
    }
    assert told == {
        "workers": cores, "threads": 3, "ray_address": None, "force": False, "resume": False, "start_from": None,
        "stop_after": 2,
    }  # fmt: skip
    status, out, _ = command("--dataset digits --ray-address auto", capsys)
    assert status == 0 and "Ray at auto, 1 thread each" in out and "note:" not in out
    assert (given["ray_address"], given["workers"], given["configs"][0].threads) == ("auto", None, 1)


def test_ctrl_c(tmp_path, monkeypatch, capsys):
    def interrupted(configs, **options):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "sweep", interrupted)
    status, _, err = command("--dataset digits", capsys)
    assert status == 130 and "the same command goes on from here" in err
