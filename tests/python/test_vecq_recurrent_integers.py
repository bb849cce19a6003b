"""Evaluation of VecQ's recurrent layers multiplies integers: against float64, time step by time step, on the levels of
weights, inputs and states, and against the same layer in float32 [VECQ 2.9, V10]."""

from __future__ import annotations

import copy

import pytest
import quintil
import reference_vecq as reference
import torch
from conftest import assert_same
from quintil import VecQ
from quintil.nn import VecQGRU, VecQLSTM, VecQLSTMCell
from quintil.nn.levels import ActivationQuantizer
from small_vecq import flat
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

BITS = [(4, 8), (8, 8), (7, 7), (1, 4)]
LAYERS = {
    "lstm": (VecQLSTM, dict(num_layers=2, bidirectional=True, batch_first=True)),
    "plain lstm": (VecQLSTM, dict(bias=False)),
    "projected lstm": (VecQLSTM, dict(proj_size=3, num_layers=2)),
    "gru": (VecQGRU, dict(num_layers=2, bidirectional=True)),
    "plain gru": (VecQGRU, dict(bias=False, batch_first=True)),
}
# A state is off by half a step of 2^-15 at most; states of float64 may round to the level beside. Both add up over the
# weights of an output and over time.
TOLERANCE = 5e-5


def started(layer: nn.Module, x: torch.Tensor) -> nn.Module:
    """In evaluation mode, its averages those of some batches; output and states left as they come out."""
    with torch.no_grad():
        for _ in range(3):
            layer(x)
    for place, quantizer in layer.activation_quantizers.items():
        if place != "input":
            quantizer.bits = 0
    return layer.eval()


def made(kind: str, scheme: VecQ) -> tuple[nn.Module, torch.Tensor]:
    layer_class, keywords = LAYERS[kind]
    x = torch.randn(4, 9, 5) if keywords.get("batch_first") else torch.randn(9, 4, 5)
    return started(layer_class(5, 6, **keywords, scheme=scheme), x), x


def values(layer: nn.Module, name: str) -> torch.Tensor | float:
    p = getattr(layer, name, None)
    if p is None:
        return 0.0
    scheme = layer.scheme
    sizes = ()
    if p.dim() > 1:
        sizes = (len(p),) if scheme.per_channel else sizes
        sizes = (len(p), p.size(1) // scheme.group_size) if scheme.group_size else sizes
    return reference.run_values(p.detach(), scheme.weight_bits, sizes)


def one_direction(layer: nn.Module, x: torch.Tensor, own: str, states: list, largest: float) -> tuple:
    """x: [T, B, features] on levels, float64. The outputs, first to last, and the states behind the last."""
    w_ih, w_hh, b_ih, b_hh = (
        values(layer, f"{name}{own}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    outputs = []
    for row in x:
        of_input = row @ w_ih.t() + b_ih
        of_state = reference.state_values(states[0].float(), largest) @ w_hh.t() + b_hh
        if isinstance(layer, VecQGRU):
            states = [reference.gru_step(of_input, of_state, states[0])]
        else:
            h, cell = reference.lstm_step(of_input + of_state, states[1])
            if layer.proj_size:
                h = reference.state_values(h.float(), 1.0) @ values(layer, f"weight_hr{own}").t()
            states = [h, cell]
        outputs.append(states[0])
    return torch.stack(outputs), states


def reference_run(layer: nn.Module, x: torch.Tensor, hx: tuple | None = None) -> list[torch.Tensor]:
    """The layer in float64, all its layers and directions."""
    x = x.transpose(0, 1) if layer.batch_first else x
    quantizer, directions = layer.activation_quantizers["input"], 2 if layer.bidirectional else 1
    sizes = (
        [layer.hidden_size] if isinstance(layer, VecQGRU) else [layer.proj_size or layer.hidden_size, layer.hidden_size]
    )
    if hx is None:
        hx = tuple(torch.zeros(layer.num_layers * directions, x.size(1), size) for size in sizes)
    largest = max(1.0, float(hx[0].abs().max()))
    if getattr(layer, "proj_size", 0):
        rows = [values(layer, name).abs().sum(1).max() for name, _ in layer.named_parameters() if "hr" in name]
        largest = max(largest, float(torch.stack(rows).float().max()))
    output, ends = reference.activation_values(x, quantizer.bits, quantizer.averages), []
    for number in range(layer.num_layers):
        found = []
        for reverse in range(directions):
            own = f"_l{number}{'_reverse' if reverse else ''}"
            states = [s[number * directions + reverse].double() for s in hx]
            outputs, states = one_direction(layer, output.flip(0) if reverse else output, own, states, largest)
            found.append(outputs.flip(0) if reverse else outputs)
            ends.append(states)
        whole = torch.cat(found, -1)
        output = reference.state_values(whole.float(), largest)
    return [whole.transpose(0, 1) if layer.batch_first else whole, *(torch.stack(s) for s in zip(*ends))]


def close(got: list[torch.Tensor], want: list[torch.Tensor], tolerance: float) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want):
        assert a.shape == b.shape and a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b.double().detach(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("options", [{}, {"per_channel": True}, {"group_size": 1}], ids=str)
@pytest.mark.parametrize("bits, activations", BITS)
@pytest.mark.parametrize("kind", LAYERS)
def test_sequences_on_integers(kind, bits, activations, options):
    layer, x = made(kind, VecQ(bits, activations, **options))
    with torch.no_grad():
        assert layer.uses_integers()
        got = flat(layer(x))
    close(got, reference_run(layer, x), TOLERANCE)
    close(got, flat(layer(x)), TOLERANCE)  # with gradients: float32
    assert not layer.uses_integers()


@pytest.mark.parametrize("bits, activations", BITS)
@pytest.mark.parametrize("kind", LAYERS)
def test_one_step_is_exact(kind, bits, activations):
    """No rounding of a state follows another, but in a second layer: float32's own of sums and functions remain."""
    layer_class, keywords = LAYERS[kind]
    x = torch.randn(4, 1, 5) if keywords.get("batch_first") else torch.randn(1, 4, 5)
    layer = started(layer_class(5, 6, **{**keywords, "num_layers": 1}, scheme=VecQ(bits, activations)), x)
    size = layer.hidden_size
    hidden = torch.rand(2 if layer.bidirectional else 1, 4, getattr(layer, "proj_size", 0) or size) * 2 - 1
    hx = (hidden,) if isinstance(layer, VecQGRU) else (hidden, torch.randn(len(hidden), 4, size))
    with torch.no_grad():
        got = flat(layer(x, hx if len(hx) > 1 else hidden))
    close(got, reference_run(layer, x, hx), TOLERANCE if getattr(layer, "proj_size", 0) else 2e-6)


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "weight_hh_l1_reverse"])
def test_a_code_off_by_one_is_seen(name):
    """The tolerance tells neighbouring levels of the widest weights apart."""
    layer, x = made("lstm", VecQ(8, 8))
    with torch.no_grad():
        want = flat(layer(x))
        operands = layer.operands()
        codes = operands[name].weight.clone()
        codes[13, 1] += 1 if codes[13, 1] < 0 else -1  # of a gate whose tanh passes most on
        layer.operands = lambda: {
            **operands,
            name: type(operands[name])(codes, *list(vars(operands[name]).values())[1:]),
        }
        got = flat(layer(x))
    assert max(float((a - b).abs().max()) for a, b in zip(got, want)) > 2 * TOLERANCE


@pytest.mark.parametrize("lengths", [[9, 9, 7, 4], [4, 9, 1, 9]], ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_packed_sequences(kind, lengths):
    layer, x = made(kind, VecQ(4, 8))
    batch_first = layer.batch_first
    packed = pack_padded_sequence(x, lengths, batch_first=batch_first, enforce_sorted=lengths[0] == 9)
    want = layer(packed)
    with torch.no_grad():
        got = layer(packed)
        alone = [flat(layer(x[i, :n] if batch_first else x[:n, i])) for i, n in enumerate(lengths)]
    close(flat(got), flat(want), TOLERANCE)
    output = pad_packed_sequence(got[0], batch_first=True)[0]
    for i, n in enumerate(lengths):
        close([output[i, :n], *(state[:, i] for state in flat(got)[1:])], alone[i], TOLERANCE)


@pytest.mark.parametrize("kind", LAYERS)
def test_states_from_outside(kind):
    """Any size: the steps of states follow the largest."""
    layer, x = made(kind, VecQ(4, 8))
    with torch.no_grad():
        zeros = flat(layer(x))[1:]
        for factor in (0.0, 1.0, 3.0):
            hx = tuple(factor * torch.randn_like(state) for state in zeros)
            given = hx if len(hx) > 1 else hx[0]
            got = flat(layer(x, given))
            close(got, reference_run(layer, x, hx), 4 * TOLERANCE)
            if factor == 0.0:
                assert all(torch.equal(a, b) for a, b in zip(got, flat(layer(x))))
        hx[0][0, 0, 0] = torch.nan
        assert all(state.isnan().any() for state in flat(layer(x, given)))
        with pytest.raises(RuntimeError, match="[Ee]xpected hidden"):
            layer(x, tuple(s[:1, :1] for s in hx) if len(hx) > 1 else hx[0][:, :1])
        with pytest.raises(RuntimeError, match="Expected sequence length to be larger than 0"):
            layer(x[:, :0] if layer.batch_first else x[:0])


@pytest.mark.parametrize("kind", LAYERS)
def test_batches_rows_and_dtypes(kind):
    layer, x = made(kind, VecQ(4, 8))
    with torch.no_grad():
        whole = flat(layer(x))
        single = flat(layer(x[1] if layer.batch_first else x[:, 1]))
        close(single[:2], [whole[0][1] if layer.batch_first else whole[0][:, 1], whole[1][:, 1]], TOLERANCE)
        empty = flat(layer(x[:0] if layer.batch_first else x[:, :0]))
        assert empty[0].numel() == 0 and empty[0].dim() == 3 and empty[1].size(1) == 0
        assert all(t.dtype == torch.float64 for t in flat(layer.double()(x.double())))


@pytest.mark.parametrize("bits, activations", BITS)
@pytest.mark.parametrize("bias", [True, False])
def test_cells_on_integers(bits, activations, bias):
    x, hx = torch.randn(4, 5), (torch.rand(4, 6) * 3 - 1.5, torch.randn(4, 6))
    layer = started(VecQLSTMCell(5, 6, bias=bias, scheme=VecQ(bits, activations)), x)
    quantizer = layer.activation_quantizers["input"]
    row = reference.activation_values(x, quantizer.bits, quantizer.averages)
    state = reference.state_values(hx[0], float(hx[0].abs().max()))
    gates = row @ values(layer, "weight_ih").t() + state @ values(layer, "weight_hh").t()
    want = reference.lstm_step(gates + values(layer, "bias_ih") + values(layer, "bias_hh"), hx[1].double())
    with torch.no_grad():
        assert layer.uses_integers()
        got = layer(x, hx)
        assert_same(layer(x[1], (hx[0][1], hx[1][1]))[0], layer(x[1:2], (hx[0][1:2], hx[1][1:2]))[0][0])
    close(list(got), list(want), 2e-6)
    close(list(got), list(layer(x, hx)), TOLERANCE)


def test_kept_operands_follow_every_change():
    layer, x = made("lstm", VecQ(4, 8))
    for name in ("weight_hh_l1", "bias_ih_l0"):
        with torch.no_grad():
            before = layer(x)[0]
            getattr(layer, name).mul_(-1)
            after = layer(x)[0]
        assert not torch.equal(before, after)
        close([after], [layer(x)[0]], TOLERANCE)
    with torch.no_grad():
        want = layer(x)[0]
        assert_same(copy.deepcopy(layer)(x)[0], want)
        assert_same(layer.train().eval()(x)[0], want)


def test_what_stays_in_float():
    for options in (dict(activation_bits=None), dict(activation_bits=9), dict(weight_bits=9), dict(levels="ul2q")):
        scheme = VecQ(**{"weight_bits": 4, "activation_bits": 8, **options})
        assert not any(kind(5, 6, scheme=scheme).integers for kind in (VecQLSTM, VecQGRU, VecQLSTMCell))
    model = quintil.quantize_(nn.Sequential(nn.LSTM(5, 6)), VecQ(4, 8))
    attributes = set(vars(nn.LSTM(5, 6)))
    assert model[0].integers and isinstance(model[0].activation_quantizers["input"], ActivationQuantizer)
    assert set(vars(quintil.dequantize_(model)[0])) == attributes


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("layer_class", [VecQLSTM, VecQGRU])
def test_rows_do_not_know_of_each_other(layer_class, threads):
    """Of more rows than pass together: the same bits in any company and by any number of threads."""
    x = torch.randn(6, 53, 5)
    layer = started(layer_class(5, 9, bidirectional=True, scheme=VecQ(4, 8)), x)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with torch.no_grad():
            whole = flat(layer(x))
            parts = [flat(layer(x[:, i : i + 7])) for i in range(0, 53, 7)]
    finally:
        torch.set_num_threads(before)
    for got, pieces in zip(whole, zip(*parts)):
        assert_same(got, torch.cat(pieces, 1))


def scan_arguments() -> dict:
    return dict(
        parts=torch.randn(5, 12), sizes=[3, 2], backwards=False, state=torch.randn(3, 3), cell=torch.randn(3, 3),
        weight=torch.randint(-7, 8, (12, 3)).to(torch.int8), lengths=torch.rand(12), step=torch.tensor(2.0**-15),
        odd=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("sizes", [2, 3], r"_lstm_scan: expected sizes >= 0 that do not grow, got \[2, 3\]"),
        ("sizes", [2, 2], r"_lstm_scan: expected state to have sizes\[0\] rows, got 3 and \[2, 2\]"),
        ("parts", torch.randn(4, 12), r"_lstm_scan: expected parts to have the size \[5, 12\], got \[4, 12\] \(state is \[3, 3\]\)"),
        ("cell", torch.randn(3, 4), r"_lstm_scan: expected cell to have the size \[3, 3\], got \[3, 4\] \(state is \[3, 3\]\)"),
        ("weight", torch.zeros(12, 4, dtype=torch.int8), r"_lstm_scan: expected weight to have the size \[12, 3\], got"),
        ("lengths", torch.rand(3), r"_lstm_scan: expected lengths to have the size \[12\], got \[3\]"),
    ],
)  # fmt: skip
def test_scans_refuse_what_does_not_fit(name, value, message):
    with pytest.raises(ValueError, match=message):
        torch.ops.quintil._lstm_scan(**{**scan_arguments(), name: value})


def test_scans_know_their_sizes_without_data():
    meta = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in scan_arguments().items()}
    sizes = [list(t.shape) for t in torch.ops.quintil._lstm_scan(**meta)]
    assert sizes == [list(t.shape) for t in torch.ops.quintil._lstm_scan(**scan_arguments())]
