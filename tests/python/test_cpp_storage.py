"""Programs without Python load quantised files, switch bits and compute what Python does, bit for bit."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import quintil
import torch
from conftest import same_bits
from quintil import HDQT, DoubleRounding
from quintil.models import PreActResNet
from quintil.models.preact import PreActBlock
from quintil.nn.tensor_file import read_tensors, write_tensors
from small_nets import Net, images, trained_with
from test_cmake_package import BUILD, ROOT, TORCH, run
from torch import nn

README = (ROOT / "README.md").read_text(encoding="utf-8")
AROUND_README = """
#include <cstdio>
#include <fstream>
#include <iterator>

int main() {
  std::ifstream file("x.pt", std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const at::Tensor x = torch::jit::pickle_load(bytes).toTensor();
BODY
  const at::Tensor all = at::cat({first, second, net.forward({x}).toTensor()}).flatten();
  for (int64_t i = 0; i < all.numel(); ++i) std::printf("%.9g ", all[i].item<double>());
}
"""

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

PROGRAM = BUILD / "tests" / "cpp" / "switch_bits"
WIDTHS = (8, 6, 4, 2)


def program(folder: Path, *bits: int | str) -> subprocess.CompletedProcess:
    """What examples/switch_bits makes of module.pt, m.safetensors and batch.pt in a folder."""
    command = [PROGRAM, folder / "module.pt", folder / "m.safetensors", folder / "batch.pt", *bits]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, env=environment)


def logits(folder: Path, *bits: int | str) -> torch.Tensor:
    done = program(folder, *bits)
    assert done.returncode == 0, done.stderr
    return torch.tensor([[float(number) for number in line.split()] for line in done.stdout.splitlines()])


def refusal(folder: Path, *bits: int | str) -> str:
    done = program(folder, *bits)
    assert done.returncode == 1 and done.stdout == ""
    return done.stderr.strip()


def script(model: nn.Module, folder: Path) -> None:
    """The module that a program starts from: the architecture, with other values than the model."""
    scripted = torch.jit.script(model)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        for tensor in [*scripted.parameters(), *scripted.buffers()]:
            tensor.copy_(torch.ones_like(tensor))
    scripted.save(str(folder / "module.pt"))
    model.load_state_dict(state)


def export(model: nn.Module, x: torch.Tensor, folder: Path) -> None:
    quintil.save_quantized(model, folder / "m.safetensors")
    torch.save(x, folder / "batch.pt")
    script(model, folder)


def residual_net(**options) -> tuple[nn.Module, torch.Tensor]:
    """With shortcuts, whose BatchNorms follow the layers of their branch."""
    net = quintil.quantize_(PreActResNet(PreActBlock, (1, 1), 4, 5), DoubleRounding(**options))
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        for width in net.bn.widths:
            quintil.set_bits(net, width)(x)
    return net.eval(), x


MIXED = {"*": 4, "stages.0": 8, "stages.1.*.conv[2-9]": 2, "stages.?.0.conv1": 6}


@pytest.mark.parametrize(
    "options",
    [{}, {"transitional_norm": True}, {"bits": (8, 6, 5, 4, 3, 2), "per_channel": False},
     {"activation_offset": True, "rounding": "half_up"}],
    ids=str,
)  # fmt: skip
def test_the_same_logits_at_every_width(options, tmp_path):
    """One process goes through all widths and back, and through widths per layer."""
    net, x = residual_net(**options)
    export(net, x, tmp_path)
    mixed = ",".join(f"{name}={bits}" for name, bits in MIXED.items())
    quintil.nn.script(net, values=False).save(str(tmp_path / "module.pt"))
    settings = [*net.bn.widths, MIXED, 8, {"stages.1": 4}]
    with torch.no_grad():
        want = torch.cat([quintil.set_bits(net, bits)(x) for bits in settings])
        assert same_bits(logits(tmp_path, *net.bn.widths, mixed, 8, "stages.1=4"), want)
        assert same_bits(logits(tmp_path), quintil.set_bits(net, net.bn.widths[0])(x))


def test_an_architecture_is_small(tmp_path):
    net = quintil.quantize_(PreActResNet(PreActBlock, (2, 2, 2, 2), 64, 10), DoubleRounding())
    quintil.nn.script(net, values=False).save(str(tmp_path / "module.pt"))
    assert (tmp_path / "module.pt").stat().st_size < 0.02 * 4 * sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("bits", range(2, 9))
def test_codes_of_every_size(bits, tmp_path):
    scheme, x = DoubleRounding(bits=(bits, 1), skip_ends=False), images()
    model = trained_with(scheme)
    export(model, x, tmp_path)
    with torch.no_grad():
        assert same_bits(logits(tmp_path, bits), quintil.set_bits(model, bits)(x))


@pytest.mark.parametrize("width", WIDTHS)
def test_folded_models(width, tmp_path):
    scheme, x = DoubleRounding(skip_ends=False), images()
    model = quintil.set_bits(trained_with(scheme), {"*": width, "body.b": 6})
    assert quintil.nn.fold_norms_(model) == ["stem.1"]
    export(model, x, tmp_path)
    with torch.no_grad():
        assert same_bits(logits(tmp_path), model(x))
        assert same_bits(logits(tmp_path, "body=2"), quintil.set_bits(model, {"body": 2})(x))
    script(trained_with(scheme), tmp_path)
    assert "expected module to hold swapped layers where " in refusal(tmp_path)
    other = quintil.set_bits(trained_with(scheme), 10 - width)
    quintil.nn.fold_norms_(other)
    script(other, tmp_path)
    assert refusal(tmp_path) == (f"set_bits: expected bits to be one of {10 - width}, got {width} (layer 'stem.0')")


@pytest.mark.parametrize(
    "scheme",
    [HDQT(), HDQT(bits=3, range_fraction=0.8), DoubleRounding(bits=(4, 2), weight_source="float", shared_step=False)],
    ids=lambda scheme: scheme.summary(),
)
def test_other_schemes(scheme, tmp_path):
    """HDQT's codes, signed and unsigned, and weights that stay float."""
    model, x = trained_with(scheme), images()
    with torch.no_grad():
        model.head.weight.abs_()
        model.body["a"].weight.abs_()[3, 5] = -1e-6  # no code of its own, but it makes the codes signed
    export(model, x, tmp_path)
    if isinstance(scheme, DoubleRounding):
        quintil.set_bits(model, 4)
    with torch.no_grad():
        assert same_bits(logits(tmp_path), model(x))


def changed_schemes(path: Path, change) -> None:
    """The file with every scheme changed, whole again."""
    tensors, manifest = read_tensors(path)
    manifest.pop("sha256")
    write_tensors(path, tensors, {**manifest, "schemes": {k: change(v) for k, v in manifest["schemes"].items()}})


@pytest.mark.parametrize(
    "scheme, later",
    [(HDQT(), {"weight_quantizer": "vecq"}), (DoubleRounding(bits=(4, 2)), {"weight_init": "vecq"})],
    ids=lambda value: value.summary() if isinstance(value, HDQT | DoubleRounding) else "",
)
def test_files_from_before_a_field(scheme, later, tmp_path):
    """They mean its default, in both languages; a field that nobody knows is refused."""
    model, x = trained_with(scheme), images()
    export(model, x, tmp_path)
    path = tmp_path / "m.safetensors"
    changed_schemes(path, lambda fields: {key: value for key, value in fields.items() if key not in later})
    assert not any(later.keys() & fields.keys() for fields in read_tensors(path)[1]["schemes"].values())
    loaded = quintil.load_quantized(Net(), path)
    assert loaded.body["a"].scheme == scheme
    if isinstance(scheme, DoubleRounding):
        quintil.set_bits(model, 4)
    with torch.no_grad():
        assert same_bits(loaded(x), model(x)) and same_bits(logits(tmp_path), model(x))
    script(quintil.quantize_(Net(), dataclasses.replace(scheme, **later)), tmp_path)
    assert f"to be that of {path}, got " in refusal(tmp_path)
    script(model, tmp_path)
    for change in (lambda fields: {**fields, "colour": 1}, lambda fields: {**fields, "scheme": "other"}):
        changed_schemes(path, change)
        assert f"to be that of {path}, got " in refusal(tmp_path)
        with pytest.raises(ValueError, match="expected only known fields, got 'colour'|expected scheme to be one of"):
            quintil.load_quantized(Net(), path)
    changed_schemes(path, lambda fields: {key: value for key, value in fields.items() if key != "scheme"})
    assert f"to be that of {path}, got " in refusal(tmp_path)


def test_the_readme_example(tmp_path, monkeypatch):
    """Its Python writes the files; its C++, built as examples/switch_bits says, reads them."""
    monkeypatch.chdir(tmp_path)
    [block] = [block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "net.pt" in block]
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    net, x = quintil.load_quantized(names["net"], "net.safetensors"), names["x"]
    torch.save(x, "x.pt")
    [block] = [block for block in re.findall(r"```cpp\n(.*?)```", README, re.S) if "net.pt" in block]
    lines = block.splitlines()
    includes = [line for line in lines if line.startswith("#include")]
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(ROOT / "examples" / "switch_bits" / "CMakeLists.txt", source)
    (source / "main.cpp").write_text(
        "\n".join([*includes, AROUND_README.replace("BODY", "\n".join(lines[len(includes) :]))])
    )
    run("cmake", "--install", BUILD, "--prefix", tmp_path / "installed")
    prefixes = f"{tmp_path / 'installed'};{TORCH / 'share' / 'cmake'}"
    run("cmake", "-G", "Ninja", "-S", source, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefixes}")
    run("cmake", "--build", tmp_path / "build")
    printed = run(tmp_path / "build" / "switch_bits").split()
    with torch.no_grad():
        want = torch.cat([quintil.set_bits(net, bits)(x) for bits in (8, 4, 2)])
    assert same_bits(torch.tensor([float(number) for number in printed]).reshape(want.shape), want)


def test_what_set_bits_refuses(tmp_path):
    model, x = trained_with(DoubleRounding(skip_ends=False)), images()
    export(model, x, tmp_path)
    for bits, message in (
        (5, "set_bits: expected bits to be one of 8, 6, 4, 2, got 5 (layer 'stem.0')"),
        (16, "set_bits: expected bits to be one of 8, 6, 4, 2, got 16 (layer 'stem.0')"),
        ("head=4,body.a=3", "set_bits: expected bits to be one of 8, 6, 4, 2, got 3 (layer 'body.a')"),
        ("body.q=4", "set_bits: expected names of layers, got 'body.q' "
                     "(layers: stem.0, block.0, body.a, body.b, head)"),
    ):  # fmt: skip
        assert refusal(tmp_path, bits) == message
    export(trained_with(HDQT()), x, tmp_path)
    assert refusal(tmp_path, 4) == "set_bits: expected module to hold layers of several widths, got none"


def test_files_that_are_damaged(tmp_path):
    export(trained_with(DoubleRounding()), images(), tmp_path)
    path = tmp_path / "m.safetensors"
    whole = path.read_bytes()
    header = whole[: whole.index(b"}}") + 40]
    for damaged, message in (
        (whole[:5], "to be a whole file of quintil, got 5 bytes"),
        (whole[:200], "to be a whole file of quintil, got a header of "),
        (whole[:-1], "to be a whole file of quintil, got bytes "),
        (whole + b"x", "to be a whole file of quintil, got tensors of "),
        (b"\x00" * 20, "to be a whole file of quintil, got JSON with its end at byte 0"),
        (whole.replace(b'"quintil":', b'"another":'), "got an object without 'quintil'"),
        (whole.replace(b"F32", b"F33", 1), "got the dtype F33"),
        (whole.replace(b"F32", b"I32", 1), "to have the checksum in its header, got changed contents"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "to have the checksum in its header, got changed contents"),
        (whole.replace(b"per_channel", b"per_chammel", 1), "to have the checksum in its header"),
    ):
        assert damaged != whole
        path.write_bytes(damaged)
        message_got = refusal(tmp_path)
        assert message_got.startswith(f"load_quantized: expected {path} to ") and message in message_got
    for place in range(0, len(header), 307):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert refusal(tmp_path).startswith(f"load_quantized: expected {path} to ")
    path.unlink()
    assert refusal(tmp_path) == f"load_quantized: expected {path} to be a file that can be read, got none"


def test_modules_that_do_not_fit(tmp_path):
    export(trained_with(DoubleRounding()), images(), tmp_path)
    path = tmp_path / "m.safetensors"
    wide, extra, bare = Net(), Net(), Net()
    wide.body["a"] = nn.Linear(80, 16)
    extra.tail = nn.LayerNorm(2)
    bare.body["a"] = nn.Linear(72, 16, bias=False)
    for model, scheme, message in (
        (wide, DoubleRounding(), "expected 'body.a.weight' to be [16, 72], got [16, 80]"),
        (extra, DoubleRounding(), f"expected module to have the tensors of {path}, got another one, tail."),
        (bare, DoubleRounding(), f"expected module to have the tensors of {path}, got no body.a.bias"),
        (Net(), DoubleRounding(rounding="floor"), f"expected the scheme of 'block.0' to be that of {path}, got "),
        (Net(), HDQT(), "expected the scheme of 'block.0' to be that of "),
        (Net(), None, "expected module to hold a swapped layer 'block.0' as "),
    ):
        script(model if scheme is None else quintil.quantize_(model, scheme), tmp_path)
        assert message in refusal(tmp_path)
