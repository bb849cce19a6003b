"""LeNet-5, the VGG-like net and the net for texts: sizes of the published ones, shapes, draws."""

from __future__ import annotations

import pytest
import torch
from conftest import same_bits
from quintil.models import CnnLstm, lenet5, vgg_like
from torch import nn


def parameters(net: nn.Module) -> int:
    """Those that train, without BatchNorm's."""
    norms = {p for m in net.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for p in m.parameters()}
    return sum(p.numel() for p in net.parameters() if p.requires_grad and p not in norms)


@pytest.mark.parametrize(
    ("make", "count", "size"),
    [(lenet5, 1_663_370, (1, 28, 28)), (vgg_like, 5_350_986, (3, 32, 32))],
    ids=["lenet5", "vgg_like"],
)
def test_images(make, count, size):
    net = make(generator=torch.Generator().manual_seed(3))
    assert parameters(net) == count and net(torch.randn(2, *size)).shape == (2, 10)
    assert make(7)(torch.randn(2, *size)).shape == (2, 7)
    twin = make(generator=torch.Generator().manual_seed(3))
    assert all(same_bits(a, b) for a, b in zip(net.parameters(), twin.parameters()))


def test_texts():
    net = CnnLstm(generator=torch.Generator().manual_seed(3)).eval()
    assert parameters(net) == 2_638_895
    words = torch.randint(0, 20_000, (3, 100))
    logits = net(words)
    assert logits.shape == (3,)
    twin = CnnLstm(generator=torch.Generator().manual_seed(3)).eval()
    assert same_bits(logits, twin(words))
    net.train()
    torch.nn.functional.binary_cross_entropy_with_logits(net(words), torch.tensor([0.0, 1.0, 1.0])).backward()
    assert net.lstm.bias_hh_l0.grad is None and net.embedding.weight.grad.abs().sum() > 0
