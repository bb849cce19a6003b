"""BatchNorms folded into the layers before them: the same outputs, the same integers."""

from __future__ import annotations

import copy
import re

import pytest
import quintil
import torch
from conftest import same_bits
from quintil import HDQT, DoubleRounding
from quintil.models import PreActResNet, mobilenet_v2
from quintil.models.preact import PreActBlock
from quintil.nn import DoubleRoundingConv2d, fold_norms_
from small_nets import Net, images, trained
from torch import nn


@pytest.mark.parametrize("options", [{}, {"activation_offset": True}, {"per_channel": False}], ids=str)
@pytest.mark.parametrize("width", [8, 2])
def test_outputs_and_integers_stay(width, options):
    model = trained(quintil.quantize_(Net(), DoubleRounding(skip_ends=False, **options)), images(), (8, 2))
    quintil.set_bits(model, width)
    x, conv = images(), model.stem[0]
    codes = conv.weight_codes()[0]
    with torch.no_grad():
        want = model(x)
        folded = copy.deepcopy(model)
        assert fold_norms_(folded) == ["stem.1"] and isinstance(folded.stem[1], nn.Identity)
        got = folded(x)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(folded(x), want, rtol=1e-4, atol=1e-5)  # in float
    assert same_bits(folded.stem[0].weight_codes()[0], codes) and same_bits(folded.stem[0].weight, conv.weight)
    with pytest.raises(
        ValueError, match=re.escape(f"expected bits to be one of {width}, got {10 - width} (layer 'stem.0')")
    ):
        quintil.set_bits(folded, 10 - width)
    quintil.set_bits(folded, width)
    quintil.dequantize_(folded)  # the gain goes into the float weight
    plain = quintil.dequantize_(copy.deepcopy(model)).eval()
    if width == 8:  # the BatchNorm's own values are those of the highest width
        torch.testing.assert_close(folded(x), plain(x), rtol=1e-4, atol=1e-5)


def test_float_layers_take_them_in_too():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(144, 5), nn.BatchNorm1d(5), nn.Linear(5, 2), nn.BatchNorm1d(2, track_running_stats=False),
    )  # fmt: skip
    x = images()
    for _ in range(3):
        model(x)
    nn.init.normal_(model[5].bias)
    model.eval()
    want = model[:7](x)
    assert fold_norms_(model) == ["1", "5"]
    torch.testing.assert_close(model[:7](x), want, rtol=1e-4, atol=1e-5)


def test_what_has_another_user_stays():
    """In a pre-activation block the first BatchNorm's input is the residual too."""
    net = quintil.quantize_(PreActResNet(PreActBlock, (1, 2), 8, 5), DoubleRounding(bits=(8, 4)))
    x = torch.randn(4, 3, 8, 8)
    trained(net, x, (8, 4))
    with torch.no_grad():
        want = quintil.set_bits(net, 4)(x)
        assert fold_norms_(net) == ["stages.0.0.bn2", "stages.1.0.bn2", "stages.1.1.bn2"]
        torch.testing.assert_close(net(x), want, rtol=1e-3, atol=1e-4)
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.BatchNorm1d(4), shared).eval()
    assert fold_norms_(model) == []


def test_every_norm_of_mobilenet_is_folded():
    net = mobilenet_v2(5).eval()
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    x = torch.randn(2, 3, 32, 32)
    want = net(x)
    assert len(fold_norms_(net)) == norms == 52
    torch.testing.assert_close(net(x), want, rtol=1e-3, atol=1e-5)


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_other_schemes_and_models_that_cannot_be_traced():
    model = quintil.quantize_(Net(), HDQT()).eval()
    assert fold_norms_(model) == []
    with pytest.raises(TypeError, match="^fold_norms_: expected model to be traceable by torch.fx, got symbolically"):
        fold_norms_(Branching())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_folded_layers_can_be_scripted_and_copied():
    layer = DoubleRoundingConv2d(3, 4, 3, bias=False, scheme=DoubleRounding(bits=(4,)))
    x = images()
    layer(x)
    layer.eval().fold(torch.rand(4), torch.rand(4))
    with torch.no_grad():
        want = layer(x)
        assert same_bits(torch.jit.script(layer)(x), want) and same_bits(copy.deepcopy(layer)(x), want)
    layer.fold(torch.full((4,), 2.0), torch.zeros(4))
    with torch.no_grad():
        torch.testing.assert_close(layer(x), 2 * want)
