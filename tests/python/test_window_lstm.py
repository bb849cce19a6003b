"""WindowLSTM equals torch's LSTM, its layers take a scheme, and runs on windows of signals learn and resume."""

from __future__ import annotations

import numpy as np
import pytest
import quintil
import torch
from data_trees import hapt_tree
from quintil.continual import RunConfig, preset, run
from quintil.models import WindowLSTM
from torch import nn


def test_it_is_torchs_lstm_over_frames():
    torch.manual_seed(0)
    net, x = WindowLSTM(3, 8, frame=5), torch.randn(4, 3, 32)
    other = nn.LSTM(15, 8, batch_first=True)
    with torch.no_grad():
        other.weight_ih_l0.copy_(net.input.weight)
        other.weight_hh_l0.copy_(net.state.weight)
        other.bias_ih_l0.copy_(net.input.bias)
        other.bias_hh_l0.zero_()
    frames = torch.stack([x[:, :, 5 * t : 5 * t + 5].reshape(4, 15) for t in range(6)], dim=1)
    torch.testing.assert_close(net(x), other(frames)[1][0][0])
    assert net.out_features == 8 and net.input.bias[8:16].eq(1).all() and net.input.bias.sum() == 8


def test_weights_come_from_the_generator():
    nets = [WindowLSTM(2, 4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(nets[0].state.weight, nets[1].state.weight)
    assert not torch.equal(nets[0].state.weight, nets[2].state.weight)
    assert nets[0].input.weight.abs().max() <= 0.5


@pytest.mark.parametrize("scheme", [quintil.HDQT(), quintil.HDQT.paper(), quintil.VecQ(4, 8)], ids=lambda s: s.name)
def test_a_scheme_swaps_both_products_and_gradients_pass_through_all_steps(scheme):
    torch.manual_seed(0)
    net = quintil.quantize_(WindowLSTM(3, 16), scheme)
    assert type(net.state) is not nn.Linear and type(net.input) is not nn.Linear
    x = torch.randn(8, 3, 32, requires_grad=True)
    net(x).square().sum().backward()
    assert x.grad[:, :, :4].abs().sum() > 0 and net.state.weight.grad.abs().sum() > 0


def test_bad_windows():
    net = WindowLSTM(3, 4)
    for shape in ((2, 3), (2, 3, 3), (2, 3, 8, 8)):
        with pytest.raises(ValueError, match="WindowLSTM: expected x .N, C, L. with L of at least 4, got"):
            net(torch.zeros(shape))
    with pytest.raises(ValueError, match="expected channels, hidden and frame of at least 1, got 0, 64 and 4"):
        WindowLSTM(0)


def test_windows_of_hapt_are_the_signals(tmp_path):
    root = hapt_tree(tmp_path, users=range(1, 5))[0]
    data = quintil.data.load("hapt_windows", root, normalise="none", subjects_drop=(), classes_drop=())
    assert data.x_train.shape[1:] == (6, 128) and data.x_train.dtype == torch.float32
    assert data.features == "windows of 128 samples of the raw signals"
    signal = [np.loadtxt(root / f"HAPT Data Set/RawData/{k}_exp01_user01.txt") for k in ("acc", "gyro")]
    first = np.concatenate([s[4 : 4 + 128] for s in signal], axis=1).T
    np.testing.assert_allclose(data.x_train[0], first, rtol=1e-6)
    scaled = quintil.data.load("hapt_windows", root, normalise="zscore_train").x_train
    torch.testing.assert_close(scaled.mean((0, 2)), torch.zeros(6), atol=1e-4, rtol=0)


def windows(tmp_path) -> str:
    """A custom data set of windows: each class a wave of its own frequency."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 60)
    time = np.arange(64) / 64
    phase = rng.uniform(0, 2 * np.pi, (240, 2, 1))
    x = np.sin(2 * np.pi * (2 + 3 * labels[:, None, None]) * time + phase) + 0.1 * rng.normal(size=(240, 2, 64))
    x = x.astype(np.float32)
    sides = {"x_train": x[::2], "y_train": labels[::2], "x_test": x[1::2], "y_test": labels[1::2]}
    np.savez(tmp_path / "waves.npz", **sides)
    return f"custom:{tmp_path / 'waves.npz'}"


def test_a_run_learns_waves_by_integers(tmp_path):
    config = RunConfig(
        windows(tmp_path), model="lstm", increment=2, memory_size=40, epochs=15, lr=0.2, batch_size=32, fc_hid_dim=24,
        threads=1, scheme=quintil.HDQT.best(), results_dir=str(tmp_path / "runs"),
    )  # fmt: skip
    found = quintil.metrics.read_run(run(config))
    assert found.seeds[0].config["network"] == "WindowLSTM"
    assert found.seeds[0].summary["last_acc_cnn"] > 60  # of 4 classes


def test_what_does_not_fit_is_refused(tmp_path):
    base = RunConfig("digits", model="lstm", increment=5, epochs=1, results_dir=str(tmp_path))
    with pytest.raises(
        ValueError, match=r"build_net: expected windows \[channels, length\] for lstm, got samples \[64\]"
    ):
        run(base)
    with pytest.raises(ValueError, match="memo: expected model to be fcnet, resnet20 or resnet32, got lstm"):
        run(base.replace(dataset=windows(tmp_path), method="memo", increment=2))
    assert preset("hdqt-hapt-windows").model == "lstm"
