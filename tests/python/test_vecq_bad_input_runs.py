"""Models and runs of VecQ that cannot be meant: an error that names it from `quantize_`, `calibrate` and the script."""

from __future__ import annotations

import pytest
import quintil
import torch
from quintil import VecQ
from quintil.cli import train_vecq, vecq_run
from quintil.nn import calibrate
from torch import nn


@pytest.mark.parametrize("model", [nn.Sequential(), nn.ReLU(), nn.BatchNorm1d(3), nn.Sequential(nn.Dropout())], ids=str)
def test_models_without_a_layer_to_quantise(model):
    for scheme in (VecQ(4), VecQ(4, 8, activation_place="before_activation")):
        with pytest.raises(ValueError, match="^quantize_: expected model to hold a layer that VecQ swaps, got none$"):
            quintil.quantize_(model, scheme)
    with pytest.raises(ValueError, match="^calibrate: expected model to have quantised activations, got none"):
        calibrate(model, [torch.randn(2, 3)])


def test_what_is_no_model_and_what_starts_nothing():
    with pytest.raises(TypeError, match="^quantize_: expected model to be an nn.Module, got NoneType$"):
        quintil.quantize_(None, VecQ(4))
    with pytest.raises(TypeError, match="^calibrate: expected model to be an nn.Module, got list$"):
        calibrate([], [])
    for batches in ([torch.zeros(0, 6)], [torch.full((2, 6), torch.nan)] * 3):
        model = quintil.quantize_(nn.Sequential(nn.Linear(6, 4)), VecQ(4, 8))
        with pytest.raises(
            ValueError, match="^calibrate: expected batches to hold finite numbers, got none that start"
        ):
            calibrate(model, batches)
        with pytest.raises(RuntimeError, match="^VecQ: expected a training forward or calibrate"):
            model(torch.randn(2, 6))


OPTIONS = "--dataset digits --epochs 1 --batch_size 24 --limit_batches 2 --threads 1"


@pytest.mark.parametrize(
    "more, message",
    [
        ("--weight_bits 0", "VecQ: expected weight_bits in 1..16, got 0"),
        ("--weight_bits 17", "VecQ: expected weight_bits in 1..16, got 17"),
        ("--activation_bits 0", "VecQ: expected activation_bits in 1..16, got 0"),
        ("--activation_bits 17", "VecQ: expected activation_bits in 1..16, got 17"),
        ("--levels ul2q --lambda_mode search", "VecQ: expected lambda_mode 'table' with levels 'ul2q', got 'search'"),
        ("--epochs 0", "SwitchConfig: expected epochs of at least 1, got 0"),
        ("--lr nan", "SwitchConfig: expected lr >= 0 and finite, got nan"),
        ("--lr -1", "SwitchConfig: expected lr >= 0 and finite, got -1.0"),
        ("--weight_decay inf", "SwitchConfig: expected weight_decay >= 0 and finite, got inf"),
        ("--batch_size 0", "TensorBatches: expected batch_size of at least 1, got 0"),
        ("--limit_batches -1", "TensorBatches: expected limit of at least 0, got -1"),
        ("--calibration 0", "VecQRun: expected calibration of at least 1, got 0"),
        ("--threads 0", "torch_threads: expected at least 1 thread, got 0"),
    ],
)
def test_runs_refused_in_one_line(more, message, tmp_path, capsys):
    assert train_vecq.main([*OPTIONS.split(), "--results_dir", str(tmp_path), *more.split()]) == 1
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_run_whose_loss_is_not_finite(tmp_path, monkeypatch, capsys):
    def spoilt(run, batches):
        model = made_model(run, batches)
        model[0].weight.data[0, 0, 0, 0] = torch.nan
        return model

    made_model = vecq_run.make_model
    monkeypatch.setattr(vecq_run, "make_model", spoilt)
    assert train_vecq.main([*OPTIONS.split(), "--results_dir", str(tmp_path)]) == 1
    assert (
        capsys.readouterr().err
        == "error: train_vecq: expected a finite loss, got nan in epoch 1 (a lower lr may help)\n"
    )
    assert not list(tmp_path.rglob("summary.json"))
