"""A scripted conv+linear HDQT network: trains, saves, loads elsewhere, freezes; draws stay random."""

import os
import subprocess
from pathlib import Path

import pytest
import quintil
import torch
from conftest import assert_same, run_python
from torch import Tensor, nn

BUILD = Path(os.environ.get("QUINTIL_BUILD_DIR", Path(__file__).resolve().parents[2] / "build" / "cmake"))

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


class Net(nn.Module):
    """Two quantised convolutions and a quantised classifier; the seed is a graph input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Parameter(torch.rand(6, 1, 3, 3) - 0.5)
        self.conv2 = nn.Parameter(torch.rand(8, 6, 3, 3) - 0.5)
        self.head = nn.Parameter(torch.rand(10, 128) * 0.2 - 0.1)
        self.bias = nn.Parameter(torch.zeros(10))

    def forward(self, x: Tensor, seed: int | None = None) -> Tensor:
        x = torch.ops.quintil.hadamard_conv2d(x, self.conv1, None, [1, 1], [1, 1], [1, 1], seed=seed).relu()
        x = torch.ops.quintil.hadamard_conv2d(
            x, self.conv2, None, [2, 2], [1, 1], [1, 1], seed=seed, tile_order="chw"
        ).relu()
        return torch.ops.quintil.hadamard_linear(x.flatten(1), self.head, self.bias, seed=seed)


class DrawingNet(Net):
    """Draws its seed inside the graph, as 3.4 of kernels.md recommends."""

    def forward(self, x: Tensor, seed: int | None = None) -> Tensor:
        drawn = int(torch.randint(0, 1 << 62, (1,)).item())
        x = torch.ops.quintil.hadamard_conv2d(x, self.conv1, None, [1, 1], [1, 1], [1, 1], seed=drawn).relu()
        x = torch.ops.quintil.hadamard_conv2d(x, self.conv2, None, [2, 2], [1, 1], [1, 1], seed=drawn).relu()
        return torch.ops.quintil.hadamard_linear(x.flatten(1), self.head, self.bias, seed=drawn)


def train_step(net, x, labels, seed: int) -> float:
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    loss = nn.functional.cross_entropy(net(x, seed), labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return float(loss.detach())


@pytest.fixture
def batch():
    return torch.rand(8, 1, 8, 8), torch.randint(0, 10, (8,))


def test_scripted_training_equals_eager(batch):
    net = Net()
    scripted = torch.jit.script(Net())
    scripted.load_state_dict(net.state_dict())
    for seed in (0, 1, 2**62 - 1):
        assert train_step(scripted, *batch, seed) == train_step(net, *batch, seed)
    for a, b in zip(scripted.parameters(), net.parameters()):
        assert_same(a, b)


def test_save_and_load_in_another_process(batch, tmp_path):
    scripted = torch.jit.script(Net())
    train_step(scripted, *batch, 3)
    scripted.save(str(tmp_path / "net.pt"))
    torch.save(batch, tmp_path / "batch.pt")
    code = (
        "import sys, torch, quintil\n"
        "folder = sys.argv[1]\n"
        "net = torch.jit.load(folder + '/net.pt')\n"
        "x, labels = torch.load(folder + '/batch.pt')\n"
        "y = net(x, 11)\n"
        "torch.nn.functional.cross_entropy(y, labels).backward()\n"
        "torch.save((y.detach(), [p.grad for p in net.parameters()]), folder + '/out.pt')\n"
    )
    run_python("-W", "ignore", "-c", code, str(tmp_path))
    logits, gradients = torch.load(tmp_path / "out.pt")
    y = scripted(batch[0], 11)
    assert_same(logits, y)
    scripted.zero_grad()
    nn.functional.cross_entropy(y, batch[1]).backward()
    for a, b in zip(gradients, scripted.parameters()):
        assert_same(a, b.grad)


def swapped_net():
    """A model of torch.nn layers after `quantize_`: its scripted form draws in training mode only."""
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 10)
    )
    return quintil.quantize_(net, quintil.HDQT())


@pytest.mark.parametrize(
    "build", [DrawingNet, swapped_net, lambda: swapped_net().eval()], ids=["ops", "layers", "evaluation"]
)
def test_a_process_without_python_gives_the_same_bits(batch, build, tmp_path):
    net = build()
    net.register_buffer("images", batch[0])
    net.register_buffer("labels", batch[1])
    scripted = torch.jit.script(net)
    scripted.save(str(tmp_path / "net.pt"))
    command = [str(BUILD / "tests" / "cpp" / "script_runner"), str(tmp_path / "net.pt"), "17"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    printed = dict(line.split() for line in done.stdout.splitlines())

    torch.manual_seed(17)
    logits = scripted(batch[0])
    nn.functional.cross_entropy(logits, batch[1]).backward()
    want = {"logits": logits.detach(), **{name: p.grad for name, p in scripted.named_parameters()}}
    assert printed.pop("isa") == quintil.active_isa()
    assert printed == {name: tensor.contiguous().numpy().tobytes().hex() for name, tensor in want.items()}


@pytest.mark.parametrize("reload", [False, True])
def test_draws_inside_the_graph_stay_random(batch, reload, tmp_path):
    net = torch.jit.script(DrawingNet())
    if reload:
        net.save(str(tmp_path / "net.pt"))
        net = torch.jit.load(str(tmp_path / "net.pt"))

    def gradient():
        net.zero_grad()
        nn.functional.cross_entropy(net(batch[0]), batch[1]).backward()
        return net.conv1.grad.clone()

    torch.manual_seed(4)
    first, second = gradient(), gradient()
    assert not torch.equal(first, second)
    torch.manual_seed(4)
    assert_same(gradient(), first)
    assert_same(gradient(), second)


def test_frozen_training_graph_still_draws(batch):
    """Freezing makes parameters constants; the seed, drawn in the graph, must not become one."""
    x = batch[0].requires_grad_()
    frozen = torch.jit.freeze(torch.jit.script(DrawingNet()).eval())

    def gradient():
        return torch.autograd.grad(frozen(x).square().sum(), x)[0]

    assert not torch.equal(gradient(), gradient())


def test_frozen_evaluation_equals_eager(batch):
    net = Net().eval()
    scripted = torch.jit.script(net)
    frozen = torch.jit.freeze(scripted)
    with torch.no_grad():
        want = net(batch[0])
        for module in (scripted, frozen, torch.jit.optimize_for_inference(scripted)):
            assert_same(module(batch[0]), want)
            assert_same(module(batch[0]), want)


def test_frozen_layers_equal_eager(batch):
    net = swapped_net()
    net(batch[0]).sum().backward()  # running statistics that are not the initial ones
    scripted = torch.jit.script(net.eval())
    with torch.no_grad():
        for frozen in (scripted, torch.jit.freeze(scripted)):
            assert_same(frozen(batch[0]), net(batch[0]))


def test_learned_steps_script_with_their_gradients():
    @torch.jit.script
    def use(x: Tensor, scale: Tensor, offset: Tensor, bits: int) -> Tensor:
        y = torch.ops.quintil.lsq_quantize(x, scale, bits, signed=True, offset=offset)
        return torch.ops.quintil.double_round_quantize(y, scale, 8, bits, chain_pow2=True)

    leaves = [t.requires_grad_() for t in (torch.randn(5, 33), torch.tensor(0.1), torch.tensor(0.05))]
    y = torch.ops.quintil.lsq_quantize(*leaves[:2], 4, signed=True, offset=leaves[2])
    want = torch.ops.quintil.double_round_quantize(y, leaves[1], 8, 4, chain_pow2=True)
    got = use(*leaves, 4)
    assert_same(got, want)
    g = torch.randn(want.shape)
    for a, b in zip(torch.autograd.grad(got, leaves, g), torch.autograd.grad(want, leaves, g)):
        assert_same(a, b)


def test_half_integers_script_with_their_gradient():
    def use(x: Tensor, averages: Tensor, training: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        step = torch.ops.quintil.vecq_step(x, 4, per_channel=True)
        y, codes, alpha = torch.ops.quintil.vecq_quantize(x, 4, step=step, grad_mode="pwl_c", grad_ratio=0.5)
        z, averages = torch.ops.quintil.vecq_activation(y, 8, averages, training=training)
        orientation, modulus, total = torch.ops.quintil.vecq_losses(x, z)
        return z, torch.ops.quintil.vecq_codes(x, 4, step), averages, total

    x, g = torch.randn(5, 33).requires_grad_(), torch.randn(5, 33)
    for training in (True, False):
        got, want = torch.jit.script(use)(x, torch.ones(3), training), use(x, torch.ones(3), training)
        for a, b in zip(got, want):
            assert_same(a, b)
        assert_same(torch.autograd.grad(got[0], x, g)[0], torch.autograd.grad(want[0], x, g)[0])


def test_every_op_scripts():
    @torch.jit.script
    def use(x: Tensor, seed: int) -> Tensor:
        codes, scale = torch.ops.quintil.quantize(x, 4, signed=True, seed=seed)
        back = torch.ops.quintil.unpack_int4(torch.ops.quintil.pack_int4(codes), x.size(-1))
        product = torch.ops.quintil.tiled_int_mm(back, back.t(), tile_size=16)
        clamped = torch.ops.quintil.tile_saturation(back, back.t(), tile_size=16)
        spread = torch.ops.quintil.hadamard_transform(torch.ops.quintil.dequantize(codes, scale), -1, hadamard="binary")
        low = torch.ops.quintil.double_round(codes, 4, 2).sum()
        low = low + torch.ops.quintil.int_linear(codes, scale, codes, scale, weight_zero2=-1).sum()
        image = codes.reshape(1, 5, 3, 11)
        low = low + torch.ops.quintil.int_conv2d(image, scale, image, scale, None, [1, 1], [1, 1]).sum()
        gain = scale.expand(x.size(1))
        low = low + torch.ops.quintil.affine_quantize(x, gain, gain, scale, 4).sum()
        return product.float() + spread.sum() + clamped + low

    x = torch.randn(5, 33)
    codes, scale = torch.ops.quintil.quantize(x, 4, seed=9)
    product = torch.ops.quintil.tiled_int_mm(codes, codes.t(), tile_size=16)
    spread = torch.ops.quintil.hadamard_transform(torch.ops.quintil.dequantize(codes, scale), hadamard="binary").sum()
    clamped = torch.ops.quintil.tile_saturation(codes, codes.t(), tile_size=16)
    low = torch.ops.quintil.double_round(codes, 4, 2).sum()
    low = low + torch.ops.quintil.int_linear(codes, scale, codes, scale, weight_zero2=-1).sum()
    image = codes.reshape(1, 5, 3, 11)
    low = low + torch.ops.quintil.int_conv2d(image, scale, image, scale, None, [1, 1], [1, 1]).sum()
    low = low + torch.ops.quintil.affine_quantize(x, scale.expand(33), scale.expand(33), scale, 4).sum()
    assert_same(use(x, 9), product.float() + spread + clamped + low)
