"""`quintil energy`: what it counts, prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import quintil
import torch
from quintil.cli import main
from quintil.cli.energy import _SAMPLES
from quintil.continual.presets import PRESETS
from quintil.models import FCNet, IncrementalNet
from quintil.studies import transform_ratios


def printed(line: str, capsys) -> str:
    assert main(["energy", *line.split()]) == 0
    return capsys.readouterr().out


def test_the_table_is_that_of_the_presets_network(capsys):
    net = IncrementalNet(FCNet(243))
    net.grow(11)
    scheme = quintil.HDQT.paper(accumulator_bits=12)
    want = quintil.energy(net, torch.randn(128, 243), scheme, prices="horowitz45_dram")
    text = printed("hdqt-pamap2 --paper --accumulator_bits 12 --prices horowitz45_dram", capsys)
    assert text.startswith(f"hdqt-pamap2: {scheme.summary()}\n\n{want.table()}\n")
    assert f"| `hdqt-pamap2` | {want.picojoules() / 1e3:.0f} |" in text and f"| {want.ratio:.2f} |" in text


def test_options_reach_the_scheme_and_the_report(capsys, tmp_path):
    out = tmp_path / "found.json"
    line = "digits --bits 3 --tile_size 8 --hadamard binary --hadamard_block 16 --batch_size 5 --inference --summary"
    text = printed(f"{line} --out {out}", capsys)
    stored = json.loads(out.read_text())
    changes = {"bits": 3, "tile_size": 8, "hadamard": "binary", "hadamard_block": 16}
    assert stored["scheme"] == {**quintil.HDQT().to_dict(), **changes} and stored["measured"] == {}
    report = stored["networks"]["digits"]
    assert report["samples"] == 5
    assert all(layer["phases"]["weight_gradient"]["picojoules"] == 0 for layer in report["layers"])
    assert text.count("\n| ") == 2 and f"picture {tmp_path / 'found.png'}" in text
    assert (tmp_path / "found.png").stat().st_size > 5000 and (tmp_path / "found.svg").is_file()


def test_without_matplotlib_there_is_no_picture(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "quintil.report.render", None)
    text = printed(f"digits --batch_size 1 --summary --out {tmp_path / 'found.json'}", capsys)
    assert "no picture: it takes matplotlib" in text and (tmp_path / "found.json").is_file()


def test_all_is_a_network_of_every_data_set(capsys):
    rows = [line for line in printed("all --batch_size 2 --summary", capsys).splitlines() if line.startswith("| `")]
    assert len(rows) == len(_SAMPLES)
    assert {config.dataset for config in PRESETS.values()} == set(_SAMPLES)


def test_published_ratios(capsys):
    text = printed("--published --prices horowitz45 --reference float16 --width 561", capsys)
    assert text.splitlines()[-1].startswith("Energy in float16 / energy on 4-bit integers; layer 561 x 561")
    for row in transform_ratios("horowitz45", "float16", width=561):
        cells = [row.accumulator_bits, row.published, *(f"{v:.2f}" for v in (row.dense, row.butterflies, row.without))]
        assert f"| {' | '.join(map(str, cells))} |" in text


def test_the_page_states_what_the_command_prints(capsys):
    page = (Path(__file__).resolve().parents[2] / "docs" / "energy.md").read_text(encoding="utf-8")
    rows = printed("--published", capsys).split("\n\n")[0]
    assert rows.count("\n") == 4 and rows in page
    for network in ("digits", "hdqt-dsads", "hdqt-hapt"):
        cells = []
        for prices in ("horowitz45_arithmetic", "horowitz45_scaled", "horowitz45", "horowitz45_dram"):
            lines = (f"{network} --summary --prices {prices} {more}" for more in ("", "--paper", "--hadamard none"))
            cells.append(" / ".join(printed(line, capsys).split("|")[-2].strip() for line in lines))
        assert f"| `{network}` | {' | '.join(cells)} |" in page


def test_measured_or_said_to_be_absent(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("quintil.studies.measure_package_energy", lambda run, repeats: run() and None)
    assert "digits: not measured, this machine shows no" in printed("digits --batch_size 2 --summary --measure", capsys)
    monkeypatch.setattr("quintil.studies.measure_package_energy", lambda run, repeats: 0.25)
    text = printed(f"digits --batch_size 2 --summary --measure --out {tmp_path / 'found.json'}", capsys)
    assert "digits: measured 0.25 J a step in float32, 0.25 J on integers here" in text
    stored = json.loads((tmp_path / "found.json").read_text())
    assert stored["measured"] == {"digits": {"float32": 0.25, "hdqt": 0.25}}


@pytest.mark.parametrize(
    "line, message",
    [
        (
            "hdqt-dsad",
            "error: energy: expected network to be a preset or all, got 'hdqt-dsad' (did you mean hdqt-dsads?)",
        ),
        ("", "error: energy: expected network to be a preset or all, got None (see --help)"),
        ("digits --bits 9", "error: HDQT: expected bits in 2..8, got 9"),
        (
            "digits --quant luq",
            "error: energy: expected quant to be hdqt, got 'luq' (operations of other schemes, such as the baselines LUQ "
            "and FP134, are not counted)",
        ),
        ("digits --batch_size 0", "error: energy: expected batch_size of at least 1, got 0"),
        ("--published --width 0", "error: transform_ratios: expected width and rows of at least 1, got 0 and 128"),
        ("digits --published", "error: energy: expected no network with --published, got 'digits'"),
        (
            "digits --out /nowhere/x.json",
            "error: energy: expected out to be in a folder that exists, got /nowhere/x.json",
        ),
    ],
)
def test_refusals(line, message, capsys):
    assert main(["energy", *line.split()]) == 2
    output = capsys.readouterr()
    assert output.err.strip() == message and output.out == ""


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["energy", "--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0 and text.startswith("usage: quintil energy NETWORK [options]")
    assert "@" not in text and "hdqt-pamap2-intended" in text and "ISSCC 2014" in text
    for column in ("multiplies", "transform additions", "quantisations", "bytes", "ratio"):
        assert f"\n  {column}" in text
