"""Quantised models in files: the same outputs after loading, the format byte by byte, damaged files refused."""

from __future__ import annotations

import json
import struct

import pytest
import quintil
import torch
from conftest import same_bits
from quintil import HDQT, DoubleRounding
from quintil.nn.tensor_file import read_tensors, write_tensors
from small_nets import Net, images
from torch import nn

WIDTHS = (8, 6, 4, 2)
SCHEMES = {
    "HDQT": HDQT(),
    "HDQT 3 bits": HDQT(bits=3, range_fraction=0.8),
    "HDQT 8 bits": HDQT(bits=8),
    "DoubleRounding": DoubleRounding(),
    "all layers": DoubleRounding(bits=(4, 3, 2), skip_ends=False, activation_offset=True),
    "pairs": DoubleRounding(bits=(6, 2), transitional_norm=True, per_channel=False),
    "float source": DoubleRounding(bits=(4, 2), weight_source="float"),
    "own steps": DoubleRounding(bits=(4, 2), shared_step=False, switch_norm=False),
}


def trained(scheme) -> nn.Module:
    model = quintil.quantize_(Net(), scheme)
    with torch.no_grad():
        for width in getattr(scheme, "bits", ()) if isinstance(scheme, DoubleRounding) else (None,):
            if width is not None:
                quintil.set_bits(model, width)
            for _ in range(2):
                model(images())
    return model.eval()


def outputs(model: nn.Module, scheme, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        if not isinstance(scheme, DoubleRounding):
            return [model(x)]
        return [quintil.set_bits(model, width)(x) for width in scheme.bits]


@pytest.mark.parametrize("name", SCHEMES)
def test_a_loaded_model_computes_the_same(name, tmp_path):
    scheme, x = SCHEMES[name], images()
    model, path = trained(scheme), tmp_path / "model.safetensors"
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
    model, path, x = trained(DoubleRounding()), tmp_path / "model.safetensors", images()
    quintil.save_quantized(quintil.set_bits(model, 2), path)
    for bits, want in ((None, 8), (4, 4), ({"body": 6}, 6)):
        loaded = quintil.load_quantized(Net(), path, bits)
        assert loaded.body["a"].bits == want
    with torch.no_grad():
        assert same_bits(quintil.load_quantized(Net(), path, 4)(x), quintil.set_bits(model, 4)(x))
    with pytest.raises(ValueError, match="expected bits to be one of 8, 6, 4, 2, got 5"):
        quintil.load_quantized(Net(), path, 5)
    loaded = quintil.load_quantized(Net(), path).train()
    loaded(x).sum().backward()  # goes on training
    assert loaded.body["a"].weight.grad is not None


def test_only_integers_are_stored(tmp_path):
    """Of a layer's weight there are its codes and steps, read here without any help."""
    net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    for bits, per_weight in (((8, 4), 1.0), ((4, 2), 0.5)):
        model, path = quintil.quantize_(net, DoubleRounding(bits=bits)), tmp_path / "m.safetensors"
        model(torch.rand(8, 4))
        layer = model[2]
        quintil.save_quantized(model, path)
        data = path.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        assert length % 8 == 0 and "2.weight" not in header and "0.weight" in header
        start, stop = header["2.codes"]["data_offsets"]
        assert stop - start == 64 * 64 * per_weight
        raw = torch.frombuffer(bytearray(data[8 + length + start : 8 + length + stop]), dtype=torch.uint8)
        codes = layer.weight_codes()[0].flatten()
        if bits[0] == 8:
            assert torch.equal(raw.view(torch.int8), codes)
        else:
            assert torch.equal((codes[0::2] & 15) | ((codes[1::2] & 15) << 4), raw.view(torch.int8))
        meta = header["__metadata__"]
        assert meta["format"] == "quintil 1" and json.loads(meta["schemes"])["2"] == layer.scheme.to_dict()
        assert json.loads(meta["packed"]) == {"2": {"shape": [64, 64], "signed": True, "bits": bits[0]}}
        assert len(data) < 64 * 64 * per_weight + 5000


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
    model = trained(DoubleRounding(skip_ends=False))
    quintil.nn.fold_norms_(model)
    with pytest.raises(ValueError, match="expected a model that is not folded, got a gain in 'stem.0'"):
        quintil.save_quantized(model, tmp_path / "n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def test_files_that_do_not_fit(tmp_path):
    path = tmp_path / "m"
    quintil.save_quantized(trained(DoubleRounding()), path)
    whole = path.read_bytes()
    with pytest.raises(FileNotFoundError, match="expected .*absent to be a file, got none"):
        quintil.load_quantized(Net(), tmp_path / "absent")
    for damaged, message in (
        (whole[:5], "to be a whole safetensors file"),
        (whole[:200], "to be a whole safetensors file"),
        (whole[:-1], "to be a whole safetensors file"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "to have the checksum in its header, got changed contents"),
        (whole.replace(b"quintil 1", b"quintil 7"), "to have the format 'quintil 1', got 'quintil 7'"),
    ):
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            quintil.load_quantized(Net(), tmp_path / "damaged")
    wide = Net()
    wide.body["a"] = nn.Linear(80, 16)
    extra = Net()
    extra.tail = nn.Linear(2, 2)
    bare = Net()
    bare.head = nn.Linear(16, 5, bias=True)
    for model, message in (
        (wide, r"the weight of 'body.a' to be \[16, 72\], got \[16, 80\]"),
        (extra, "to have the tensors of .*, got another one, tail.bias"),
        (bare, "to have the tensors of .*, got another one, head.bias"),
        (nn.Sequential(nn.Linear(2, 2)), "swap_layers: expected model to hold a module 'stem.1', got none"),
    ):
        with pytest.raises(ValueError, match=message):
            quintil.load_quantized(model, path)


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
    write_tensors(tmp_path / "t", tensors, {"note": "ä"})
    found, metadata = read_tensors(tmp_path / "t")
    assert list(found) == list(tensors) and metadata["note"] == "ä"
    assert all(same_bits(found[name], tensor) and found[name].shape == tensor.shape for name, tensor in tensors.items())
    with pytest.raises(TypeError, match=r"expected a dtype of safetensors, got torch.complex64 \('z'\)"):
        write_tensors(tmp_path / "z", {"z": torch.zeros(1, dtype=torch.complex64)}, {})
    assert not (tmp_path / "z").exists()
