"""`quintil compare-quantizers`: what it reads, measures, writes and refuses."""

from __future__ import annotations

import json
import math
import sys
import warnings

import pytest
import quintil
import torch
from conftest import run_python
from quintil import models
from quintil.bits.rivals import RIVALS
from quintil.cli import main
from quintil.cli.compare_quantizers import parser
from quintil.cli.quantizer_table import ALL, measured, together
from quintil.cli.weight_files import network_names, read_weights
from torch import nn


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


def refused(line: list[str], capsys) -> str:
    try:
        status = main(["compare-quantizers", *line])
    except SystemExit as caught:
        status = caught.code
    output = capsys.readouterr()
    assert status == 2 and output.out == ""
    return output.err.splitlines()[-1]


def compared(line: list[str], capsys) -> str:
    assert main(["compare-quantizers", *line]) == 0
    return capsys.readouterr().out


# What is read -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"moments": torch.ones(7, 7)}},
        lambda state: {"format": 1, "learner": {"net": state, "memory": {"x": torch.ones(9, 2)}}, "task": 2},
        lambda state: {"format": 1, "state": {"model": state, "teacher": {"a": torch.ones(2, 2)}}},
    ],
    ids=["state dict", "state_dict", "model", "run", "width run"],
)
def test_checkpoints_hold_the_networks_weights(content, net, tmp_path):
    torch.save(content(dict(net.state_dict())), tmp_path / "net.pt")
    weights, origin = read_weights(str(tmp_path / "net.pt"))
    assert list(weights) == ["0.weight", "3.weight"] and origin == str(tmp_path / "net.pt")
    assert torch.equal(weights["3.weight"], net[3].weight)


def test_other_files(net, tmp_path):
    from safetensors.torch import save_file

    save_file(net.state_dict(), tmp_path / "net.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(net).save(tmp_path / "script.pt")
    save_file({f"{number}.weight": torch.ones(2, 2) for number in (10, 9, 2)}, tmp_path / "many.safetensors")
    assert list(read_weights(str(tmp_path / "many.safetensors"))[0]) == ["2.weight", "9.weight", "10.weight"]
    for name in ("net.safetensors", "script.pt"):
        weights, _ = read_weights(str(tmp_path / name))
        assert list(weights) == ["0.weight", "3.weight"] and torch.equal(weights["0.weight"], net[0].weight), name


def test_names_of_networks_are_drawn_from_the_seed():
    weights, origin = read_weights("resnet20", 5)
    want = models.resnet20(generator=torch.Generator().manual_seed(5)).state_dict()
    assert "freshly drawn weights (seed 5), not trained" in origin
    assert weights and all(torch.equal(weight, want[name]) for name, weight in weights.items())
    for name in network_names():
        assert callable(getattr(models, name))


# What is measured ---------------------------------------------------------------------------------------------------


def test_rows_are_measured_on_the_quantised_weight():
    weight = torch.randn(6, 50)
    rows = {(row["bits"], row["quantiser"]): row for row in measured("fc", weight, [1, 3, 9], search=True)}
    assert [name for bits, name in rows if bits == 3] == ["VecQ", "VecQ, searched", *RIVALS]
    assert (1, "LSQ initialisation") not in rows and (1, "uL2Q") in rows
    y = quintil.functional.vecq_quantize(weight, 3)[0].double()
    w, row = weight.double(), rows[3, "VecQ"]
    assert row["modulus_loss"] == pytest.approx(float((w - y).square().sum()), rel=1e-9)
    assert row["mse"] == pytest.approx(row["modulus_loss"] / float(w.square().sum()), rel=1e-9)
    assert row["cosine"] == pytest.approx(float((w * y).sum() / (w.norm() * y.norm())), rel=1e-9)
    assert row["orientation_loss"] == pytest.approx(1 - row["cosine"], abs=1e-12)
    assert rows[3, "VecQ, searched"]["orientation_loss"] <= row["orientation_loss"]
    sizes = {name: rows[3, name]["bytes"] - math.ceil(300 * 3 / 8) for bits, name in rows if bits == 3}
    assert sizes == {
        "VecQ": 4, "VecQ, searched": 4, "min-max": 8, "LSQ initialisation": 4, "uL2Q": 8, "MSE-optimal uniform": 8,
        "Lloyd-Max": 32,
    }  # fmt: skip


def test_all_weights_count_as_one_vector():
    one, two = torch.randn(3, 40), 5 * torch.rand(2, 7)
    rows = together([*measured("one", one, [4], False), *measured("two", two, [4], False)])
    joined = torch.cat([one.flatten(), two.flatten()]).double()
    y = torch.cat([quintil.functional.vecq_quantize(w, 4)[0].flatten() for w in (one, two)]).double()
    row = rows[0]
    assert (row["weight"], row["quantiser"], row["numbers"]) == (ALL, "VecQ", 134)
    assert row["mse"] == pytest.approx(float((joined - y).square().sum() / joined.square().sum()), rel=1e-9)
    assert row["cosine"] == pytest.approx(float((joined * y).sum() / (joined.norm() * y.norm())), rel=1e-9)
    assert row["bytes"] == (60 + 4) + (7 + 4)


# What is written ----------------------------------------------------------------------------------------------------


def test_table_json_and_pictures(net, tmp_path, capsys):
    torch.save(net.state_dict(), tmp_path / "net.pt")
    out = tmp_path / "compared.json"
    text = compared([str(tmp_path / "net.pt"), "--bits", "2", "4", "2", "--out", str(out)], capsys)
    found = json.loads(out.read_text())
    assert found["bits"] == [2, 4] and len(found["weights"]) == 2 * 2 * 6 and len(found["all"]) == 2 * 6
    lines = [line for line in text.splitlines() if line.startswith("| `0.weight` | 4 |")]
    assert [line.split(" | ")[2] for line in lines] == ["VecQ", *RIVALS]
    bold = [line for line in lines if "**" in line]
    closed = [r for r in found["weights"] if (r["weight"], r["bits"]) == ("0.weight", 4)][:4]
    assert len(bold) == 1 and min(closed, key=lambda row: row["mse"])["quantiser"] in bold[0]
    pictures = sorted(path.name for path in tmp_path.glob("compared_*"))
    kinds = ("modulus_loss", "mse", "orientation_loss", "ratio", "size")
    assert pictures == [f"compared_{kind}.{ending}" for kind in kinds for ending in ("png", "svg")]
    assert all(f"picture {tmp_path / name}" in text for name in pictures if name.endswith("png"))
    svg = (tmp_path / "compared_mse.svg").read_text()
    assert svg.startswith("<?xml") and "Lloyd-Max" in svg


def test_choices(net, tmp_path, capsys):
    nn.init.zeros_(net[0].weight)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    text = compared([str(tmp_path / "net.pt"), "--bits", "3", "--summary", "--search"], capsys)
    assert "Left out, since empty or all zero: 0.weight" in text and "1 weight, 80 numbers" in text
    assert "`3.weight`" not in text and "| all weights | 3 | VecQ, searched |" in text
    text = compared([str(tmp_path / "net.pt"), "--bits", "3", "--only", "3.*"], capsys)
    assert "`3.weight`" in text and "Left out" not in text
    assert list(tmp_path.iterdir()) == [tmp_path / "net.pt"]  # nothing is written that was not asked for


def test_without_matplotlib(net, tmp_path, capsys, monkeypatch):
    torch.save(net.state_dict(), tmp_path / "net.pt")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "quintil.report.render", raising=False)
    monkeypatch.delitem(sys.modules, "quintil.report", raising=False)
    text = compared([str(tmp_path / "net.pt"), "--bits", "2", "--out", str(tmp_path / "a.json")], capsys)
    assert text.endswith("no pictures: they take matplotlib (pip install 'quintil[report]')\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "net.pt"]


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["compare-quantizers", "--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0 and text.startswith("usage: quintil compare-quantizers MODEL [options]")
    assert all(f"  {name} " in text for name in ("VecQ", "VecQ, searched", *RIVALS)) and "lenet5" in text
    assert parser().parse_args(["x"]).bits == [2, 4, 8]


# What is refused ----------------------------------------------------------------------------------------------------


def test_refused_models(net, tmp_path, capsys):
    def path(name: str) -> str:
        return str(tmp_path / name)

    torch.save({"bias": torch.ones(3), "steps": torch.ones(2, 2, dtype=torch.int64)}, path("flat.pt"))
    torch.save([torch.ones(2, 2)], path("list.pt"))
    torch.save({"w": torch.tensor([[1.0, float("nan")]])}, path("nan.pt"))
    torch.save({"w": torch.zeros(2, 2), "e": torch.zeros(0, 3)}, path("zero.pt"))
    torch.save(net, path("module.pt"))
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    quintil.quantize_(net, quintil.VecQ(weight_bits=4))
    quintil.save_quantized(net, path("codes.safetensors"))
    for name, message in {
        "absent.pt": "error: read_weights: expected a file or one of lenet5, ",
        "flat.pt": "expected float tensors of two dimensions or more, got 2 tensors without one (in ",
        "list.pt": "list.pt to hold tensors by name, got list",
        "nan.pt": "error: Numbers: expected x to be finite, got nan (in 'w')",
        "zero.pt": "error: compare_quantizers: expected weights that are not zero, got none (in ",
        "module.pt": "module.pt to be a checkpoint of tensors, got UnpicklingError: ",
        "text.pt": "text.pt to be a checkpoint of tensors, got ",
        "cut.safetensors": "cut.safetensors to be a whole safetensors file, got ",
        "codes.safetensors": "error: read_weights: expected float weights, got codes, '0.",
        ".": "error: read_weights: expected a file or a network, got the folder ",
    }.items():
        assert message in refused([path(name)], capsys), name


@pytest.mark.parametrize(
    "line, message",
    [
        ("lenet", "got 'lenet' (did you mean lenet5?)"),
        ("lenet5 --bits 0", "error: compare_quantizers: expected bits in 1..16, got 0"),
        ("lenet5 --bits 4 17", "error: compare_quantizers: expected bits in 1..16, got 17"),
        ("lenet5 --bits four", "argument --bits: invalid int value: 'four'"),
        (
            "lenet5 --only fc*",
            "expected only to match names, got fc* (there are 0.weight, 4.weight, 9.weight, 12.weight)",
        ),
        ("lenet5 --out absent/a.json", "expected out to be in a folder that exists, got absent/a.json"),
        ("", "the following arguments are required: MODEL"),
    ],
)
def test_refused_options(line, message, capsys):
    assert message in refused(line.split(), capsys)


def test_the_command_from_a_shell():
    output = run_python("-m", "quintil", "compare-quantizers", "lenet5", "--bits", "2", "--only", "0.*", "--summary")
    assert output.startswith("lenet5, freshly drawn weights (seed 0), not trained: 1 weight, 800 numbers")
