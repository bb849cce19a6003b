"""Learning rates per width: the published factors, what is scaled, self-distillation [DR D14, D15, D18]."""

from __future__ import annotations

import re

import pytest
import quintil
import torch
import torch.nn.functional as F
from quintil import DoubleRounding
from quintil.bits import (
    MultiLR,
    SelfDistillation,
    parameter_groups,
    soft_cross_entropy,
    step_gradient_size,
    width_factor,
)
from quintil.nn.quantizers import StepQuantizer
from small_nets import Net, images
from torch import nn


def test_factors():
    """T8: the table of D14 for stored widths of 8 and 4 bits."""
    assert [width_factor(b, 8) for b in (8, 7, 6, 5, 4, 3, 2)] == [1, 0.5, 0.1, 0.05, 0.01, 0.005, 0.001]
    assert [width_factor(b, 4) for b in (4, 3, 2)] == [1, 0.5, 0.1]


def model(bits=(8, 6, 4, 2)) -> nn.Module:
    net = quintil.quantize_(Net(), DoubleRounding(bits=bits))
    for width in bits:
        quintil.set_bits(net, width)(images().relu())
    return net


def test_groups():
    net = model()
    for scope in ("steps", "no_decay_group"):
        weights, steps, rest = parameter_groups(net, 1e-3, scope)
        assert [g["weight_decay"] for g in (weights, steps, rest)] == [1e-3, 0.0, 0.0]
        assert [g["by_width"] for g in (weights, steps, rest)] == [False, True, scope == "no_decay_group"]
        assert sum(len(g["params"]) for g in (weights, steps, rest)) == len(list(net.parameters()))
        assert {id(p) for p in weights["params"]} == {
            id(net.get_submodule(name).weight) for name in ("stem.0", "block.0", "body.a", "body.b", "head")
        }
        own = {id(p) for m in net.modules() if isinstance(m, StepQuantizer) for p in m.parameters()}
        assert {id(p) for p in steps["params"]} == own and len(own) == 15
    net.head.weight.requires_grad_(False)
    assert len(parameter_groups(net, 0.0)[0]["params"]) == 4
    with pytest.raises(ValueError, match="expected lr_scope to be one of steps, no_decay_group, got 'all'"):
        parameter_groups(net, 0.0, "all")


def moved(net: nn.Module, mode: str, width: int | None, scope: str = "steps", **options) -> dict[str, float]:
    """How far an SGD step of rate 1 moves one parameter of each kind, per unit of gradient."""
    optimizer = torch.optim.SGD(parameter_groups(net, 0.0, scope), lr=1.0)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, -0.25)
    kinds = {"weight": net.head.weight, "step": net.block[0].input_quantizers["4"].step, "norm": net.stem[1].weight}
    before = {kind: parameter.detach().clone() for kind, parameter in kinds.items()}
    MultiLR(net, optimizer, (8, 6, 4, 2), mode=mode, **options).step(width)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0] * 3
    return {kind: ((p - before[kind]) / 0.25).mean().item() for kind, p in kinds.items()}


@pytest.mark.parametrize(
    "mode, width, options, factor",
    [
        ("multi_lr", 8, {}, 1.0),
        ("multi_lr", 4, {}, 0.01),
        ("multi_lr_code", 2, {}, 0.001),
        ("multi_lr_code", 2, {"stop": 6}, 0.1),
        ("multi_lr_code", 8, {"stop": 6}, 1.0),
        ("none", 2, {}, 1.0),
        ("multi_lr", None, {}, 1.0),
    ],
)
@pytest.mark.parametrize("scope", ["steps", "no_decay_group"])
def test_what_is_scaled(mode, width, options, factor, scope):
    found = moved(model(), mode, width, scope, **options)
    assert found["weight"] == pytest.approx(1.0, rel=1e-4)
    assert found["step"] == pytest.approx(factor, rel=1e-3)
    assert found["norm"] == pytest.approx(factor if scope == "no_decay_group" else 1.0, rel=1e-3)


def test_code_factors_follow_the_list():
    """0.1 per place, where D14 has 0.5 for one bit."""
    net = model((4, 3, 2))
    optimizer = torch.optim.SGD(parameter_groups(net, 0.0), lr=1.0)
    rates = [MultiLR(net, optimizer, (2, 4, 3), mode="multi_lr_code").rate(b, 2.0) for b in (4, 3, 2)]
    assert rates == pytest.approx([2.0, 0.2, 0.02])


def test_gradient_size_of_alrs():
    net = quintil.quantize_(nn.Sequential(*(nn.Linear(2, 2) for _ in range(4))), DoubleRounding(bits=(4, 2)))
    assert step_gradient_size(net) == 0.0
    first, second = net[1], net[2]
    first.weight_quantizers["4"].step.grad = torch.tensor([0.3, 0.0])
    first.input_quantizers["2"].step.grad = torch.tensor(-0.4)
    second.weight_quantizers["4"].step.grad = torch.tensor([6.0, 8.0])  # norm 10: clipped to 0.6 and 0.8
    size = (0.4 + 0.8) / 2
    assert step_gradient_size(net) == pytest.approx(size)
    optimizer = torch.optim.SGD(parameter_groups(net, 0.0), lr=1.0)
    assert MultiLR(net, optimizer, (4, 2), mode="alrs_rel").rate(2, 0.5) == pytest.approx(0.1 * 0.5 * (1 - size))
    literal = MultiLR(net, optimizer, (4, 2), mode="alrs_literal")
    assert literal.rate(2, 0.5) == 0.0 and literal.rate(2, 1.0) == pytest.approx(0.1 * (1 - size))


def test_steps_stay_positive_and_unused_widths_still():
    """Adam has no gradient, so no step, for the widths that did not run."""
    net = model()
    optimizer = torch.optim.Adam(parameter_groups(net, 0.0), lr=1.0)
    multi, steps = MultiLR(net, optimizer, (8, 6, 4, 2)), net.block[0].input_quantizers
    for width in (8, 2, 8, 2):
        before = {key: quantizer.step.item() for key, quantizer in steps.items()}
        optimizer.zero_grad()
        quintil.set_bits(net, width)(images().relu()).square().sum().backward()
        multi.step(width)
        assert {key for key in steps if steps[key].step.item() != before[key]} <= {str(width)}
        assert all(bool((m.step >= 1e-8).all()) for m in net.modules() if isinstance(m, StepQuantizer))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: MultiLR(Net(), None, (4, 2), mode="fast"),
         "MultiLR: expected mode to be one of multi_lr, alrs_rel, alrs_literal, multi_lr_code, none, got 'fast'"),
        (lambda: MultiLR(Net(), None, (4, 2), stop=3), "MultiLR: expected stop to be one of [4, 2], got 3"),
        (lambda: SelfDistillation(3, 2, 5, update="late"),
         "SelfDistillation: expected update to be one of epoch, in_loop, got 'late'"),
        (lambda: SelfDistillation(3, 2, 5, alpha=2), "SelfDistillation: expected alpha in 0..1, got 2"),
    ],
)  # fmt: skip
def test_refused(call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        call()


def test_soft_cross_entropy_of_labels_is_cross_entropy():
    logits, labels = torch.randn(6, 4), torch.arange(6) % 4
    want = F.cross_entropy(logits, labels)
    torch.testing.assert_close(soft_cross_entropy(logits, F.one_hot(labels, 4).float()), want)


@pytest.mark.parametrize("update", ["epoch", "in_loop"])
def test_self_distillation(update):
    taught = SelfDistillation(5, 3, epochs=10, alpha=0.7, update=update)
    indices, labels = torch.tensor([4, 0]), torch.tensor([2, 1])
    onehot = F.one_hot(labels, 3).float()
    logits = torch.randn(2, 3, requires_grad=True)
    assert torch.equal(taught.targets(indices, labels, 0), onehot)
    taught.record(indices, logits)
    taught.finish_batch()
    assert torch.equal(taught.table[[4, 0]], logits.detach().softmax(1)) and not taught.table.requires_grad
    share = 0.7 * 4 / 10
    want = (1 - share) * onehot + share * logits.detach().softmax(1)
    torch.testing.assert_close(taught.targets(indices, labels, 3), want)
    taught.record(indices, logits + torch.tensor([5.0, 0.0, 0.0]))
    changed = not torch.equal(taught.targets(indices, labels, 3), want)
    assert changed == (update == "in_loop")
    taught.finish_batch()
    assert not torch.allclose(taught.targets(indices, labels, 3), want)
    assert torch.count_nonzero(taught.table[1:4]) == 0
