"""Traces of Hessians that are known exactly, and what the estimate leaves as it was [DR D20]."""

from __future__ import annotations

import pytest
import quintil
import torch
import torch.nn.functional as F
from quintil.bits import hessian_trace
from quintil.models import CifarResNet
from torch import nn


def draws_from(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact(model: nn.Module, loss, batches) -> tuple[dict[str, float], dict[str, float]]:
    """The trace over n of every layer, and the standard deviation of one draw of the estimate.

    With random signs v the variance of v_l . (H v)_l is 2 sum over i != j of H_ll[i, j]^2 + sum over the other layers
    of |H_lm|^2.
    """
    x, y = (torch.cat(parts) for parts in zip(*batches))
    layers = {name: m.weight for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    gradients = torch.autograd.grad(loss(model(x), y), layers.values(), create_graph=True)
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    rows = [torch.autograd.grad(g, layers.values(), retain_graph=True) for g in flat]
    hessian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows]).double()
    traces, deviations, start = {}, {}, 0
    for name, weight in layers.items():
        stop = start + weight.numel()
        own, diagonal = hessian[start:stop, start:stop], hessian.diagonal()[start:stop]
        others = hessian[start:stop].square().sum() - own.square().sum()
        variance = 2 * (own.square().sum() - diagonal.square().sum()) + others
        traces[name] = diagonal.mean().item()
        deviations[name] = variance.sqrt().item() / weight.numel()
        start = stop
    return traces, deviations


def within(found: dict[str, float], traces: dict[str, float], deviations: dict[str, float], draws: int) -> None:
    """Every estimate within four standard errors, which are a small part of the largest trace."""
    assert list(found) == list(traces)
    for name, value in found.items():
        assert abs(value - traces[name]) < 4 * deviations[name] / draws**0.5, name
    assert min(deviations.values()) / draws**0.5 < 0.1 * max(map(abs, traces.values()))


def test_quadratic_loss_with_a_diagonal_hessian_needs_one_draw():
    """Outputs w_i x_i with loss sum a_i w_i^2 / 2: every draw of signs gives the trace exactly."""
    layer = nn.Linear(6, 1, bias=False)
    x, y = torch.eye(6), torch.zeros(6, 1)
    found = hessian_trace(
        layer, lambda out, _: (torch.arange(1.0, 7.0) * out[:, 0] ** 2).sum() / 2, [(x, y)], most_draws=1
    )
    assert found == {"": pytest.approx(21 / 6)}


def test_linear_softmax():
    """H = mean of (diag p - p p') x x' for cross-entropy on a linear layer, over batches of unequal sizes."""
    layer = nn.Linear(5, 4)
    x, y = torch.randn(30, 5), torch.randint(0, 4, (30,))
    batches = list(zip(x.split([20, 7, 3]), y.split([20, 7, 3])))
    p = layer(x).softmax(1).detach()
    want = ((p * (1 - p)).sum(1) * (x**2).sum(1)).mean().item() / 20
    traces, deviations = exact(layer, F.cross_entropy, batches)
    assert traces[""] == pytest.approx(want, rel=1e-4)
    found = hessian_trace(layer, F.cross_entropy, batches, most_draws=300, tolerance=0.0, generator=draws_from(0))
    within(found, traces, deviations, 300)


def test_layers_of_a_network():
    """Convolution and Linear behind tanh; the layers are drawn together, which adds noise and no bias."""
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(27, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = [(torch.randn(8, 2, 5, 5), torch.randint(0, 3, (8,))) for _ in range(2)]
    traces, deviations = exact(net, F.cross_entropy, batches)
    found = hessian_trace(net, F.cross_entropy, batches, most_draws=300, tolerance=0.0, generator=draws_from(1))
    within(found, traces, deviations, 300)
    assert hessian_trace(net, F.cross_entropy, batches, layers=["3"], most_draws=1).keys() == {"3"}


def test_equal_seeds_give_equal_traces_and_the_tolerance_stops():
    layer, passes = nn.Linear(8, 3), []

    class Counted(list):
        def __iter__(self):
            passes.append(1)
            return super().__iter__()

    batches = Counted([(torch.randn(40, 8), torch.randint(0, 3, (40,)))])

    def traces(seed, **options):
        passes.clear()
        found = hessian_trace(layer, F.cross_entropy, batches, generator=draws_from(seed), **options)
        return found, len(passes) - 1  # the first pass only asks whether it is an iterator

    assert traces(3) == traces(3) != traces(4)
    state = torch.get_rng_state()
    assert traces(3, most_draws=5, tolerance=0.0)[1] == 5
    assert torch.equal(state, torch.get_rng_state())
    assert 2 <= traces(3, tolerance=0.05)[1] <= traces(3, tolerance=0.002)[1] <= 100


def test_the_model_is_left_as_it_was():
    net = CifarResNet(1)
    model = nn.Sequential(net, nn.Linear(64, 2))
    net.layer1.eval()
    net.conv1.weight.requires_grad_(False)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    batches = [(torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 0]))]
    with torch.no_grad():
        found = hessian_trace(model, F.cross_entropy, batches, most_draws=2)
    assert len(found) == 8 and all(torch.tensor(list(found.values())).isfinite())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())  # BatchNorm stood still
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert all(parameter.grad is None for parameter in model.parameters())


BATCHES = [(torch.zeros(2, 4), torch.tensor([0, 1]))]


@pytest.mark.parametrize(
    "model, options, error, message",
    [
        (nn.Linear(4, 2), {"batches": iter(BATCHES)}, TypeError,
         "hessian_trace: expected batches to be iterable many times, got an iterator"),
        (nn.Linear(4, 2), {"batches": []}, ValueError, "hessian_trace: expected batches with samples, got none"),
        (nn.Linear(4, 2), {"most_draws": 0}, ValueError, "hessian_trace: expected most_draws of at least 1, got 0"),
        (nn.Linear(4, 2), {"layers": ["head"]}, ValueError,
         "hessian_trace: expected layers to name modules with a weight, got 'head'"),
        (nn.ReLU(), {}, ValueError, "hessian_trace: expected model to hold a Linear or Conv2d layer, got none"),
        (nn.Linear(4, 2).double(), {}, TypeError, "hessian_trace: expected float32 weights, got torch.float64 ('')"),
        (nn.Sequential(quintil.quantize_(nn.Linear(4, 2), quintil.HDQT())), {}, ValueError,
         "hessian_trace: expected a float model, got a quantised layer '0' (call dequantize_ first)"),
    ],
)  # fmt: skip
def test_refused(model, options, error, message):
    with pytest.raises(error) as caught:
        hessian_trace(model, F.cross_entropy, **{"batches": BATCHES, **options})
    assert type(caught.value) is error and str(caught.value) == message
