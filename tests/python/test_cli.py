"""`python -m quintil`: commands, help, config files, refusals with suggestions, data sets, facts, reports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import quintil
from conftest import run_python
from quintil import data
from quintil.cli import COMMANDS, main
from quintil.cli.options import read_config
from quintil.cli.train import base_config, parser
from quintil.continual import PRESETS, preset
from quintil.continual.arguments import config_from
from quintil.data.catalogue import CATALOGUE
from quintil.metrics import FORMULAS, read_run

ROOT = Path(__file__).resolve().parents[2]
SHORT = "--dataset synthetic --epochs 1 --memory_size 24 --init_cls 6 --increment 6 --threads 1 --limit_batches 2"


def configured(line: str):
    """The configuration that `quintil train LINE` would run."""
    args = parser().parse_args(line.split())
    return config_from(args, base_config(args.dataset, name=args.preset, method=args.method))


def refused(line: str, capsys) -> str:
    """Last line of what a command that ends with status 2 says."""
    try:
        status = main(line.split())
    except SystemExit as caught:
        status = caught.code
    output = capsys.readouterr()
    assert status == 2 and output.out == ""
    return output.err.splitlines()[-1]


# Help ---------------------------------------------------------------------------------------------------------------


def test_help_is_quick_and_loads_no_command():
    start = time.process_time()
    code = (
        "import sys, time, quintil.cli\n"
        "before = time.process_time()\n"
        "try:\n    quintil.cli.main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'quintil.continual', 'quintil.data', 'quintil.report', 'matplotlib', 'yaml', 'tensorboard'}\n"
        "print(sorted(heavy & set(sys.modules)), time.process_time() - before < 0.2)\n"
    )
    output = run_python("-c", code)
    assert output.endswith("[] True\n") and all(f"  {name} " in output for name in COMMANDS)
    assert "usage: quintil COMMAND" in run_python("-m", "quintil", "--help")
    assert time.process_time() - start < 1.0  # of this process: it only waited


@pytest.mark.parametrize("command", ["train", "report"])
def test_help_defines_every_metric(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    output = capsys.readouterr().out
    assert caught.value.code == 0 and output.startswith(f"usage: quintil {command}")
    assert all(f"  {name} " in output and formula in output for name, formula in FORMULAS.items())


def test_version_and_console_script(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0 and capsys.readouterr().out == f"quintil {quintil.__version__}\n"
    with open(ROOT / "pyproject.toml", "rb") as file:
        assert tomllib.load(file)["project"]["scripts"] == {"quintil": "quintil.cli:main"}
    assert main([]) == 2 and "usage: quintil COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line, message",
    [
        (
            "trian",
            "quintil: error: expected one of train, sweep, predict, study, report, compare-quantizers, energy, datasets, info, got "
            "'trian' (did you mean train?)",
        ),
        ("train", "error: train: expected --preset or --dataset, got neither (presets: b50-inc10, "),
        ("train --preset hdqt-dsad", "(did you mean hdqt-dsads?)"),
        ("train --preset digits --method icral", "error: find_learner: expected method to be one of bic, "),
        ("train --memory_sise 3", "unrecognized arguments: --memory_sise 3 (did you mean --memory_size?)"),
        ("train --memory_sise=3", "unrecognized arguments: --memory_sise=3 (did you mean --memory_size?)"),
        ("train stray", "unrecognized arguments: stray"),
        ("train --epo 3", "unrecognized arguments: --epo 3"),
        ("train --config absent.yaml", "config: expected the file absent.yaml to exist, got nothing there"),
        ("report absent", "error: report: expected run directories with a finished seed "),
        ("datasets hapd", "expected names of cifar100, custom, digits, "),
    ],
)
def test_refused(line, message, capsys):
    assert message in refused(line, capsys)


# Presets and config files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, want",
    [
        ("--preset digits", preset("digits")),
        ("--dataset digits", preset("digits")),
        ("--dataset pamap", preset("hdqt-pamap2")),
        ("--dataset hapt_raw", preset("hdqt-hapt-raw")),
        ("--preset hdqt-dsads-intended --epochs 7", preset("hdqt-dsads-intended").replace(epochs=7)),
        ("--preset pycil-b0-inc10 --method finetune", preset("pycil-b0-inc10", "finetune")),
        (
            "--preset pycil-b0-inc10 --method finetune --epochs 9",
            preset("pycil-b0-inc10", "finetune").replace(epochs=9, init_epoch=None),  # every task
        ),
    ],
)
def test_presets(line, want):
    assert configured(line) == want


def test_data_without_a_preset():
    config = configured("--dataset custom:mine.npz")
    assert (config.dataset, config.split, config.normalise, config.model) == ("custom:mine.npz", None, None, None)
    assert (config.seeds, config.epochs, config.lr) == ((0, 1, 2), 100, 0.01)


YAML = """\
preset: hdqt-dsads
quantMethod: ours          # any alias
bits: 5
seed: [01056, 2]
lr: 1e-3
milestones: 50
nc-first-task: 4
bias: true
init_epoch: null
force: false
"""


def test_config_file_and_command_line(tmp_path):
    """The file's options, in YAML and in JSON, and what stands on the command line before them."""
    yaml, js = tmp_path / "run.yaml", tmp_path / "run.json"
    yaml.write_text(YAML)
    content = {
        "preset": "hdqt-dsads", "quant": "hdqt", "bits": 5, "seeds": [1056, 2], "lr": 0.001, "milestones": [50],
        "init_cls": 4, "bias": True, "init_epoch": None, "force": False,
    }  # fmt: skip
    js.write_text(json.dumps(content))
    want = preset("hdqt-dsads").replace(
        scheme=quintil.HDQT(bits=5), seeds=(1056, 2), lr=0.001, milestones=(50,), init_cls=4, bias=True
    )
    for file in (yaml, js):
        assert configured(f"--config {file}") == want
        changed = configured(f"--lr 0.5 --config {file} --seed 3 --milestones --quant none --bits 5 --quant hdqt")
        assert changed == want.replace(lr=0.5, seeds=(3,), milestones=())
    js.write_text(json.dumps({"preset": "hdqt-dsads", "milestones": []}))
    assert configured(f"--config {js} --preset digits") == preset("digits").replace(milestones=())


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.yaml", "memory_sise: 3\n", "config: expected known keys, got 'memory_sise' (did you mean memory_size? in "),
        ("a.yaml", "config: b.yaml\n", "config: expected known keys, got 'config' ("),
        ("a.yaml", "- lr\n", "config: expected option names with values, got list (in "),
        ("a.yaml", "lr: [1, 2\n", "config: expected YAML, got while parsing a flow sequence"),
        ("a.yaml", "bias: yes\n", "argument --bias: expected true, false, 1 or 0, got 'yes'"),
        ("a.yaml", "force: 2\n", "config: expected force to be true or false, got '2' (in "),
        ("a.yaml", "epochs: ten\n", "argument --epochs/--num-epochs: invalid int value: 'ten'"),
        ("a.json", '{"lr": {}}', "config: expected lr to be a number, text, true, false or list, got {} (in "),
        ("a.json", '{"seed": [true]}', "config: expected seed to be a list of integers or texts, got [True] (in "),
        ("a.json", "{", "config: expected JSON, got Expecting property name"),
        ("a.toml", "", "config: expected a .json, .yaml or .yml file, got 'a.toml'"),
    ],
)
def test_config_files_refused(name, text, message, tmp_path, capsys):
    (tmp_path / name).write_text(text)
    assert message in refused(f"train --config {tmp_path / name}", capsys)


def test_yaml_without_pyyaml(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text("lr: 1\n")
    monkeypatch.setitem(sys.modules, "yaml", None)
    message = r"^config: expected PyYAML to read a.yaml, got none \(pip install 'quintil\[yaml\]', or use JSON\)$"
    with pytest.raises(ImportError, match=message):
        read_config(tmp_path / "a.yaml")


@pytest.mark.parametrize("package, extra", [("matplotlib", "report"), ("tqdm", "data")])
def test_commands_without_their_packages(package, extra):
    """One line each and exit status 2; what is no package of an extra is not hidden."""
    lines = {
        "study": "study hadamard-ablation --quick --dataset digits --dry_run",
        "sweep": "sweep --dataset digits --method icarl --dry-run",
        "train": "train --preset digits",
        **({"report": "report ."} if package == "matplotlib" else {}),
    }
    code = (
        "import contextlib, io, sys\n"
        f"sys.modules[{package!r}] = None\n"
        "from quintil.cli import main\n"
        f"for line in {list(lines.values())}:\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as said:\n"
        "        status = main(line.split())\n"
        "    print(status, said.getvalue(), end='')\n"
        "sys.modules['quintil.metrics'] = None\n"
        "try:\n    main(['report', '.'])\nexcept ModuleNotFoundError:\n    print('raised')\n"
    )
    message = f"expected the package {package}, got none (pip install 'quintil[{extra}]')"
    assert run_python("-c", code).splitlines() == [*(f"2 error: {name}: {message}" for name in lines), "raised"]


# Runs, reports, data sets, facts ------------------------------------------------------------------------------------


def test_train_and_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(f"train {SHORT} --seed 0 1".split()) == 0
    (tmp_path / "c.json").write_text(json.dumps({"quant": "hdqt", "seed": [0, 1]}))
    assert main(f"train {SHORT} --config c.json".split()) == 0
    output = capsys.readouterr().out
    assert "hdqt_w4a4acc8 − float32  linear head" in output and "runs/default/report.md" in output
    names = ["synthetic_icarl_B6_Inc6", "synthetic_icarl_B6_Inc6_hdqt_w4a4acc8"]
    assert [sorted(read_run(tmp_path / "runs/default" / name).seeds) for name in names] == [[0, 1]] * 2
    before = (tmp_path / "runs/default/report.html").read_bytes()
    assert main("report runs --out out --export qc --prefix fair --tensorboard logs".split()) == 0
    output = capsys.readouterr().out
    assert "report: out/report.html, out/report.md" in output and "export: 10 files below out/results" in output
    assert "tensorboard: 4 event files below logs" in output
    assert (tmp_path / "out/report.html").read_bytes() == before
    assert (tmp_path / "out/results/fair/nme_top1/synthetic_0_fcnet_B0_Inc6.csv").is_file()
    assert main(["report", *(f"runs/default/{name}" for name in names)]) == 0
    assert "report: runs/default/report.html" in capsys.readouterr().out


def test_datasets(capsys):
    assert set(CATALOGUE) == set(data.names())
    assert main(["datasets"]) == 0
    output = capsys.readouterr().out
    assert [line.split()[0] for line in output.splitlines() if line and line[0] != " "] == list(CATALOGUE)
    assert "Protocol/subject101.dat" in output and output.count("https://") == 8
    assert main(["datasets", "digits"]) == 0
    loaded = data.load("digits")
    output = capsys.readouterr().out
    assert f"[{loaded.x_train.size(1)}]; {len(loaded.class_names)} classes" in output
    assert f"{len(loaded.x_train):,} training and {len(loaded.x_test)} test samples" in output


def test_info(capsys):
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["version"] == quintil.__version__ and found["isa"] == quintil.active_isa()
    assert found["runnable_isas"] == quintil.runnable_isas() and found["build"]["version"] == quintil.__version__
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["version", *[key for key in _order() if key != "version"]]


def _order() -> list[str]:
    from quintil.cli.info import facts

    return list(facts())


def test_as_a_process(tmp_path):
    """`python -m quintil` passes the exit status on."""
    command = [sys.executable, "-m", "quintil", "train", "--preset", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=_environment())
    assert done.returncode == 2 and re.match("error: preset: expected name to be one of b50-inc10, ", done.stderr)


def _environment() -> dict[str, str]:
    import os

    from conftest import PACKAGE_ROOT

    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")])}


def test_presets_stand_in_the_help():
    text = re.sub(r"\s+", "", parser().format_help())
    assert all(name in text for name in PRESETS)
