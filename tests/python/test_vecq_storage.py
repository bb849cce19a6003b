"""Files of VecQ's nets: every weight and bias as codes of its bits [VECQ 2.6]."""

from __future__ import annotations

import pytest
import quintil
import torch
from conftest import assert_same, same_bits
from quintil import VecQ
from quintil.models import CnnLstm
from quintil.nn.tensor_file import read_tensors
from small_nets import Net, images
from torch import nn

RECURRENT = {
    "lstm": lambda: nn.LSTM(5, 6, num_layers=2, bidirectional=True),
    "plain lstm": lambda: nn.LSTM(5, 6, bias=False),
    "projected lstm": lambda: nn.LSTM(5, 6, proj_size=3),
    "gru": lambda: nn.GRU(5, 6, num_layers=2),
    "lstm cell": lambda: nn.LSTMCell(5, 6),
}


def first(result) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("bits, published", [(2, 0.63), (4, 1.26), (8, 2.52)])
def test_files_have_the_published_sizes(bits, published, tmp_path):
    """IMDB's net, 10.07 MiB in float32: within 2 %, and what is loaded gives the same logits."""
    model = quintil.quantize_(CnnLstm(generator=torch.Generator().manual_seed(1)), VecQ(bits)).eval()
    path, words = tmp_path / "net", torch.randint(0, 20_000, (3, 100))
    quintil.save_quantized(model, path)
    assert path.stat().st_size / 2**20 == pytest.approx(published, rel=0.02)
    loaded = quintil.load_quantized(CnnLstm(), path)
    with torch.no_grad():
        assert same_bits(loaded(words), model(words))
        loaded.lstm.weight_hh_l0.neg_()
        assert not torch.equal(loaded(words), model(words))


@pytest.mark.parametrize("options", [{}, {"per_channel": True}, {"quantize_bias": False}], ids=str)
@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_layers(kind, options, tmp_path):
    """Codes alone are stored, and parameters far from a normal distribution keep their levels."""
    net = quintil.quantize_(nn.Sequential(RECURRENT[kind]()), VecQ(3, **options)).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(p.sign() * (3 * p).abs().pow(3))
    x = torch.randn(4, 5) if kind == "lstm cell" else torch.randn(7, 4, 5)
    quintil.save_quantized(net, tmp_path / "net")
    tensors, manifest = read_tensors(tmp_path / "net")
    own = [f"0.{name}" for name, p in net[0].named_parameters() if p.dim() > 1 or options.get("quantize_bias", True)]
    assert manifest["others"].keys() == {"0"} and [f"0.{name}" for name in manifest["others"]["0"]] == own
    for name in own:
        p = net.get_parameter(name)
        assert name not in tensors and tensors[f"{name}.codes"].numel() == -(-p.numel() * 3 // 8)
    loaded = quintil.load_quantized(nn.Sequential(RECURRENT[kind]()), tmp_path / "net")
    with torch.no_grad():
        assert same_bits(first(loaded(x)), first(net(x)))
    quintil.save_quantized(loaded, tmp_path / "again")
    again = quintil.load_quantized(nn.Sequential(RECURRENT[kind]()), tmp_path / "again")
    assert_same(first(again(x)), first(net(x)))
    first(loaded.train()(x)).sum().backward()
    assert not any(quantizer.fixed for quantizer in loaded[0].parameter_quantizers.values())


def test_biases_are_codes(tmp_path):
    x = images()
    for scheme, stored in ((VecQ(4), True), (VecQ(4, quantize_bias=False), False), (VecQ(9), False)):
        net = quintil.quantize_(Net(), scheme).eval()
        quintil.save_quantized(net, tmp_path / "net")
        tensors, manifest = read_tensors(tmp_path / "net")
        entry = {"parts": ["codes", "scale"], "shape": [16], "signed": True, "bits": 4}
        assert manifest.get("others", {}).get("body.a") == ({"bias": entry} if stored else None)
        assert ("body.a.bias" in tensors) != stored and ("body.a.bias.codes" in tensors) == stored
        loaded = quintil.load_quantized(Net(), tmp_path / "net")
        with torch.no_grad():
            assert same_bits(loaded(x), net(x))
        assert loaded.body["a"].bias_quantizer.fixed == stored


def test_models_that_do_not_fit(tmp_path):
    quintil.save_quantized(quintil.quantize_(Net(), VecQ(4)), tmp_path / "net")
    plain, bare = Net(), Net()
    plain.body["a"] = nn.Linear(72, 16, bias=False)
    bare.head = nn.Linear(16, 5)
    quintil.save_quantized(quintil.quantize_(nn.Sequential(nn.LSTM(4, 6)), VecQ(4)), tmp_path / "lstm")
    for name, model, message in (
        ("net", plain, "expected model to have the tensors of .*net, got no body.a.bias$"),
        ("net", bare, "got another one, head.bias"),
        ("lstm", nn.Sequential(nn.LSTM(5, 6)), r"expected '0.weight_ih_l0' to be \[24, 4\], got \[24, 5\]"),
        ("lstm", nn.Sequential(nn.LSTM(4, 6, bias=False)), "got no 0.bias_ih_l0$"),
        ("lstm", nn.Sequential(nn.LSTM(4, 6, num_layers=2)), "got another one, 0.bias_hh_l1"),
    ):
        with pytest.raises(ValueError, match=f"^load_quantized: .*{message}"):
            quintil.load_quantized(model, tmp_path / name)


def test_other_files_have_no_entry_for_them(tmp_path):
    """Files of layers with one weight are what they were, for readers that know nothing of more."""
    quintil.save_quantized(quintil.quantize_(Net(), quintil.HDQT()), tmp_path / "net")
    assert set(read_tensors(tmp_path / "net")[1]) == {"format", "schemes", "packed", "bits", "folded", "sha256"}
