"""Programs without Python load files of VecQ and compute what Python does, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import quintil
import torch
from conftest import same_bits
from quintil import HDQT, VecQ
from quintil.nn.packing import pack_codes
from quintil.nn.tensor_file import read_tensors, write_tensors
from small_nets import Net, images, trained_with
from test_cpp_storage import export, logits, refusal, script
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

NETS = {
    "Net": (Net, images),
    "grouped and transposed": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1, groups=2, padding_mode="circular"), nn.ReLU(),
            nn.ConvTranspose2d(6, 4, 3, stride=2), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 5),
        ),
        lambda: torch.randn(3, 4, 6, 6),
    ),
    "signals": (
        lambda: nn.Sequential(nn.Conv1d(6, 9, 3, padding="same"), nn.Tanh(), nn.Flatten(), nn.Linear(63, 5)),
        lambda: torch.randn(3, 6, 7),
    ),
    "words": (
        lambda: nn.Sequential(nn.Embedding(20, 9, padding_idx=3), nn.Flatten(), nn.Linear(45, 5)),
        lambda: torch.arange(20).reshape(4, 5),
    ),
    "bags": (
        lambda: nn.Sequential(nn.EmbeddingBag(20, 9, mode="sum"), nn.Linear(9, 5)),
        lambda: torch.arange(20).reshape(4, 5),
    ),
}  # fmt: skip
SHARED = (VecQ(1), VecQ(3, 6, quantize_bias=False), VecQ(5, 8, per_channel=True), VecQ(9, 8))
SCHEMES = {
    "Net": (
        *SHARED, VecQ(4, 8, activation_place="output"), VecQ(8, 8), VecQ(4, levels="ul2q"),
        VecQ(2, 8, activation_place="before_activation"),
    ),
    **{name: (*SHARED, VecQ(4, 8, group_size=9)) for name in NETS if name != "Net"},
}  # fmt: skip


def quantized(make, scheme: VecQ, x: torch.Tensor) -> nn.Module:
    """In evaluation, with averages that have started and parameters far from a normal distribution."""
    net = quintil.quantize_(make(), scheme)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(p.sign() * (3 * p).abs().pow(3))
        net(x)
    return net.eval()


@pytest.mark.parametrize(
    "name, scheme",
    [(name, scheme) for name, schemes in SCHEMES.items() for scheme in schemes],
    ids=lambda value: value.summary() if isinstance(value, VecQ) else value,
)
def test_the_same_logits(name, scheme, tmp_path):
    """Levels chosen anew from the loaded numbers would be others, so their lengths must be kept."""
    make, inputs = NETS[name]
    x = inputs()
    net = quantized(make, scheme, x)
    export(net, x, tmp_path)
    quintil.nn.script(net, values=False).save(str(tmp_path / "module.pt"))
    loaded = quintil.load_quantized(make(), tmp_path / "m.safetensors")
    with torch.no_grad():
        want = loaded(x)
        assert same_bits(want, net(x))
    assert same_bits(logits(tmp_path), want)


def test_values_of_the_module_are_lost(tmp_path):
    """Lengths too, which it keeps for parameters that it loaded itself."""
    x = images()
    first, second = quantized(Net, VecQ(3, 8), x), quantized(Net, VecQ(3, 8), x)
    export(first, x, tmp_path)
    loaded = quintil.load_quantized(Net(), tmp_path / "m.safetensors")
    torch.jit.script(loaded).save(str(tmp_path / "module.pt"))
    quintil.save_quantized(second, tmp_path / "m.safetensors")
    with torch.no_grad():
        assert same_bits(logits(tmp_path), second(x)) and not torch.equal(loaded(x), second(x))
        script(quintil.quantize_(Net(), VecQ(3, 8)), tmp_path)
        quintil.save_quantized(quintil.load_quantized(Net(), tmp_path / "m.safetensors"), tmp_path / "m.safetensors")
        assert same_bits(logits(tmp_path), second(x))


def test_architectures_without_widths(tmp_path):
    model, x = trained_with(HDQT()), images()
    export(model, x, tmp_path)
    scripted = quintil.nn.script(model, values=False)
    assert not hasattr(scripted, "set_bits") and not any(p.any() for p in scripted.parameters())
    scripted.save(str(tmp_path / "module.pt"))
    with torch.no_grad():
        assert same_bits(logits(tmp_path), model(x))


def rewritten(path: Path, change) -> None:
    """The file with tensors and manifest changed in place, whole again."""
    tensors, manifest = read_tensors(path)
    manifest.pop("sha256")
    change(tensors, manifest)
    write_tensors(path, tensors, manifest)


def bias_of_a_norm(tensors: dict, manifest: dict) -> None:
    manifest["others"]["stem.1"] = {"bias": {"parts": ["codes", "scale"], "shape": [8], "signed": True, "bits": 4}}
    tensors["stem.1.bias.codes"] = pack_codes(torch.zeros(8, dtype=torch.int8), 4)
    tensors["stem.1.bias.scale"] = torch.ones(())


WHOLE = "to be a whole file of quintil, got "


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t, m: t.pop("body.a.scale"), f"{WHOLE}no tensor 'body.a.scale'"),
        (lambda t, m: t.pop("body.a.bias.codes"), f"{WHOLE}no tensor 'body.a.bias.codes'"),
        (lambda t, m: t.pop("head.weight_quantizer.alpha"), f"{WHOLE}no tensor 'head.weight_quantizer.alpha'"),
        (lambda t, m: t.pop("head.input_quantizer.averages"), "got another one, head.input_quantizer.averages"),
        (lambda t, m: t.update({"body.a.scale": torch.ones(3)}), f"{WHOLE}a scale of [3] for codes of [16, 72]"),
        (lambda t, m: t.update({"body.a.scale": torch.ones(16, 5)}), f"{WHOLE}a scale of [16, 5] for codes of [16, 72]"),
        (lambda t, m: t.update({"body.a.scale": torch.ones(16, 0)}), f"{WHOLE}a scale of [16, 0] for codes of [16, 72]"),
        (lambda t, m: t.update({"body.a.scale": torch.ones(16)}),
         "expected 'body.a.weight_quantizer.alpha' to be [16], got []"),
        (lambda t, m: t.update({"body.a.bias.scale": torch.ones(1, 1)}), f"{WHOLE}a scale of [1, 1] for codes of [16]"),
        (lambda t, m: m["others"]["body.a"]["bias"].update(parts=["codes"]),
         f"{WHOLE}no scale for the codes of 'body.a.bias'"),
        (lambda t, m: m["packed"]["body.a"].update(parts=["scale"]), f"{WHOLE}no tensor 'codes'"),
        (lambda t, m: m["others"]["body.a"]["bias"].update(shape=[17]), f"{WHOLE}codes that do not fit their shape"),
        (lambda t, m: m.pop("others"), "got another one, block.0.bias"),
        (lambda t, m: m.update(others=[]), f"{WHOLE}"),
        (lambda t, m: m["packed"].update(tail=m["packed"]["head"]), f"{WHOLE}codes of 'tail' without its scheme"),
        (bias_of_a_norm, f"{WHOLE}no tensor 'stem.1.bias_quantizer.alpha'"),
    ],
)  # fmt: skip
def test_files_that_are_not_whole(change, message, tmp_path):
    x = images()
    export(quantized(Net, VecQ(4, 8), x), x, tmp_path)
    rewritten(tmp_path / "m.safetensors", change)
    got = refusal(tmp_path)
    assert got.startswith("load_quantized: expected ") and message in got and "\n" not in got


def test_codes_of_hdqt_without_a_scale(tmp_path):
    export(trained_with(HDQT()), images(), tmp_path)
    rewritten(
        tmp_path / "m.safetensors", lambda _, manifest: manifest["packed"]["head"].update(parts=["codes", "peak"])
    )
    assert refusal(tmp_path).endswith(f"{WHOLE}no scale for the codes of 'head.weight'")


def test_modules_that_do_not_fit(tmp_path):
    x = images()
    export(quantized(Net, VecQ(4), x), x, tmp_path)
    path, bare, biased = tmp_path / "m.safetensors", Net(), Net()
    bare.body["a"] = nn.Linear(72, 16, bias=False)
    biased.head = nn.Linear(16, 5)
    for model, scheme, message in (
        (bare, VecQ(4), f"expected module to have the tensors of {path}, got no body.a.bias"),
        (biased, VecQ(4), f"expected module to have the tensors of {path}, got another one, head.bias"),
        (Net(), VecQ(4, per_channel=True), "expected the scheme of 'block.0' to be that of "),
    ):
        script(quintil.quantize_(model, scheme), tmp_path)
        assert message in refusal(tmp_path)


def test_padding_rows_need_a_place(tmp_path):
    """In both languages."""
    make, inputs = NETS["words"]
    x = inputs()
    export(quantized(make, VecQ(4), x), x, tmp_path)
    other = nn.Sequential(nn.Embedding(20, 9), nn.Flatten(), nn.Linear(45, 5))
    script(quintil.quantize_(other, VecQ(4)), tmp_path)
    assert refusal(tmp_path) == "load_quantized: expected '0' to have a padding_idx, got none"
    with pytest.raises(ValueError, match="^VecQEmbedding: expected a padding_idx for the file's padding row, got none"):
        quintil.load_quantized(other, tmp_path / "m.safetensors")
    export(quantized(make, VecQ(4), x), x, tmp_path)
    rewritten(tmp_path / "m.safetensors", lambda tensors, _: tensors.update({"0.padding": torch.ones(8)}))
    assert refusal(tmp_path).endswith("got a padding row of [8] for codes of [20, 9]")


class Reader(nn.Module):
    """The last output of a recurrent layer."""

    def __init__(self, kind: type[nn.Module]):
        super().__init__()
        self.layer = kind(3, 4)

    def forward(self, x):
        return self.layer(x)[0][-1]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.LSTMCell])
def test_recurrent_layers_are_refused(kind, tmp_path):
    """TorchScript cannot hold them, and a float layer does not take their file."""
    net = quintil.quantize_(Reader(kind), VecQ(4))
    message = f"^torch.jit.script: expected layers that TorchScript can hold, got VecQ{kind.__name__} of VecQ$"
    for make in (torch.jit.script, lambda model: quintil.nn.script(model, values=False)):
        with pytest.raises(NotImplementedError, match=message):
            make(net)
    quintil.save_quantized(net, tmp_path / "m.safetensors")
    torch.save(torch.randn(5, 2, 3), tmp_path / "batch.pt")
    script(Reader(kind), tmp_path)
    path = tmp_path / "m.safetensors"
    assert refusal(tmp_path) == (
        f"load_quantized: expected module to hold a swapped layer 'layer' as {path} does, got none"
    )
