"""What studies measure in trained networks: saturation, distributions before and after the transform, bias."""

from __future__ import annotations

import json
import math

import pytest
import quintil
import torch
from quintil import HDQT
from quintil.cli import main
from quintil.experiments import inside
from torch import nn


def mlp(scheme: HDQT, width: int = 64) -> nn.Module:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(width, width, bias=False), nn.ReLU(), nn.Linear(width, 16))
    return quintil.quantize_(net, scheme)


def convolutions(scheme: HDQT) -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, stride=2), nn.Flatten()]
    return quintil.quantize_(nn.Sequential(*layers, nn.Linear(54, 5)), scheme)


CASES = {
    "mlp": (mlp, torch.randn(64, 64, generator=torch.Generator().manual_seed(1)), 16),
    "conv": (convolutions, torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)), 5),
}


@pytest.fixture(params=CASES)
def case(request):
    make, x, classes = CASES[request.param]
    labels = torch.arange(len(x)) % classes
    return make, x, labels


@pytest.mark.parametrize("name", inside.MEASURES)
def test_nothing_of_the_network_changes(case, name):
    make, x, labels = case
    net = make(HDQT()).eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    rows = inside.MEASURES[name](net, x, labels)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not net.training and all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert rows and all(math.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))


def test_saturation_is_counted_with_each_tile_size(case):
    make, x, labels = case
    rows = {(row["layer"], row["what"]): row["clamped"] for row in inside.saturation_rows(make(HDQT()), x, labels)}
    for tile in inside.TILES:
        found = quintil.nn.saturation(make(HDQT(tile_size=tile)).eval(), x)
        for layer, numbers in found.items():
            assert rows[layer, f"tiles of {tile}" if tile else "no tiles"] == numbers["tiles"]
    layers = list(dict.fromkeys(layer for layer, _ in rows))
    assert [layer for layer, _ in rows] == [layer for layer in layers for _ in inside.TILES]


def test_weight_gradients_are_unbiased_and_input_gradients_are_once_their_weight_is_drawn_too(case):
    """The mean of n draws is off by about spread / sqrt(n); the nearest rounding of B1's weight adds what draws do not."""
    make, x, labels = case
    expected = 1.0 / math.sqrt(inside._DRAWS)
    for sites, what in ((HDQT().stochastic, "weight"), (("b1w", *HDQT().stochastic), "input")):
        rows = inside.bias_rows(make(HDQT(stochastic=sites)), x, labels)
        for row in (row for row in rows if row["what"] == what):
            assert 0.75 * expected < row["bias"] / row["spread"] < 1.35 * expected, row
    nearest = [row for row in inside.bias_rows(make(HDQT()), x, labels) if row["what"] == "input"]
    assert all(row["bias"] > 1.5 * expected * row["spread"] for row in nearest)


def test_without_stochastic_rounding_all_error_is_bias():
    make, x, classes = CASES["mlp"]
    for row in inside.bias_rows(make(HDQT(stochastic=())), x, torch.arange(len(x)) % classes):
        assert row["spread"] < 1e-4 and row["bias"] == pytest.approx(row["nearest"], rel=1e-6)


def test_the_transform_spreads_a_single_number():
    """One number among zeros: crest sqrt(n) before, 1 over a block of the transform after."""
    z = torch.zeros(64, 64)
    z[3, 5] = 2.0
    before, after = (inside._distribution(t, 4) for t in (z, quintil.functional.hadamard_transform(z, 1)))
    assert before["crest"] == pytest.approx(64.0) and before["levels"] == 2
    assert after["crest"] == pytest.approx(8.0) and after["zeros"] == pytest.approx(100 * 63 / 64)
    make, x, classes = CASES["mlp"]
    rows = {(r["layer"], r["what"]): r for r in inside.distribution_rows(make(HDQT()), x, torch.arange(64) % classes)}
    assert len(rows) == 2 * 7 and rows["2", "gradient before"]["crest"] > rows["2", "b2g after"]["crest"]
    none = inside.distribution_rows(make(HDQT(hadamard="none")), x, torch.arange(64) % classes)
    values = {(r["layer"], r["what"]): r["crest"] for r in none}
    assert values["0", "b1w before"] == values["0", "b1w after"]


def test_layers_with_two_schemes_are_refused():
    net = mlp(HDQT())
    quintil.quantize_(net[2], HDQT(bits=5))
    with pytest.raises(ValueError, match="inside: expected one scheme in all layers, got 2"):
        inside.saturation_rows(net, torch.randn(4, 64), torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("name", ["saturation", "gradient-statistics"])
def test_a_measured_study_ends_in_a_page_a_picture_and_every_number(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = ["study", name, "--dataset", "digits", "--epochs", "1", "--seeds", "2", "--workers", "1"]
    assert main(line) == 0
    said = capsys.readouterr().out
    written = json.loads((tmp_path / "runs/studies" / f"{name}.json").read_text())
    rows = written["measured"]["digits, icarl"]
    assert {(row["seed"], row["task"]) for row in rows} == {(seed, task) for seed in (0, 1) for task in range(1, 6)}
    page = (tmp_path / "runs/studies" / f"{name}.md").read_text()
    assert "| head |" in page and page.strip() in said
    assert (tmp_path / "runs/studies" / f"{name}.png").stat().st_size > 5000
    assert main(line) == 0 and "2 runs, 2 finished" in capsys.readouterr().out
