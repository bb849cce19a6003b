"""Recurrent layers run through a few time steps after the other in evaluation: the same bits as through all at once."""

import pytest
import torch
from conftest import assert_same
from quintil import VecQ
from quintil.nn import VecQGRU, VecQLSTM, recurrent_products
from quintil.nn.recurrent_products import in_pieces
from small_vecq import flat
from torch.nn.utils.rnn import pack_padded_sequence

LAYERS = {
    "lstm": (VecQLSTM, dict(num_layers=2, bidirectional=True)),
    "projected lstm": (VecQLSTM, dict(num_layers=2, bidirectional=True, proj_size=3)),
    "gru": (VecQGRU, dict(num_layers=2, bidirectional=True)),
}
LENGTHS = [2, 9, 7, 1, 9]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("activation_bits", [7, 8])
@pytest.mark.parametrize("rows", [1, 5, 11], ids="{} rows".format)
def test_pieces_change_no_bit(kind, packed, activation_bits, rows, monkeypatch):
    layer_class, keywords = LAYERS[kind]
    layer = layer_class(5, 6, **keywords, scheme=VecQ(weight_bits=4, activation_bits=activation_bits))
    x = torch.randn(9, 5, 5)
    layer(x)  # starts the averages
    layer.eval()
    if packed:
        x = pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
    hx = tuple(torch.randn(4, 5, size) for size in layer._state_sizes())
    hx = hx if len(hx) > 1 else hx[0]
    with torch.no_grad():
        want = flat(layer(x, hx))
        gates = 4 if "lstm" in kind else 3
        monkeypatch.setattr(recurrent_products, "_IN_CACHE", rows * gates * layer.hidden_size)
        got = flat(layer(x, hx))
    for a, b in zip(got, want, strict=True):
        assert_same(a, b, kind)


def test_no_piece_has_more_rows_than_fit_but_for_a_single_step(monkeypatch):
    asked = []

    def run(parts, sizes, states, backwards):
        asked.append(sizes)
        return parts, states

    monkeypatch.setattr(recurrent_products, "_IN_CACHE", 40)
    parts = torch.arange(26.0).reshape(13, 2)
    output, states = in_pieces(run, lambda a, b: parts[a:b], 10, [5, 3, 2, 1, 1, 1], (torch.ones(5, 2),), False)
    assert asked == [[5], [3], [2, 1, 1], [1]]
    assert torch.equal(output, parts) and torch.equal(states[0], torch.ones(5, 2))
