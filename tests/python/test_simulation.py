"""The op-by-op simulation that speed is compared with computes what quintil computes."""

from dataclasses import replace

import pytest
import quintil
import torch
from conftest import activations, weights
from quintil import HDQT
from quintil.experiments.simulation import HeldOut, simulate_
from quintil.models import resnet20
from torch import Tensor, nn

SCHEMES = [HDQT(), HDQT.paper(), HDQT(hadamard="none", tile_size=21, backward_tile_size=7), HDQT(accumulator_bits=32)]
LINEAR = [(5, 40, 12), (128, 96, 64), (33, 405, 19)]
CONVOLUTIONS = [  # x, weight, stride, padding
    ((2, 16, 9, 8), (8, 16, 3, 3), 1, 1),
    ((3, 5, 7, 6), (6, 5, 3, 2), (2, 1), (1, 2)),
    ((2, 33, 5, 5), (10, 33, 1, 1), 2, 0),
]


def pair(layer: nn.Module, scheme: HDQT) -> tuple[nn.Module, nn.Module]:
    """The layer swapped by quintil and simulated, with equal weights."""
    other = type(layer)(*layer.arguments)
    other.load_state_dict(layer.state_dict())
    return quintil.quantize_(layer, scheme), simulate_(other, scheme)


def linear(k: int, n: int) -> nn.Linear:
    layer = nn.Linear(k, n)
    layer.arguments = (k, n)
    return layer


def conv(w: tuple, stride, padding) -> nn.Conv2d:
    arguments = (w[1], w[0], w[2:], stride, padding)
    layer = nn.Conv2d(*arguments)
    layer.weight.data = weights(*w)
    layer.arguments = arguments
    return layer


def gradients(layer: nn.Module, x: Tensor, g: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    return list(torch.autograd.grad(layer(x), (x, *layer.parameters()), g))


def cosine(a: Tensor, b: Tensor) -> float:
    return torch.cosine_similarity(a.flatten().double(), b.flatten().double(), 0).item()


def cases(scheme: HDQT):
    for signed in (True, False):
        for b, k, n in LINEAR:
            yield *pair(linear(k, n), scheme), activations(b, k, signed=signed)
        for x, w, stride, padding in CONVOLUTIONS:
            yield *pair(conv(w, stride, padding), scheme), activations(*x, signed=signed)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.summary())
def test_forward_is_the_same(scheme):
    for ours, simulated, x in cases(scheme):
        torch.testing.assert_close(simulated(x), ours(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.summary())
def test_gradients_are_the_same_where_nothing_is_drawn(scheme):
    """The order of float additions differs in the transforms of gradients, so a code at a tie may move by one."""
    for ours, simulated, x in cases(replace(scheme, stochastic=())):
        g = torch.randn(ours(x).shape)
        for got, want in zip(gradients(simulated, x, g), gradients(ours, x, g)):
            assert cosine(got, want) > 0.999
            assert abs(got.norm() / want.norm() - 1) < 0.01


@pytest.mark.parametrize("case", ["linear", "conv"])
def test_gradients_have_the_same_mean(case):
    """Means over draws come together, single draws differ; both stay as far from float32's gradients."""
    if case == "linear":
        layer, x = linear(96, 64), activations(128, 96)
    else:
        layer, x = conv((8, 16, 3, 3), 1, 1), activations(4, 16, 8, 8, signed=False)
    ours, simulated = pair(layer, HDQT())
    g = torch.randn(ours(x).shape)
    draws = [[gradients(side, x, g) for _ in range(64)] for side in (ours, simulated)]
    for which in (0, 1):
        one, other = (torch.stack([draw[which] for draw in side]) for side in draws)
        assert cosine(one[0], other[0]) > 0.8
        assert not torch.equal(other[0], other[1])
        assert cosine(one.mean(0), other.mean(0)) > 0.99
        assert abs(one.mean(0).norm() / other.mean(0).norm() - 1) < 0.02


def test_whole_net():
    """Every layer is swapped in place, and a step gives gradients to all Parameters."""
    net = resnet20()
    parameters = list(net.parameters())
    assert simulate_(net, HDQT()) is net
    assert all(a is b for a, b in zip(parameters, net.parameters()))
    assert all(hasattr(m, "scheme") for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    net(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in parameters)


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (HDQT(overflow="wrap"), "simulation: expected overflow 'saturate', got 'wrap'"),
        (HDQT(accumulate="every_mac"), "simulation: expected accumulate 'tile_end', got 'every_mac'"),
        (HDQT(hadamard="binary"), "simulation: expected hadamard other than .*, got 'binary'"),
        (HDQT(stochastic=("fw",)), "simulation: expected stochastic without fw and fa, got .'fw',."),
        (HDQT(dc_row="separate"), "simulation: expected dc_row 'together', got 'separate'"),
    ],
)
def test_what_is_not_simulated_is_refused(scheme, message):
    with pytest.raises(NotImplementedError, match=message):
        simulate_(nn.Linear(4, 4), scheme)


# One thing held out ---------------------------------------------------------------------------------------------------


def relative(a: Tensor, b: Tensor) -> float:
    return float(((a - b).norm() / b.norm()).detach())


@pytest.mark.parametrize("held", ["fw", "fa", "b1w", "b1g", "b2a", "b2g"])
def test_an_operand_that_is_not_rounded_brings_its_product_closer(held):
    """Only its own product gets closer to float32's, or those that use the forward's operand; nothing else changes."""
    scheme = HDQT(stochastic=(), accumulator_bits=32, range_fraction=1.0)
    layer, x = linear(96, 64), activations(128, 96)
    exact = nn.Linear(96, 64)
    exact.load_state_dict(layer.state_dict())
    g = torch.randn(128, 64)
    want = [exact(x), *gradients(exact, x, g)]
    usual, other = (simulate_(nn.Linear(96, 64), s) for s in (scheme, HeldOut(**fields(scheme), held=held)))
    errors = []
    for side in (usual, other):
        side.load_state_dict(layer.state_dict())
        errors.append([relative(a, b) for a, b in zip([side(x), *gradients(side, x, g)][:3], want)])
    forward, b1, b2 = (after < 0.95 * before for before, after in zip(*errors))
    closer = {"fw": (1, 1, 0), "fa": (1, 0, 1), "b1w": (0, 1, 0), "b1g": (0, 1, 0), "b2a": (0, 0, 1), "b2g": (0, 0, 1)}
    own = tuple(name for name, now in zip(("forward", "b1", "b2"), (forward, b1, b2)) if now)
    assert set(own) <= {name for name, may in zip(("forward", "b1", "b2"), closer[held]) if may} and own


def test_the_scheme_keeps_its_state_in_files_and_has_a_name_of_its_own():
    scheme = HeldOut(bits=5, held="b1g")
    assert quintil.schemes.Scheme.from_dict(scheme.to_dict()) == scheme
    with pytest.raises(ValueError, match="HeldOut: expected held to be one of 'nothing', 'fw', .*, got 'everything'"):
        HeldOut(held="everything")


def fields(scheme: HDQT) -> dict:
    return {name: value for name, value in vars(scheme).items()}
