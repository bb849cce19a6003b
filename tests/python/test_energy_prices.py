"""Prices, reports, the published ratios and measured energy."""

import dataclasses
import json
import math

import pytest
import quintil
import torch
from quintil.studies import (
    KINDS,
    PRICES,
    PUBLISHED,
    Operation,
    Prices,
    measure_package_energy,
    package_counters,
    transform_ratios,
)
from torch import nn


def test_prices_are_the_published_ones_and_scale_between():
    scaled, units = PRICES["horowitz45_scaled"], PRICES["horowitz45"]
    for prices in (scaled, units):
        assert prices.picojoules(Operation("multiply", "int", 8)) == 0.2
        assert prices.picojoules(Operation("multiply", "int", 32)) == 3.1
        assert prices.picojoules(Operation("add", "int", 32)) == 0.1
        assert prices.picojoules(Operation("quantise", "float", 32)) == pytest.approx(3.7 + 2 * 0.9)
    assert scaled.picojoules(Operation("multiply", "int", 4)) == pytest.approx(0.05)
    assert scaled.picojoules(Operation("multiply", "int", 4, 16)) == pytest.approx(0.2)
    assert scaled.picojoules(Operation("multiply", "int", 16)) == pytest.approx(math.sqrt(0.2 * 3.1))
    assert scaled.picojoules(Operation("add", "int", 4)) == pytest.approx(0.015)
    assert units.picojoules(Operation("multiply", "int", 4)) == 0.2
    assert units.picojoules(Operation("add", "int", 12)) == 0.1
    own = dataclasses.replace(scaled, name="mine", byte=0.0, int_multiply={4: 1.0})
    report = quintil.energy(nn.Linear(4, 2), torch.randn(2, 4), quintil.HDQT(), prices=own, backward=False)
    counted = 16 * 1.0 + 16 * 0.03 + 8 * 3.7 + 4 * 0.9 + 16 * (3.7 + 1.8)
    assert report.picojoules() == pytest.approx(counted) and report.prices is own


@pytest.mark.parametrize("changes", [{"int_add": {}}, {"byte": -1.0}, {"float_add": {0: 1.0}}, {"byte": math.nan}])
def test_prices_refuse_what_is_none(changes):
    with pytest.raises(ValueError, match=f"Prices: expected {next(iter(changes))}"):
        dataclasses.replace(PRICES["horowitz45"], **changes)


def test_reports_read_and_write():
    report = quintil.energy(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2)), torch.randn(2, 6), quintil.HDQT())
    stored = json.loads(report.to_json())
    total = 0.0
    for layer in stored["layers"]:
        for phase in layer["phases"].values():
            total += phase["picojoules"]
            assert all(operation["kind"] in KINDS for operation in phase["operations"])
    assert total == pytest.approx(stored["picojoules"]) == pytest.approx(report.picojoules())
    assert stored["prices"]["name"] == "horowitz45_scaled" and "Horowitz" in stored["prices"]["source"]
    lines = report.table().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:7]] == ["`0`", "`0`", "`1`", "`1`", "`1`"]
    step = next(line for line in lines if "| step |" in line)
    assert f"{report.ratio:.2f}" in step and f"{report.picojoules() / 1e3:.1f}" in step


def test_refusals():
    x = torch.zeros(1, 3)
    with pytest.raises(TypeError, match="energy: expected scheme to be an HDQT or None, got DoubleRounding"):
        quintil.energy(nn.Linear(3, 2), x, quintil.DoubleRounding())
    with pytest.raises(ValueError, match="energy: expected prices to be a Prices or one of horowitz45, .*, got 'free'"):
        quintil.energy(nn.Linear(3, 2), x, prices="free")
    with pytest.raises(ValueError, match="energy: expected model to run an nn.Linear or nn.Conv2d, got none"):
        quintil.energy(nn.ReLU(), x)
    model = quintil.quantize_(nn.Sequential(nn.Linear(3, 2)), quintil.VecQ())
    with pytest.raises(TypeError, match=r"energy: expected layers of HDQT or float32, got VecQ\(.* \(in '0'\)"):
        quintil.energy(model, x)
    assert not model[0]._forward_hooks
    with pytest.raises(ValueError, match="Prices: expected kind to be one of multiply, .*, got 'divide'"):
        PRICES["horowitz45"].picojoules(Operation("divide", "int", 8))


def test_published_ratios_follow_from_a_16_bit_integer_reference():
    """Within a tenth with n^2 transforms; butterflies take less than a thirtieth of a step."""
    found = transform_ratios()
    assert [row.accumulator_bits for row in found] == [8, 12, 16] and PUBLISHED == {8: 4.5, 12: 3.4, 16: 3.3}
    for row in found:
        assert row.dense == pytest.approx(row.published, rel=0.1)
        assert 0.97 * row.without < row.butterflies < row.without
    mac, reference = 0.05 + 0.03, math.sqrt(0.2 * 3.1) + 0.1
    macs, dense = 3 * 128 * 405**2, 405**3 + 128 * 405**2 + 2 * 405 * 128**2
    assert found[0].dense == pytest.approx(macs * reference / ((macs + dense) * mac), rel=1e-6)
    assert transform_ratios(reference="float16")[0].without == pytest.approx(1.5 / mac)
    with pytest.raises(ValueError, match="transform_ratios: expected reference to be one of int16, .*, got 'int4'"):
        transform_ratios(reference="int4")


def test_package_energy_is_read_where_there_are_counters(tmp_path):
    assert package_counters(tmp_path) == [] and measure_package_energy(lambda: None, root=tmp_path) is None
    for name, start in (("intel-rapl:0", 900), ("intel-rapl:1", 50), ("intel-rapl:0:0", 7)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{start}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000\n")
    (tmp_path / "intel-rapl:2").mkdir()  # shown but not readable
    assert [counter.name for counter in package_counters(tmp_path)] == ["intel-rapl:0", "intel-rapl:1"]

    def run():
        for name in ("intel-rapl:0", "intel-rapl:1"):
            file = tmp_path / name / "energy_uj"
            file.write_text(str((int(file.read_text()) + 60) % 1000))

    assert measure_package_energy(run, 2, root=tmp_path) == pytest.approx(120e-6)  # the first one wrapped
    with pytest.raises(ValueError, match="measure_package_energy: expected repeats of at least 1, got 0"):
        measure_package_energy(run, 0, root=tmp_path)


def test_prices_can_be_a_class_of_ones_own():
    class Additions(Prices):
        def picojoules(self, operation):
            return float(operation.kind == "add")

    table = Additions(**{f.name: getattr(PRICES["horowitz45"], f.name) for f in dataclasses.fields(Prices)})
    report = quintil.energy(nn.Linear(4, 2, bias=False), torch.randn(3, 4), prices=table, backward=False)
    assert report.picojoules() == 24.0
