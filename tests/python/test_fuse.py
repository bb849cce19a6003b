"""`fuse_`: the same layers, parameters and results in one op per convolution, and only where that is exact."""

import copy

import pytest
import quintil
import torch
import torch.nn.functional as F
from conftest import same_bits
from quintil.models import CifarResNet
from quintil.nn import fuse as fusing
from quintil.nn import fuse_, unfuse_
from torch import nn

NEAREST = quintil.HDQT(stochastic=())


class Block(nn.Module):
    """conv, norm, ReLU; conv, norm; a shortcut of conv and norm; their sum and a ReLU, in the forms people write."""

    def __init__(self, in_channels, channels, form):
        super().__init__()
        self.form = form
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x):
        if self.form == "modules":
            y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            y += self.shortcut(x)
            return self.relu(y)
        y = self.bn1(self.conv1(x)).relu()
        return torch.relu(torch.add(self.shortcut(x), self.bn2(self.conv2(y))))


def net(form):
    return nn.Sequential(Block(3, 8, form), Block(8, 16, form), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


def step(model, x, labels, seed=0):
    """Loss, gradients and buffers of one step."""
    torch.manual_seed(seed)
    model.zero_grad()
    loss = F.cross_entropy(model(x), labels)
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters()], [b.clone() for b in model.buffers()]


@pytest.fixture
def calls(monkeypatch):
    """Counts the fused calls."""
    count = []
    op = fusing._conv2d_batch_norm

    def counted(x, *arguments, **options):
        if x.device.type == "cpu":
            count.append(options["relu"])
        return op(x, *arguments, **options)

    monkeypatch.setattr(fusing, "_conv2d_batch_norm", counted)
    return count


@pytest.mark.parametrize("form", ["modules", "functions"])
def test_a_step_ends_within_rounding_of_the_separate_layers(form, calls):
    plain = quintil.quantize_(net(form), NEAREST)
    fused = fuse_(copy.deepcopy(plain))
    x, labels = torch.randn(4, 3, 9, 9), torch.arange(4)
    want, got = step(plain, x, labels), step(fused, x, labels)
    assert sorted(calls) == [False, False, True, True, True, True]  # two shortcuts without, four with a ReLU
    assert abs(got[0] - want[0]) < 1e-3
    for a, b in zip(got[1], want[1]):
        assert (a - b).norm() < 0.1 * b.norm() + 1e-6  # a code may fall on the other side of a tie
    for a, b in zip(got[2], want[2]):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_first_block_is_exact():
    """Up to its first tie the fused block is the separate one: running statistics agree to the last digits."""
    plain = quintil.quantize_(net("modules"), NEAREST)
    fused = fuse_(copy.deepcopy(plain))
    x = torch.randn(8, 3, 12, 12)
    plain[0](x), fused[0](x)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(fused[0].bn1, name), getattr(plain[0].bn1, name), rtol=1e-5, atol=1e-7)
    assert fused[0].bn1.num_batches_tracked == 1


@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
def test_running_statistics_are_those_of_batch_norm(momentum):
    plain = quintil.quantize_(
        nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, momentum=momentum)), NEAREST
    )
    fused = fuse_(copy.deepcopy(plain))
    for _ in range(3):
        x = torch.randn(5, 3, 8, 8)
        plain(x), fused(x)
    for a, b in zip(fused.buffers(), plain.buffers()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_evaluation_takes_the_layers_bit_for_bit(calls):
    plain = quintil.quantize_(net("modules"), quintil.HDQT()).eval()
    fused = fuse_(copy.deepcopy(plain))
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        assert same_bits(fused(x), plain(x))
    assert calls == []


def test_modules_parameters_names_and_copies_stay():
    model = quintil.quantize_(CifarResNet(1), quintil.HDQT())
    before = {name: id(m) for name, m in model.named_modules()}, {n: id(p) for n, p in model.named_parameters()}
    keys = list(model.state_dict())
    assert fuse_(model) is model
    assert fuse_(model) is model  # again: nothing to do
    assert before == ({n: id(m) for n, m in model.named_modules()}, {n: id(p) for n, p in model.named_parameters()})
    assert keys == list(model.state_dict())
    assert isinstance(model, CifarResNet) and isinstance(model.layer1[0], type(model.layer2[0]).__mro__[2])
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())
    x, labels = torch.randn(3, 3, 12, 12), torch.arange(3)
    a, b = step(model, x, labels), step(twin, x, labels)
    assert all(same_bits(p, q) for p, q in zip(a[1] + a[2], b[1] + b[2]))
    unfuse_(model)
    assert type(model) is CifarResNet
    quintil.dequantize_(model)(x)


def test_every_convolution_of_the_resnet_is_fused(calls):
    model = fuse_(quintil.quantize_(CifarResNet(2, last_relu=False), quintil.HDQT()))
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    assert len(calls) == 13 and calls.count(False) == 1  # the last block ends without a ReLU


def test_hooks_are_called_and_so_keep_their_layers_apart(calls):
    model = fuse_(quintil.quantize_(CifarResNet(1), quintil.HDQT()))
    seen = []
    handle = model.layer1[0].bn1.register_forward_hook(lambda m, i, o: seen.append(o.shape))
    model(torch.randn(2, 3, 8, 8))
    assert len(seen) == 1 and len(calls) == 6
    handle.remove()
    model(torch.randn(2, 3, 8, 8))
    assert len(seen) == 1 and len(calls) == 13


def test_a_dequantised_model_trains_in_float_although_it_is_fused(calls):
    model = CifarResNet(1)
    twin = copy.deepcopy(model)
    quintil.dequantize_(fuse_(quintil.quantize_(model, quintil.HDQT())))
    x, labels = torch.randn(3, 3, 12, 12), torch.arange(3)
    a, b = step(model, x, labels), step(twin, x, labels)
    assert calls == [] and all(same_bits(p, q) for p, q in zip(a[1] + a[2], b[1] + b[2]))


def test_a_residual_that_is_broadcast_takes_the_layers(calls):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)

        def forward(self, x, y):
            return F.relu(self.bn(self.conv(x)) + y)

    model = fuse_(quintil.quantize_(Scaled(), NEAREST))
    x, y = torch.randn(2, 3, 6, 6), torch.randn(1, 4, 1, 1)
    assert model(x, y).shape == (2, 4, 4, 4) and calls == []
    assert model(x, torch.randn(2, 4, 4, 4)).shape == (2, 4, 4, 4) and calls == [True]


def test_what_cannot_be_fused_stays_as_it_is():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)

        def forward(self, x):
            return self.bn(self.conv(x)) if x.sum() > 0 else x

    for model in (
        Branching(),  # depends on data
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),  # a bias
        nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False)),
        nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.BatchNorm2d(4)),
    ):
        quintil.quantize_(model, quintil.HDQT())
        kind = type(model)
        with pytest.raises(ValueError, match="fuse_: expected model to call a HadamardConv2d and then a BatchNorm2d"):
            fuse_(model)
        assert type(model) is kind
    with pytest.raises(ValueError, match="quantize_ comes first"):
        fuse_(CifarResNet(1))
    wide = quintil.quantize_(
        nn.Sequential(nn.Conv2d(64, 4, 3, bias=False), nn.BatchNorm2d(4)), quintil.HDQT(accumulator_bits=32)
    )
    with pytest.raises(ValueError, match="fuse_"):  # sums that need more than 16 bits
        fuse_(wide)


@pytest.mark.parametrize("call, name", [(fuse_, "fuse_"), (unfuse_, "unfuse_")])
def test_a_model_is_asked_for(call, name):
    with pytest.raises(TypeError, match=f"{name}: expected model to be an nn.Module, got str"):
        call("resnet")


def test_training_learns():
    torch.manual_seed(3)
    model = fuse_(quintil.quantize_(nn.Sequential(CifarResNet(1), nn.Linear(64, 2)), quintil.HDQT()))
    x = torch.randn(64, 3, 8, 8)
    labels = (x[:, 0, :4].mean((1, 2)) > x[:, 0, 4:].mean((1, 2))).long()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(60):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimiser.step()
    assert (model(x).argmax(1) == labels).float().mean() > 0.9
