"""VecQ on numbers without spread, without elements or not finite, and on what cannot be meant: a defined result or an
error that names it, from ops, layers, `quantize_`, `calibrate` and the script."""

from __future__ import annotations

import copy

import pytest
import quintil
import torch
from conftest import assert_same
from quintil import VecQ
from quintil import functional as Q
from quintil.cli import train_vecq, vecq_run
from quintil.nn import (
    VecQConv1d,
    VecQConv2d,
    VecQConvTranspose2d,
    VecQEmbedding,
    VecQEmbeddingBag,
    VecQGRU,
    VecQLinear,
    VecQLSTM,
    VecQLSTMCell,
    calibrate,
)
from torch import Tensor, nn

SCHEMES = [
    VecQ(4),
    VecQ(1, 8, per_channel=True),
    VecQ(8, 8, lambda_mode="search"),
    VecQ(4, 4, activation_place="output"),
    VecQ(3, 8, levels="ul2q"),
    VecQ(12, 12, drive="norm", sigma="unbiased"),
]
LAYERS = {
    "linear": (VecQLinear, (6, 4), (5, 6)),
    "conv1d": (VecQConv1d, (2, 3, 3), (5, 2, 7)),
    "conv2d": (VecQConv2d, (2, 3, 3), (5, 2, 6, 6)),
    "transposed": (VecQConvTranspose2d, (2, 3, 3), (5, 2, 6, 6)),
    "embedding": (VecQEmbedding, (10, 4), None),
    "bag": (VecQEmbeddingBag, (10, 4), None),
    "lstm": (VecQLSTM, (3, 4), (5, 7, 3)),
    "gru": (VecQGRU, (3, 4), (5, 7, 3)),
    "cell": (VecQLSTMCell, (3, 4), (5, 3)),
}


def made(kind: str, scheme: VecQ) -> tuple[nn.Module, Tensor]:
    """A layer in evaluation mode whose averages have started, and an input [batch, ...]."""
    layer_class, arguments, shape = LAYERS[kind]
    more = {"batch_first": True} if kind in ("lstm", "gru") else {}
    layer = layer_class(*arguments, **more, scheme=scheme)
    x = torch.randint(0, 10, (5, 3)) if shape is None else torch.randn(shape)
    layer(x)
    return layer.eval(), x


@torch.no_grad()
def fill(layer: nn.Module, value: float) -> None:
    for p in layer.parameters():
        p.fill_(value)


def outputs(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Of training, of evaluation with and, where integers may be multiplied, without gradients."""
    twin = copy.deepcopy(layer).train()
    found = [twin(x), layer(x)]
    with torch.no_grad():
        found.append(layer(x))
    return [y[0] if isinstance(y, tuple) else y for y in found]


# Ops --------------------------------------------------------------------------------------------------------------

NUMBERS = {
    "equal": torch.full((3, 4), 0.7),
    "equal, negative": torch.full((3, 4), -0.7),
    "zeros": torch.zeros(3, 4),
    "negative zeros": -torch.zeros(3, 4),
    "one": torch.tensor([0.3]),
    "one without dimensions": torch.tensor(-0.3),
}


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_without_spread_stay(kind, bits):
    x = NUMBERS[kind]
    for lambda_mode in ("table", "search"):
        for drive in ("projection", "norm"):
            y, codes, alpha = Q.vecq_quantize(x, bits, step=Q.vecq_step(x, bits, lambda_mode=lambda_mode), drive=drive)
            torch.testing.assert_close(y, x, rtol=2e-6 if bits > 1 else 1e-5, atol=0)
            assert torch.isfinite(alpha) and bool((codes == codes.flatten()[0]).all())
    y, averages = Q.vecq_activation(x, bits, torch.ones(3), training=True)
    torch.testing.assert_close(y, x, rtol=1e-5, atol=0)
    assert bool(averages.isfinite().all())
    assert [float(loss) for loss in Q.vecq_losses(x, x)] == pytest.approx([0, 0, 0], abs=1e-12)


def test_exact_zeros_lie_on_the_level_above():
    for bits in (1, 2, 8, 16):
        x = torch.tensor([0.0, -0.0, 1.0, -1.0])
        y, codes, alpha = Q.vecq_quantize(x, bits)
        assert codes[:2].tolist() == [0, 0] and bool((y[:2] == alpha / 2).all())
        assert Q.vecq_codes(x, bits, torch.tensor(1.0))[:2].tolist() == [0, 0]


@pytest.mark.parametrize("sizes", [(0,), (3, 0), (0, 3)], ids=str)
def test_nothing_gives_nothing(sizes):
    x = torch.zeros(sizes, requires_grad=True)
    for options in (dict(), dict(per_channel=True), dict(lambda_mode="search")):
        step = Q.vecq_step(x, 4, **options)
        y, codes, alpha = Q.vecq_quantize(x, 4, step=step)
        assert y.shape == codes.shape == x.shape and codes.dtype == torch.int8 and alpha.shape == step.shape
        assert bool(step.isfinite().all()) and bool((alpha == 0).all())
        y.sum().backward()
        assert x.grad.shape == x.shape
    y, averages = Q.vecq_activation(x, 4, torch.tensor([2.0, 3.0, 0.5]), training=True)
    assert y.shape == x.shape and averages.tolist() == [2.0, 3.0, 0.5]
    assert [float(loss) for loss in Q.vecq_losses(x, x)] == [0, 0, 0]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_makes_its_group_nan(value):
    x = torch.randn(3, 4)
    x[1, 2] = value
    for options, spoilt in ((dict(), [0, 1, 2]), (dict(per_channel=True), [1])):
        for lambda_mode in ("table", "search"):
            y, codes, alpha = Q.vecq_quantize(x, 4, step=Q.vecq_step(x, 4, lambda_mode=lambda_mode, **options))
            assert y.isnan().any(1).nonzero().flatten().tolist() == spoilt and bool(y[spoilt].isnan().all())
            assert not codes[spoilt].any() and bool(alpha.isnan().any())
    assert Q.vecq_activation(x, 4, torch.ones(3), training=True)[0].isnan().all()
    assert all(loss.isnan() for loss in Q.vecq_losses(x, x))
    quintil.set_checked(True)
    try:
        for call in (Q.vecq_step, Q.vecq_quantize, lambda x, bits: Q.vecq_codes(x, bits, torch.tensor(1.0))):
            with pytest.raises(ValueError, match=r"expected x to be finite, got"):
                call(x, 4)
    finally:
        quintil.set_checked(False)


@pytest.mark.parametrize("bits", [0, 17, -1])
def test_bits_out_of_range(bits):
    x, ones = torch.randn(4), torch.ones(3)
    calls = [
        lambda: Q.vecq_step(x, bits),
        lambda: Q.vecq_quantize(x, bits),
        lambda: Q.vecq_codes(x, bits, ones[0]),
        lambda: Q.vecq_activation(x, bits, ones, training=True),
        lambda: Q.vecq_activation(x, bits, ones, training=False),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"^vecq_\w+: expected bits in 1\.\.16, got {bits}$"):
            call()
    for field, scheme in (("weight_bits", lambda: VecQ(bits)), ("activation_bits", lambda: VecQ(4, bits))):
        with pytest.raises(ValueError, match=rf"^VecQ: expected {field} in 1\.\.16, got {bits}$"):
            scheme()


# Layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.summary())
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_of_equal_weights(kind, scheme):
    """Zeros multiply to zero, equal weights to what the float layer makes of the same input."""
    layer, x = made(kind, scheme)
    for value in (0.0, 0.5, -0.5):
        fill(layer, value)
        ys = outputs(layer, x)
        assert all(bool(y.isfinite().all()) for y in ys)
        if scheme.activation_bits is None:
            plain = quintil.dequantize_(copy.deepcopy(layer))
            for y, want in zip(ys, outputs(plain, x)):
                torch.testing.assert_close(y, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.summary())
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_of_inputs_without_spread(kind, scheme):
    layer, x = made(kind, scheme)
    whole = outputs(layer, x)
    for y, full in zip(outputs(layer, x[:0]), whole):
        assert y.shape == (0, *full.shape[1:]) and y.dtype == full.dtype
    if x.is_floating_point():
        for value in (0.0, 0.3):
            ys = outputs(layer, torch.full_like(x, value))
            assert all(y.shape == full.shape and bool(y.isfinite().all()) for y, full in zip(ys, whole))


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.summary())
@pytest.mark.parametrize("kind", LAYERS)
def test_nan_in_weights_reaches_every_output_it_may(kind, scheme):
    layer, x = made(kind, scheme)
    fill(layer, torch.nan)
    assert all(bool(y.isnan().all()) for y in outputs(layer, x))


@pytest.mark.parametrize("kind", ["linear", "conv2d", "lstm"])
def test_one_batch_of_nan_does_not_spoil_the_averages(kind):
    layer, x = made(kind, VecQ(4, 8))
    with torch.no_grad():
        want = outputs(layer, x)[2]
        for value in (torch.nan, torch.inf):
            spoilt = x.clone()
            spoilt[0] = value
            y = layer.train()(spoilt)
            assert (y[0] if isinstance(y, tuple) else y).isnan().any()
            layer.eval()
            assert_same(outputs(layer, x)[2], want)


def test_nan_among_codes():
    """Evaluation on integers gives it code 0, evaluation with gradients NaN; checked mode refuses it."""
    layer, x = made("linear", VecQ(4, 8))
    spoilt, zero = x.clone(), x.clone()
    spoilt[0, 0], zero[0, 0] = torch.nan, 0.0
    assert layer(spoilt)[0].isnan().all() and not layer(spoilt)[1:].isnan().any()
    with torch.no_grad():
        assert_same(layer(spoilt), layer(zero))
        quintil.set_checked(True)
        try:
            with pytest.raises(ValueError, match=r"^vecq_codes: expected x to be finite, got"):
                layer(spoilt)
        finally:
            quintil.set_checked(False)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("index", [-1, 10, 2**40])
def test_embedding_index_out_of_range(index, bits):
    layer, x = made("embedding", VecQ(bits, 8, activation_place="output"))
    x[1, 2] = index
    message = rf"^VecQEmbedding: expected indices in 0\.\.9, got {index}$"
    with pytest.raises(IndexError, match=message):
        layer.train()(x)
    with torch.no_grad(), pytest.raises(IndexError, match=message):
        layer.eval()(x)
    bag, _ = made("bag", VecQ(bits))
    with torch.no_grad(), pytest.raises(IndexError, match=message.replace("ding:", "dingBag:")):
        bag(x)
    with pytest.raises(RuntimeError, match=rf"takes value {index} which is not in the valid range \[0, 10\)"):
        bag.train()(x)


@pytest.mark.parametrize("inputs, outs", [(0, 3), (3, 0)])
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.summary())
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_layers_without_weights(inputs, outs, scheme):
    model = quintil.quantize_(nn.Sequential(nn.Linear(inputs, outs)), scheme)
    x = torch.randn(2, inputs)
    y = model(x)
    assert y.shape == (2, outs) and bool(y.isfinite().all())
    if scheme.activation_bits is None or outs == 0 and scheme.activation_place == "input":
        with torch.no_grad():
            assert model.eval()(x).shape == (2, outs)
    if scheme.group_size == 0:
        grouped = quintil.quantize_(nn.Sequential(nn.Linear(4, outs)), VecQ(4, group_size=2))
        assert grouped(torch.randn(2, 4)).shape == (2, outs)


# Models and runs --------------------------------------------------------------------------------------------------


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
