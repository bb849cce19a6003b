"""Training, scripts and graphs of nets of VecQ: a net learns, scripted and compiled models compute the same."""

from __future__ import annotations

import copy

import pytest
import quintil
import torch
from conftest import assert_same
from quintil import VecQ
from small_nets import Net, descent, images
from small_vecq import started
from torch import nn


@pytest.mark.parametrize("scheme", [VecQ(2), VecQ(4, 8), VecQ(2, 4, grad_mode="pwl_c", per_channel=True)], ids=str)
def test_a_net_learns(scheme):
    model = quintil.quantize_(Net(), scheme)
    y = torch.arange(40) % 5
    x = images(5)[y] + 0.1 * images(40)
    losses = descent(model, torch.optim.Adam(model.parameters(), lr=0.01), x, y, 40)
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        assert float((model.eval()(x).argmax(1) == y).float().mean()) > 0.8


@pytest.mark.parametrize("scheme", [VecQ(4), VecQ(4, 8), VecQ(8, 8, per_channel=True)], ids=str)
def test_a_scripted_model_computes_the_same(scheme):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    quintil.quantize_(model, scheme)
    x = images()
    started(model, x)
    scripted = torch.jit.script(copy.deepcopy(model))
    with torch.no_grad():
        assert_same(scripted(x), model(x))
    assert_same(scripted(x), model(x))
    model.train(), scripted.train()
    assert_same(scripted(x), model(x))
    fresh = torch.jit.script(quintil.quantize_(nn.Sequential(nn.Linear(3, 2)), VecQ(4, 8)).eval())
    with pytest.raises(Exception, match="expected a training forward or calibrate"):
        fresh(torch.randn(2, 3))


def test_compiled_training_and_evaluation():
    model = quintil.quantize_(nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)), VecQ(4, 8))
    other = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(16, 12)
    for _ in range(2):
        got, want = compiled(x), other(x)
        assert_same(got, want)
        got.sum().backward()
        want.sum().backward()
    assert_same(model[0].weight.grad, other[0].weight.grad)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), other.buffers()))
    model.eval(), other.eval()
    with torch.no_grad():
        assert_same(compiled(x), other(x))
