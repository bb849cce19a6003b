"""Embeddings and recurrent layers of VecQ [VECQ 2.9]."""

from __future__ import annotations

import copy
import pickle

import pytest
import quintil
import torch
import torch.nn.functional as F
from conftest import assert_same, same_bits
from quintil import VecQ
from quintil.nn import VecQEmbedding, VecQEmbeddingBag, VecQGRU, VecQLSTM, VecQLSTMCell
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

ops = torch.ops.quintil


def levels_of(t, bits, **options):
    return ops.vecq_quantize(t, bits, step=ops.vecq_step(t, bits, **options))[0]


# Tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"per_channel": True}, {"group_size": 3}], ids=str)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 8, 11])
def test_rows_come_from_codes(bits, options):
    for padding_idx in (None, 2):
        layer = VecQEmbedding(11, 9, padding_idx=padding_idx, scheme=VecQ(bits, **options))
        indices = torch.randint(0, 11, (4, 6))
        table = levels_of(layer.weight.detach(), bits, **options)
        if padding_idx is not None:
            table[padding_idx] = 0
        want = F.embedding(indices, table)
        assert_same(layer(indices), want)
        with torch.no_grad():
            assert same_bits(layer.eval()(indices), want)
            codes, _ = layer.stored_codes()
            assert codes.dtype == (torch.uint8 if bits <= 4 else torch.int8 if bits <= 8 else torch.int16)
            assert codes.size(1) == (5 if bits <= 4 else 9)
            for bad in (11, -1):
                with pytest.raises(IndexError):
                    layer(torch.tensor([bad]))
        with pytest.raises(IndexError):
            layer(torch.tensor([11]))


def test_the_gradient_of_a_table_is_that_of_the_float_layer():
    layer, plain = VecQEmbedding(11, 9, padding_idx=0, scheme=VecQ(2)), nn.Embedding(11, 9, padding_idx=0)
    indices, g = torch.randint(0, 11, (20,)), torch.randn(20, 9)
    layer(indices).backward(g)
    plain(indices).backward(g)
    assert_same(layer.weight.grad, plain.weight.grad)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 3])
def test_bags(mode, padding_idx):
    keywords = dict(mode=mode, padding_idx=padding_idx)
    layer, plain = VecQEmbeddingBag(11, 6, **keywords, scheme=VecQ(3)), nn.EmbeddingBag(11, 6, **keywords)
    with torch.no_grad():
        plain.weight.copy_(layer.quantized_weight())
    indices, offsets = torch.randint(0, 11, (12,)), torch.tensor([0, 4, 4, 9])
    weights = torch.rand(12) if mode == "sum" else None
    calls = [
        (indices, offsets, weights),
        (indices.reshape(3, 4), None, None if weights is None else weights.reshape(3, 4)),
    ]
    for call in calls:
        want = plain(*call)
        assert_same(layer.train()(*call), want)
        with torch.no_grad():
            assert_same(layer.eval()(*call), want)
    layer(indices, offsets).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("scheme", [VecQ(3), VecQ(8, per_channel=True), VecQ(4, levels="ul2q")], ids=str)
@pytest.mark.parametrize("padding_idx", [None, 3])
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_scripted_tables_compute_the_same(kind, padding_idx, scheme):
    model = quintil.quantize_(nn.Sequential(kind(11, 6, padding_idx=padding_idx)), scheme)
    scripted = torch.jit.script(copy.deepcopy(model))
    indices = torch.randint(0, 11, (5, 4))
    for training in (True, False):
        model.train(training), scripted.train(training)
        assert_same(scripted(indices), model(indices))
        for module in (model, scripted):
            module(indices).square().sum().backward()
        assert_same(next(scripted.parameters()).grad, model[0].weight.grad)
        with torch.no_grad():
            assert_same(scripted(indices), model(indices))


def test_what_is_looked_up_can_be_quantised():
    layer = VecQEmbedding(50, 9, scheme=VecQ(8, 2, activation_place="output"))
    indices = torch.arange(50)
    y = layer(indices)
    assert len(y.unique()) <= 4
    with torch.no_grad():
        assert len(layer.eval()(indices).unique()) <= 4


def test_tables_that_cannot_be_taken():
    for options, reason in (
        (dict(max_norm=1.0), "max_norm=1.0, which changes the weight"),
        (dict(sparse=True), "sparse=True"),
    ):
        with pytest.raises(ValueError, match=f"'0' \\({reason}\\)"):
            quintil.quantize_(nn.Sequential(nn.Embedding(4, 3, **options)), VecQ(4))


@pytest.mark.parametrize("bits", [2, 4, 7])
def test_files_of_tables(bits, tmp_path):
    def model() -> nn.Sequential:
        return nn.Sequential(nn.Embedding(30, 8, padding_idx=1), nn.Flatten(), nn.Linear(32, 3))

    net, x = quintil.quantize_(model(), VecQ(bits)).eval(), torch.randint(0, 30, (5, 4))
    with torch.no_grad():
        net[0].weight.pow_(3)[1] = 0.5
    quintil.save_quantized(net, tmp_path / "net")
    loaded = quintil.load_quantized(model(), tmp_path / "net")
    with torch.no_grad():
        assert same_bits(loaded(x), net(x))
        assert_same(loaded[0](torch.tensor(1)), torch.full((8,), 0.5))


# Recurrent layers -------------------------------------------------------------------------------------------------


def sequence_layers():
    return {
        "lstm": (VecQLSTM, nn.LSTM, (5, 6), dict(num_layers=2, bidirectional=True, batch_first=True)),
        "plain lstm": (VecQLSTM, nn.LSTM, (5, 6), dict(bias=False)),
        "projected lstm": (VecQLSTM, nn.LSTM, (5, 6), dict(proj_size=3)),
        "gru": (VecQGRU, nn.GRU, (5, 6), dict(num_layers=2)),
    }


def quantised_twin(layer: nn.Module, float_class: type, arguments: tuple, keywords: dict, bits: int) -> nn.Module:
    """The float layer with every parameter on its levels, each a tensor of its own."""
    plain = float_class(*arguments, **keywords)
    with torch.no_grad():
        for name, p in plain.named_parameters():
            p.copy_(levels_of(getattr(layer, name).detach(), bits))
    return plain


def flat(result) -> list[torch.Tensor]:
    output, state = result
    return [output, *(state if isinstance(state, tuple) else (state,))]


@pytest.mark.parametrize("kind", sequence_layers())
def test_sequences_run_on_quantised_parameters(kind):
    layer_class, float_class, arguments, keywords = sequence_layers()[kind]
    layer = layer_class(*arguments, **keywords, scheme=VecQ(3))
    plain = quantised_twin(layer, float_class, arguments, keywords, 3)
    x = torch.randn(7, 4, 5)
    got, want = flat(layer(x)), flat(plain(x))
    for a, b in zip(got, want):
        assert_same(a, b)
    (got[0].sum() + got[1].square().sum()).backward()
    (want[0].sum() + want[1].square().sum()).backward()
    for name, p in plain.named_parameters():
        assert_same(getattr(layer, name).grad, p.grad, name)
    assert_same(layer(x[:, 0])[0], plain(x[:, 0])[0], "without a batch")
    for values, lengths in layer.levels().values():
        assert len(values.unique()) <= 8 and lengths.dim() == 0
    with torch.no_grad():
        for a, b in zip(flat(layer.eval()(x)), flat(plain.eval()(x))):
            assert_same(a, b)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_activations_of_sequences(kind):
    layer_class, float_class, arguments, keywords = sequence_layers()[kind]
    layer = layer_class(*arguments, **keywords, scheme=VecQ(4, 3))
    plain = quantised_twin(layer, float_class, arguments, keywords, 4)
    x = torch.randn(7, 4, 5)
    want = flat(plain(levels_of(x, 3)))
    for a, b in zip(flat(layer(x)), want):
        assert_same(a, levels_of(b, 3))
        assert len(a.unique()) <= 8
    layer.eval()
    with torch.no_grad():
        assert all(len(t.unique()) <= 8 for t in flat(layer(x)))
    assert {name for name in layer.state_dict() if "averages" in name} == {
        f"activation_quantizers.{place}.averages" for place in layer.activations
    }


def test_packed_sequences():
    arguments, keywords = (5, 6), dict(batch_first=True)
    layer = VecQLSTM(*arguments, **keywords, scheme=VecQ(4, 8))
    plain = quantised_twin(layer, nn.LSTM, arguments, keywords, 4)
    packed = pack_padded_sequence(torch.randn(3, 7, 5), torch.tensor([7, 4, 2]), batch_first=True)
    output, (hidden, cell) = layer(packed)
    inner = packed._replace(data=levels_of(packed.data, 8))
    want, (h, c) = plain(inner)
    assert_same(output.data, levels_of(want.data, 8))
    assert_same(hidden, levels_of(h, 8))
    assert_same(cell, levels_of(c, 8))
    assert pad_packed_sequence(output, batch_first=True)[0].shape == (3, 7, 6)


@pytest.mark.parametrize("bias", [True, False])
def test_cells(bias):
    layer = VecQLSTMCell(5, 6, bias=bias, scheme=VecQ(4, 5))
    plain = quantised_twin(layer, nn.LSTMCell, (5, 6), dict(bias=bias), 4)
    x, state = torch.randn(3, 5), (torch.randn(3, 6), torch.randn(3, 6))
    for a, b in zip(layer(x, state), plain(levels_of(x, 5), state)):
        assert_same(a, b)
    for a, b in zip(layer(x[0]), plain(levels_of(x[0], 5))):
        assert_same(a, b)
    layer(x)[0].sum().backward()
    assert layer.weight_ih.grad is not None


class Reviews(nn.Module):
    """Words to one number, as the Keras example does it."""

    def __init__(self, words: int = 60, width: int = 16, filters: int = 12, kernel: int = 3, states: int = 10):
        super().__init__()
        self.table, self.conv = nn.Embedding(words, width), nn.Conv1d(width, filters, kernel)
        self.lstm, self.head = nn.LSTM(filters, states, batch_first=True), nn.Linear(states, 1)

    def forward(self, x):
        x = F.max_pool1d(self.conv(self.table(x).transpose(1, 2)).relu(), 2)
        return self.head(self.lstm(x.transpose(1, 2))[1][0][0]).squeeze(1)


@pytest.mark.parametrize("scheme", [VecQ(2), VecQ(4, 8)], ids=str)
def test_a_model_of_all_of_them_learns(scheme):
    model = quintil.quantize_(Reviews(), scheme)
    assert isinstance(model.lstm, VecQLSTM) and isinstance(model.table, VecQEmbedding)
    x = torch.randint(0, 60, (64, 12))
    y = (x[:, :6].sum(1) > x[:, 6:].sum(1)).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = F.binary_cross_entropy_with_logits(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    model.eval()
    with torch.no_grad():
        want = model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert_same(other(x), want)
    parameters = dict(model.named_parameters())
    quintil.dequantize_(model)
    assert type(model.lstm) is nn.LSTM and dict(model.named_parameters()) == parameters
    assert set(model.state_dict()) == set(Reviews().state_dict())
    assert torch.isfinite(model(x)).all()


@pytest.mark.parametrize("bits, published", [(2, 0.63), (4, 1.26), (8, 2.52)])
def test_every_parameter_takes_the_bits_of_the_scheme_t14(bits, published):
    """10.07 MiB of float32; torch's LSTM has one bias more than the published 2,638,895 parameters."""
    model = quintil.quantize_(Reviews(20_000, 128, 64, 5, 70), VecQ(bits))
    count = sum(p.numel() for p in model.parameters())
    assert count - 4 * 70 == 2_638_895 and round(count * 4 / 2**20, 2) == 10.07
    total = 0
    for layer in model.children():
        for name, p in layer.named_parameters():
            recurrent = getattr(layer, "parameter_quantizers", {})
            quantizer = recurrent[name] if name in recurrent else getattr(layer, f"{name}_quantizer")
            assert len(quantizer(p).unique()) <= 2**bits
            total += quantizer.bits * p.numel()
    assert round(total / 8 / 2**20, 2) == published
