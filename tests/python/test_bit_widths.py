"""Class-incremental nets at several widths: tested after each task, kept in a file, shown in the report."""

from __future__ import annotations

import json

import pytest
import quintil
import torch
from quintil import HDQT
from quintil.continual import RunConfig, run
from quintil.continual.bit_widths import FILE
from quintil.continual.run import prepare
from quintil.nn import DoubleRoundingLinear, get_bits, load_quantized
from quintil.report import write_report
from torch import nn

OPTIONS = dict(dataset="synthetic:har", method="icarl", init_cls=2, increment=2, memory_size=20, epochs=10, lr=0.05,
               batch_size=16, fc_nr_hid=2, fc_hid_dim=24)  # fmt: skip


def config(folder, **changes) -> RunConfig:
    return RunConfig(**{**OPTIONS, "results_dir": str(folder), **changes})


def tasks(path) -> list[dict]:
    return [json.loads(line) for line in (path / "seed0" / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A float32 and an HDQT run, tested at three widths."""
    folder = tmp_path_factory.mktemp("runs")
    options = {"bit_widths": [8, 4, 2], "width_epochs": 2}
    return [run(config(folder, scheme=scheme, **options)) for scheme in (None, HDQT())]


def test_every_task_has_every_width(runs):
    for path in runs:
        for record in tasks(path):
            assert set(record["bit_widths"]) == {"8", "4", "2"}
            for accuracies in record["bit_widths"].values():
                assert set(accuracies) == {"cnn", "nme"} and all(0 <= a <= 100 for a in accuracies.values())
            assert abs(record["bit_widths"]["8"]["nme"] - record["acc_nme"]) < 15


def test_the_learner_goes_on_as_without_them(runs, tmp_path):
    """Random streams, weights and all other numbers are those of a run that tests no widths."""
    plain = run(config(tmp_path))
    for with_widths, without in zip(tasks(runs[0]), tasks(plain)):
        with_widths.pop("bit_widths")
        assert with_widths == without


def test_the_last_net_is_in_a_file(runs, tmp_path):
    for path in runs:
        (stored,) = path.glob(f"seed*/{FILE}")
        net = prepare(config(tmp_path), 0).learner.net
        net.grow(tasks(path)[-1]["classes"])
        load_quantized(net, stored)
        layers = [m for m in net.modules() if isinstance(m, DoubleRoundingLinear)]
        assert len(layers) == len(get_bits(net)) >= 1 and layers[0].widths == [8, 4, 2]
        x = torch.randn(5, next(m for m in net.modules() if isinstance(m, nn.Linear)).in_features)
        with torch.no_grad():
            assert all(quintil.set_bits(net, width)(x).isfinite().all() for width in (8, 4, 2))


def test_the_report_shows_them(runs, tmp_path):
    text = write_report(runs, tmp_path).read_text()
    assert "Accuracy by bit width" in text
    record = tasks(runs[0])[-1]["bit_widths"]["4"]["nme"]
    rows = [line for line in text.splitlines() if line.startswith("| float32 | nearest-mean head | 4 |")]
    assert len(rows) == 1 and rows[0].endswith(f"{record:.2f} |")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"bit_widths": [9]}, "bits"),
        ({"bit_widths": [4, 4]}, "bits"),
        ({"width_epochs": -1}, "expected width_epochs of at least 0, got -1"),
    ],
    ids=str,
)
def test_bad_options(options, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        config(tmp_path, **options)
