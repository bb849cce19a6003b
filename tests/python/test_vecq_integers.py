"""Evaluation of VecQ multiplies integers for every weight layer: several lengths for an output, groups, transposed
convolutions; against float64 on the same levels [VECQ V10]."""

from __future__ import annotations

import copy

import pytest
import quintil
import reference_vecq as reference
import torch
from conftest import assert_same
from quintil import VecQ
from quintil.nn import VecQConv1d, VecQConv2d, VecQConvTranspose2d, VecQLinear
from torch import nn

BITS = [(4, 8), (8, 8), (7, 7), (8, 3), (1, 4)]
LAYERS = {
    "linear, runs": (VecQLinear, (20, 7), {}, dict(group_size=5), (9, 20)),
    "conv1d, groups": (VecQConv1d, (4, 6, 3), dict(stride=2, padding=1, dilation=2, groups=2), {}, (3, 4, 11)),
    "conv2d, runs": (VecQConv2d, (4, 6, 3), dict(padding=(1, 2), stride=2), dict(group_size=18), (2, 4, 6, 7)),
    "conv2d, runs within a channel": (VecQConv2d, (2, 3, (2, 3)), dict(padding=1), dict(group_size=4), (2, 2, 5, 4)),
    "conv2d, groups": (VecQConv2d, (4, 6, 3), dict(padding=1, groups=2), dict(per_channel=True), (2, 4, 6, 7)),
    "conv2d, groups of runs": (VecQConv2d, (4, 6, 3), dict(groups=2, bias=False), dict(group_size=9), (2, 4, 6, 7)),
    "depthwise": (VecQConv2d, (5, 5, 3), dict(padding=1, stride=(1, 2), groups=5), {}, (2, 5, 6, 7)),
    "depthwise, bundled": (VecQConv2d, (68, 136, 3), dict(padding=1, groups=68), {}, (1, 68, 4, 3)),
    "reflected": (VecQConv2d, (4, 6, 3), dict(groups=2, padding_mode="reflect", padding=(1, 2)), {}, (2, 4, 6, 7)),
    "circular conv1d": (VecQConv1d, (4, 6, 3), dict(padding_mode="circular", padding=2), {}, (2, 4, 9)),
    "uneven": (VecQConv2d, (4, 6, (2, 3)), dict(padding="same"), {}, (2, 4, 6, 7)),
    "uneven conv1d": (VecQConv1d, (4, 6, 4), dict(padding="same"), {}, (2, 4, 9)),
    "transposed": (VecQConvTranspose2d, (4, 6, 3), dict(stride=2), {}, (2, 4, 5, 4)),
    "transposed, groups": (
        VecQConvTranspose2d, (4, 6, (3, 2)), dict(stride=(2, 3), padding=1, output_padding=(1, 2), groups=2), {},
        (2, 4, 5, 4),
    ),
    "transposed, cropped": (
        VecQConvTranspose2d, (4, 6, 2), dict(padding=2, stride=(1, 3), bias=False), {}, (2, 4, 5, 6),
    ),
    "transposed, dilated": (VecQConvTranspose2d, (4, 6, 3), dict(stride=2, dilation=(2, 3)), {}, (1, 4, 5, 4)),
    "transposed, per channel": (VecQConvTranspose2d, (4, 6, 3), dict(stride=2), dict(per_channel=True), (2, 4, 5, 4)),
    "transposed, runs": (VecQConvTranspose2d, (4, 6, (2, 3)), dict(groups=2), dict(group_size=9), (2, 4, 5, 4)),
}  # fmt: skip


def made(kind: str, bits: int, activations: int) -> tuple[nn.Module, torch.Tensor]:
    layer_class, arguments, keywords, options, shape = LAYERS[kind]
    layer = layer_class(*arguments, **keywords, scheme=VecQ(bits, activations, **options))
    x = torch.randn(shape) * 1.5 + 0.2
    with torch.no_grad():
        for _ in range(3):
            layer(x)
    return layer.eval(), x


def exact(layer: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The output in float64, and the sum of the sizes of its terms."""
    bits, scheme = layer.weight_quantizer.bits, layer.scheme
    elements = layer.weight[0].numel()
    sizes = (len(layer.weight),) if scheme.per_channel else ()
    sizes = (len(layer.weight), elements // scheme.group_size) if scheme.group_size else sizes
    weight = reference.run_values(layer.weight.detach(), bits, sizes)
    bias = None if layer.bias is None else reference.run_values(layer.bias.detach(), bits)
    values = reference.activation_values(x, layer.input_quantizer.bits, layer.input_quantizer.averages)
    plain = copy.deepcopy(layer)
    plain = quintil.dequantize_(nn.Sequential(plain))[0].double()

    def product(weight: torch.Tensor, bias: torch.Tensor | None, values: torch.Tensor) -> torch.Tensor:
        plain.weight = nn.Parameter(weight)
        plain.bias = None if bias is None else nn.Parameter(bias)
        return plain(values).detach()

    return product(weight, bias, values), product(weight.abs(), None if bias is None else bias.abs(), values.abs())


@pytest.mark.parametrize("bits, activations", BITS)
@pytest.mark.parametrize("kind", LAYERS)
def test_products_are_exact(kind, bits, activations):
    """Within the roundings of float32: one per scale, run, half and bias."""
    layer, x = made(kind, bits, activations)
    want, terms = exact(layer, x)
    with torch.no_grad():
        assert layer.uses_integers()
        got, single = layer(x), layer(x[0])
    roundings = 8 + 2 * len(layer.starts)
    assert got.dtype == torch.float32 and got.shape == want.shape and got.is_contiguous()
    assert bool(((got - want).abs() <= roundings * 2**-24 * terms).all()), float(((got - want).abs() / terms).max())
    assert_same(single, got[0])
    torch.testing.assert_close(got, layer(x).detach(), rtol=1e-5, atol=2e-5)  # with gradients: float32


@pytest.mark.parametrize("kind", ["linear, runs", "conv2d, groups of runs", "transposed, groups"])
def test_a_code_off_by_one_is_seen(kind):
    """The tolerance above tells neighbouring levels apart."""
    layer, x = made(kind, 8, 8)
    want, terms = exact(layer, x)
    with torch.no_grad():
        codes, lengths, bias = layer.run_codes()
        codes.view(-1)[3] += 1 if codes.view(-1)[3] < 0 else -1
        layer.run_codes = lambda: (codes, lengths, bias)
        wrong = ((layer(x) - want).abs() > (8 + 2 * len(layer.starts)) * 2**-24 * terms).sum()
    assert int(wrong) >= len(x)


@pytest.mark.parametrize("kind", LAYERS)
def test_sums_are_whole_quarters(kind):
    """With lengths of one nothing is rounded."""
    layer, x = made(kind, 8, 8)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-128, 128, layer.weight.shape) + 0.5)
        layer.weight_quantizer.fix(torch.ones_like(layer.weight_quantizer.alpha))
        if layer.bias is not None:
            layer.bias.zero_()
        layer.input_quantizer.averages.copy_(torch.tensor([1.0, 1.0, 0.5]))
        codes = torch.randint(-128, 128, x.shape) + 0.5
        got = layer(codes)
    assert layer.weight_quantizer.fixed
    plain = quintil.dequantize_(nn.Sequential(copy.deepcopy(layer)))[0].double()
    assert_same(got.double(), plain(codes.double()).detach())


@pytest.mark.parametrize("kind", LAYERS)
def test_layouts_empty_batches_and_dtypes(kind):
    layer, x = made(kind, 4, 8)
    with torch.no_grad():
        want = layer(x)
        assert layer(x[:0]).shape == (0, *want.shape[1:])
        if x.dim() == 4:
            assert_same(layer(x.to(memory_format=torch.channels_last)).contiguous(), want)
        assert layer.double()(x.double()).dtype == torch.float64


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("bits, activations", BITS[:3])
@pytest.mark.parametrize("kind", LAYERS)
def test_scripted_layers_compute_the_same(kind, bits, activations):
    layer, x = made(kind, bits, activations)
    scripted = torch.jit.script(copy.deepcopy(layer))
    with torch.no_grad():
        assert_same(scripted(x), layer(x))
    assert_same(scripted(x), layer(x))


def test_sizes_asked_of_a_transposed_convolution():
    layer, x = made("transposed", 4, 8)
    with torch.no_grad():
        for size in ([11, 9], [12, 10]):
            assert layer(x, output_size=size).shape[2:] == torch.Size(size)
            torch.testing.assert_close(layer(x, size), _with_gradients(layer, x, size), rtol=1e-5, atol=2e-5)


@torch.enable_grad()
def _with_gradients(layer: nn.Module, x: torch.Tensor, size: list[int]) -> torch.Tensor:
    return layer(x, size).detach()


def test_deployed_models_keep_such_layers():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3)).eval()
    quintil.quantize_(model, VecQ(4, 8))
    x = torch.randn(2, 4, 8, 8)
    quintil.nn.calibrate(model, [x])
    program = quintil.nn.deploy(model, x)
    with torch.no_grad():
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-5)
    assert any(isinstance(m, VecQConv2d) for m in program.modules())


def test_what_stays_in_float():
    for options in (dict(activation_bits=None), dict(activation_bits=9), dict(weight_bits=9), dict(levels="ul2q"),
                    dict(activation_place="output")):  # fmt: skip
        scheme = VecQ(**{"weight_bits": 4, "activation_bits": 8, "group_size": 2, **options})
        assert not VecQLinear(4, 3, scheme=scheme).integers
        assert not VecQConvTranspose2d(4, 3, 2, scheme=scheme).integers
    assert VecQLinear(4, 3, scheme=VecQ(4, 8, group_size=2)).integers
