"""Quantised models in files: the same outputs after loading, the format byte by byte."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest
import quintil
import torch
from conftest import same_bits
from quintil import HDQT, DoubleRounding
from quintil.models import PreActResNet
from quintil.models.preact import PreActBlock
from quintil.nn.packing import pack_codes, unpack_codes
from quintil.nn.tensor_file import read_tensors, write_tensors
from small_nets import Net, images, trained_with
from torch import nn

SCHEMES = {
    "HDQT": HDQT(),
    "HDQT 3 bits": HDQT(bits=3, range_fraction=0.8),
    "HDQT 8 bits": HDQT(bits=8),
    "DoubleRounding": DoubleRounding(),
    "all layers": DoubleRounding(bits=(4, 3, 2), skip_ends=False, activation_offset=True),
    "pairs": DoubleRounding(bits=(6, 2), transitional_norm=True, per_channel=False),
    "float source": DoubleRounding(bits=(4, 2), weight_source="float"),
    "own steps": DoubleRounding(bits=(4, 2), shared_step=False, switch_norm=False),
    "two bits": DoubleRounding(bits=(2, 1), per_channel=False),
}


def outputs(model: nn.Module, scheme, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        if not isinstance(scheme, DoubleRounding):
            return [model(x)]
        return [quintil.set_bits(model, width)(x) for width in scheme.bits]


@pytest.mark.parametrize("name", SCHEMES)
def test_a_loaded_model_computes_the_same(name, tmp_path):
    scheme, x = SCHEMES[name], images()
    model, path = trained_with(scheme), tmp_path / "model.safetensors"
    want = outputs(model, scheme, x)
    quintil.save_quantized(model, path)
    for start in (Net(), quintil.quantize_(Net(), scheme), quintil.quantize_(Net(), HDQT(bits=5))):
        loaded = quintil.load_quantized(start, path)
        assert loaded is start and not any(m.training for m in loaded.modules())
        assert {n: type(m) for n, m in loaded.named_modules()} == {n: type(m) for n, m in model.named_modules()}
        assert all(same_bits(a, b) for a, b in zip(outputs(loaded, scheme, x), want))
    again = tmp_path / "again.safetensors"
    quintil.save_quantized(loaded, again)
    assert again.read_bytes() == path.read_bytes()


def test_the_widths_of_a_loaded_model(tmp_path):
    model, path, x = trained_with(DoubleRounding()), tmp_path / "model.safetensors", images()
    quintil.save_quantized(quintil.set_bits(model, 2), path)
    for bits, want in ((None, 8), (4, 4), ({"body": 6}, 6)):
        loaded = quintil.load_quantized(Net(), path, bits)
        assert loaded.body["a"].bits == want
    with torch.no_grad():
        assert same_bits(quintil.load_quantized(Net(), path, 4)(x), quintil.set_bits(model, 4)(x))
    with pytest.raises(ValueError, match="expected bits to be one of 8, 6, 4, 2, got 5"):
        quintil.load_quantized(Net(), path, 5)
    with pytest.raises(ValueError, match="expected bits to be one of 8, 6, 4, 2, got 16"):
        quintil.load_quantized(Net(), path, {"*": 4, "body": 16})
    with pytest.raises(KeyError, match=r"expected names of layers, got 'body.q' \(nearest: body.b"):
        quintil.load_quantized(Net(), path, {"body.q": 4})
    quintil.save_quantized(trained_with(HDQT()), tmp_path / "hdqt")
    with pytest.raises(ValueError, match="expected model to hold layers of several widths, got none"):
        quintil.load_quantized(Net(), tmp_path / "hdqt", 4)
    loaded = quintil.load_quantized(Net(), path).train()
    loaded(x).sum().backward()  # goes on training
    assert loaded.body["a"].weight.grad is not None


def test_only_integers_are_stored(tmp_path):
    """Of a layer's weight there are its codes and steps, read here without any help; the checksum is as documented."""
    net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 63), nn.ReLU(), nn.Linear(63, 2))
    for bits in (8, 7, 6, 5, 4, 3, 2):
        model, path = quintil.quantize_(net, DoubleRounding(bits=(bits, 1))), tmp_path / "m.safetensors"
        model(torch.rand(8, 4))
        layer = model[2]
        quintil.save_quantized(model, path)
        data = path.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
        text = header.pop("__metadata__")["quintil"]
        assert "2.weight" not in header and "0.weight" in header
        start, stop = header["2.codes"]["data_offsets"]
        assert stop - start == 63 * 64 * bits / 8
        stream = int.from_bytes(body[start:stop], "little")
        codes = [(stream >> (bits * place)) % 2**bits for place in range(63 * 64)]
        assert codes == (layer.weight_codes()[0].flatten().to(torch.int64) % 2**bits).tolist()
        manifest = json.loads(text)
        assert manifest["format"] == 1 and manifest["schemes"]["2"] == layer.scheme.to_dict()
        assert manifest["packed"] == {"2": {"parts": ["codes"], "shape": [63, 64], "signed": True, "bits": bits}}
        assert manifest["bits"] == {"2": bits} and manifest["folded"] == {"norms": [], "layers": []}
        assert len(data) < 63 * 64 * bits / 8 + 5000
        checksum = hashlib.sha256()
        parts = [text[:-66].encode()]
        for name, entry in sorted(header.items()):
            start, stop = entry["data_offsets"]
            sizes = ",".join(map(str, entry["shape"]))
            parts += [name.encode(), entry["dtype"].encode(), sizes.encode(), body[start:stop]]
        for part in parts:
            checksum.update(str(len(part)).encode() + b":" + part)
        assert manifest["sha256"] == checksum.hexdigest() and text.endswith(manifest["sha256"] + '"}')


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("signed", [True, False])
def test_a_stream_of_bits_holds_every_code(bits, signed):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    every = torch.arange(low, high + 1).to(torch.int8 if signed else torch.uint8)
    for codes in (every, every.flip(0)[:-1].reshape(-1, 1), every[:3], every[:0].reshape(0, 4)):
        packed = pack_codes(codes, bits)
        assert packed.dtype == torch.uint8 and packed.shape == (-(-codes.numel() * bits // 8),)
        found = unpack_codes(packed, bits, codes.shape, signed)
        assert found.dtype == codes.dtype and torch.equal(found, codes)


def test_eight_bits_are_a_quarter_of_float32(tmp_path):
    """ResNet-18: only the ends, steps and BatchNorms are float."""
    net = PreActResNet(PreActBlock, (2, 2, 2, 2), 64, 10)
    numbers = sum(p.numel() for p in net.parameters())
    for bits, most in (((8, 6, 4, 2), 0.26), ((4, 2), 0.135), ((2,), 0.072)):
        model = quintil.quantize_(net, DoubleRounding(bits=bits))
        with torch.no_grad():
            model.train()(torch.randn(2, 3, 8, 8))
        quintil.save_quantized(model, tmp_path / "m")
        assert bits[0] / 32 < (tmp_path / "m").stat().st_size / (4 * numbers) < most


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(3, 4), torch.rand(3, 4), -torch.rand(3, 4), torch.eye(4) - 1e-9, torch.full((2, 2), -3.0),
        torch.tensor([[1.0, -1e-3], [0.5, 0.2]]), torch.tensor([[-1.0, 1.0]]), torch.zeros(0, 4),
    ],
    ids=["zero", "positive", "negative", "faint negative", "equal", "one faint", "ends", "empty"],
)  # fmt: skip
def test_weights_that_are_hard_for_a_dynamic_range(weight, tmp_path):
    """The loaded float weight has the stored codes, step and sign when HDQT looks at it again."""
    layer = nn.Linear(*reversed(weight.shape), bias=False)
    layer.weight.data = weight.clone()
    layer = quintil.quantize_(nn.Sequential(layer), HDQT()).eval()
    quintil.save_quantized(layer, tmp_path / "m")
    other = quintil.load_quantized(nn.Sequential(nn.Linear(*reversed(weight.shape), bias=False)), tmp_path / "m")
    x = torch.randn(5, weight.size(1))
    with torch.no_grad():
        assert same_bits(other(x), layer(x))


def test_a_single_layer_and_what_is_not_stored(tmp_path):
    layer = quintil.quantize_(nn.Linear(6, 3), HDQT())
    quintil.save_quantized(layer, tmp_path / "m")
    assert set(read_tensors(tmp_path / "m")[0]) == {"codes", "scale", "peak", "bias"}
    x = torch.rand(2, 6)
    with torch.no_grad():
        assert same_bits(quintil.load_quantized(nn.Linear(6, 3), tmp_path / "m")(x), layer.eval()(x))
    with pytest.raises(ValueError, match="expected model to hold swapped layers, got none"):
        quintil.save_quantized(Net(), tmp_path / "n")
    with pytest.raises(RuntimeError, match="8 bits: expected a training forward"):
        quintil.save_quantized(quintil.quantize_(Net(), DoubleRounding()), tmp_path / "n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


@pytest.mark.parametrize("options", [{"skip_ends": False}, {}, {"skip_ends": False, "weight_source": "float"}], ids=str)
def test_folded_models(options, tmp_path):
    """The fold comes back in a float model, a swapped one and one that was folded at another width."""
    scheme, x = DoubleRounding(**options), images()
    model, path, again = trained_with(scheme), tmp_path / "m", tmp_path / "again"
    folded_before = quintil.quantize_(Net(), scheme)
    quintil.nn.fold_norms_(folded_before)
    quintil.set_bits(model, {"*": 4, "body.a": 6})
    assert quintil.nn.fold_norms_(model) == ["stem.1"]
    with torch.no_grad():
        want = model(x)
        quintil.save_quantized(model, path)
        for start in (Net(), quintil.quantize_(Net(), scheme), folded_before, quintil.quantize_(Net(), HDQT())):
            loaded = quintil.load_quantized(start, path)
            assert same_bits(loaded(x), want) and isinstance(loaded.stem[1], nn.Identity)
            assert {n: type(m) for n, m in loaded.named_modules()} == {n: type(m) for n, m in model.named_modules()}
            quintil.save_quantized(loaded, again)
            assert again.read_bytes() == path.read_bytes()
        quintil.set_bits(model, {"body.a": 2})
        assert same_bits(quintil.load_quantized(Net(), path, {"body.a": 2})(x), model(x))
    if not scheme.skip_ends:
        with pytest.raises(ValueError, match=r"expected bits to be one of 4, got 8 \(layer 'stem.0'\)"):
            quintil.load_quantized(Net(), path, 8)
    other = Net()
    other.stem[1] = nn.GroupNorm(2, 8)
    with pytest.raises(ValueError, match="expected 'stem.1' to be a BatchNorm, since one was folded, got GroupNorm"):
        quintil.load_quantized(other, path)
    whole = tmp_path / "whole"
    quintil.save_quantized(trained_with(scheme), whole)
    with pytest.raises(ValueError, match="expected (model to have the tensors of|'stem.1' to be a layer that)"):
        quintil.load_quantized(loaded, whole)


def test_tensors_of_every_kind(tmp_path):
    kinds = (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int8,
        torch.uint8,
    )
    tensors = {str(kind): (torch.arange(6).reshape(2, 3) - 3).to(kind).t() for kind in kinds}
    tensors |= {"flags": torch.tensor([True, False]), "scalar": torch.tensor(2.5), "empty": torch.empty(0, 4)}
    tensors["again"] = tensors["scalar"]
    write_tensors(tmp_path / "t", tensors, {"note": 'ä "\\'})
    found, manifest = read_tensors(tmp_path / "t")
    assert found.keys() == tensors.keys() and manifest["note"] == 'ä "\\'
    assert all(same_bits(found[name], tensor) and found[name].shape == tensor.shape for name, tensor in tensors.items())
    with pytest.raises(TypeError, match="^write_tensors: expected dtypes of safetensors, got torch.complex128$"):
        write_tensors(tmp_path / "z", {"z": torch.zeros(1, dtype=torch.complex128)}, {})
    assert not (tmp_path / "z").exists()
