"""The cosine classifier: its formula in every arithmetic, and growth that keeps what it has [CIL 2.9, R1]."""

from __future__ import annotations

import math

import pytest
import quintil
import torch
from conftest import assert_same, same_bits
from quintil import HDQT
from quintil.models import CosineHead, FCNet, IncrementalNet
from quintil.nn import HadamardLinear
from torch import nn


def test_formula_and_gradients():
    head = CosineHead(nn.Linear(7, 4, bias=False, dtype=torch.float64))
    nn.init.constant_(head.sigma, 3.0)
    features = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    for i in range(5):
        for c in range(4):
            f, w = features[i].tolist(), head.weight[c].tolist()
            cosine = math.fsum(a * b for a, b in zip(f, w)) / (math.hypot(*f) * math.hypot(*w))
            assert head.cosines(features)[i, c].item() == pytest.approx(cosine, abs=1e-12)
            assert head(features)[i, c].item() == pytest.approx(3 * cosine, abs=1e-12)
    assert torch.autograd.gradcheck(head, features)
    head(features).square().sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    across = (head.weight.grad * head.weight).sum(1)  # a longer row changes nothing
    torch.testing.assert_close(across, torch.zeros_like(across), atol=1e-10, rtol=0)


def test_zero_features_have_a_finite_gradient():
    head = CosineHead(nn.Linear(3, 2, bias=False))
    features = torch.zeros(2, 3, requires_grad=True)
    logits = head(features)
    assert torch.count_nonzero(logits) == 0
    logits.sum().backward()
    assert features.grad.abs().max().item() < 1e5


@pytest.mark.parametrize("scheme", [HDQT(), HDQT.paper()], ids=["HDQT", "paper"])
def test_the_product_is_the_scheme_s(scheme):
    """Unit rows in float, their product on integers: forward and both gradients are those of the op."""
    head = CosineHead(nn.Linear(40, 12, bias=False))
    nn.init.constant_(head.sigma, 2.0)
    quintil.quantize_(head, scheme)
    assert isinstance(head.product, HadamardLinear)
    features = torch.randn(32, 40, requires_grad=True)
    torch.manual_seed(1)
    logits = head(features)
    logits.square().sum().backward()
    got = [features.grad.clone(), head.weight.grad.clone()]
    features.grad = head.weight.grad = None
    torch.manual_seed(1)
    seed = quintil.functional.draw_seed()
    options = scheme.linear_options(training=True)
    rows, vectors = nn.functional.normalize(head.weight), nn.functional.normalize(features)
    product = torch.ops.quintil.hadamard_linear(vectors, rows, None, seed=seed, **options)
    assert_same(2.0 * product, logits)
    (2.0 * product).square().sum().backward()
    assert_same(got[0], features.grad)
    assert_same(got[1], head.weight.grad)
    head.eval()
    with torch.no_grad():
        exact = nn.functional.linear(vectors, rows)
        assert 0 < (head.cosines(features) - exact).abs().max() < 0.3  # four bits
        assert same_bits(head(features), head(features))


@pytest.mark.parametrize("scheme", [None, HDQT()], ids=["float32", "HDQT"])
def test_growth(scheme):
    net = IncrementalNet(FCNet(24), cosine=True)
    x, generator = torch.randn(9, 24), torch.Generator().manual_seed(1)
    for known, classes in [(0, 3), (3, 5), (5, 40)]:
        before = {name: value.clone() for name, value in net.state_dict().items() if name.startswith("head")}
        logits = net.eval()(x).detach() if known else None
        net.grow(classes, generator=generator)
        assert type(net.head.product) is nn.Linear and net.classes == classes == len(net.head.weight)
        if known:
            assert same_bits(net.head.weight[:known], before["head.product.weight"])
            assert same_bits(net.head.sigma, before["head.sigma"])
        if known and scheme is None:
            torch.testing.assert_close(net(x)[:, :known], logits, atol=1e-6, rtol=1e-6)
        if scheme is not None:
            quintil.quantize_(net, scheme)
        with torch.no_grad():
            net.head.sigma += 0.7
    assert {name for name in net.state_dict() if name.startswith("head")} == {"head.sigma", "head.product.weight"}


def test_no_bias():
    with pytest.raises(ValueError, match="^IncrementalNet: expected bias=False with cosine=True, got True$"):
        IncrementalNet(FCNet(4), bias=True, cosine=True)
