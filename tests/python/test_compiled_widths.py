"""`torch.compile(fullgraph=True)` and `torch.export` of layers of several widths."""

from __future__ import annotations

import copy

import pytest
import quintil
import torch
from conftest import assert_same
from quintil import DoubleRounding
from quintil.nn import keep_steps_positive
from small_nets import Net, images


@pytest.fixture
def started():
    """A network whose steps have started, and an input."""
    torch._dynamo.reset()
    model, x = quintil.quantize_(Net(), DoubleRounding(bits=(8, 4), skip_ends=False)), images()
    with torch.no_grad():
        for width in (8, 4):
            quintil.set_bits(model, width)(x)
    yield model, x
    torch._dynamo.reset()


def test_training_steps_equal_eager(started):
    model, x = started
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01) for m in (model, twin)]
    for width in (8, 4, 8):
        for m, call, optimizer in zip((model, twin), (model, compiled), optimizers):
            optimizer.zero_grad()
            quintil.set_bits(m, width)
            call(x).square().mean().backward()
            optimizer.step()
            keep_steps_positive(m)
    for (name, a), b in zip(model.named_parameters(), twin.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)


def test_evaluation_multiplies_integers(started):
    model, x = started
    compiled = torch.compile(model.eval(), backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for width in (4, 8, 4):
            quintil.set_bits(model, width)
            assert_same(compiled(x), model(x))


def test_export(started):
    model, x = started
    with torch.no_grad():
        program = torch.export.export(quintil.set_bits(model.eval(), 4), (x,))
        assert_same(program.module()(x), model(x))
    targets = {str(node.target) for node in program.graph.nodes}
    assert {"quintil.int_conv2d.default", "quintil.int_linear.default", "quintil.double_round.default"} <= targets
