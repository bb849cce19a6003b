"""Layers of VecQ whose weights or inputs have no spread, no elements, NaN or infinities, or an index out of range."""

from __future__ import annotations

import copy

import pytest
import quintil
import torch
from conftest import assert_same
from quintil import VecQ
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
