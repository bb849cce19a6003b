"""What the integers of a trained network do, layer by layer: saturation, distributions, bias of gradients.

Each function takes a network in HDQT's layers with a batch and gives rows: dicts with the layer, what was looked at,
and numbers. Nothing of the network changes.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as nnF
from torch import Tensor, nn

from quintil import functional as F
from quintil.nn import quantize_, saturation
from quintil.nn.hdqt import HadamardConv2d, HadamardLinear
from quintil.nn.saturation import forward_codes

Row = dict[str, Any]
TILES = (8, 16, 32, 64, 128, 0)
_DRAWS = 64
_MOST_SAMPLES = 8  # of a convolution's, which quantises every sample by itself, evenly spaced


@dataclass(frozen=True)
class LayerStep:
    """A layer in one training step: its input and the gradient of its output."""

    name: str
    layer: nn.Module
    x: Tensor
    g: Tensor


def layer_steps(net: nn.Module, x: Tensor, labels: Tensor) -> list[LayerStep]:
    """Every HDQT layer of a copy of `net` in one step of cross-entropy, in training mode.

    x: float32 input of the net. labels: int64 [N], below the number of its outputs.
    """
    net = copy.deepcopy(net).train()
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    seen: dict[str, tuple[nn.Module, Tensor, Tensor]] = {}
    for name, module in net.named_modules():
        if isinstance(module, (HadamardLinear, HadamardConv2d)):
            module.register_forward_hook(_keep(seen, name))
    with torch.random.fork_rng(devices=[]):  # the layers draw seeds
        loss = nnF.cross_entropy(net(x), labels)
        gradients = torch.autograd.grad(loss, [y for _, _, y in seen.values()])
    return [LayerStep(name, m, inp, g) for (name, (m, inp, _)), g in zip(seen.items(), gradients, strict=True)]


def _keep(seen: dict, name: str) -> Callable:
    def hook(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        seen[name] = (module, arguments[0].detach().clone(), output)

    return hook


# Saturation ---------------------------------------------------------------------------------------------------------


def saturation_rows(net: nn.Module, x: Tensor, labels: Tensor) -> list[Row]:
    """Clamped tile sums of the forward in percent, by tile size; the codes are the same for all sizes [HDQT H3]."""
    found = {tile: saturation(_with_schemes(net, tile_size=tile), x) for tile in TILES}
    layers = next(iter(found.values()))
    return [
        {"layer": name, "what": _tile(tile), "clamped": found[tile][name]["tiles"]} for name in layers for tile in TILES
    ]


def _tile(size: int) -> str:
    return f"tiles of {size}" if size else "no tiles"


def _with_schemes(net: nn.Module, **changes: Any) -> nn.Module:
    """A copy of a network with every scheme changed."""
    other = copy.deepcopy(net)
    schemes = {m.scheme for m in other.modules() if isinstance(m, (HadamardLinear, HadamardConv2d))}
    if len(schemes) != 1:
        raise ValueError(f"inside: expected one scheme in all layers, got {len(schemes)}")
    return quantize_(other, dataclasses.replace(schemes.pop(), **changes))


# Distributions ------------------------------------------------------------------------------------------------------


def distribution_rows(net: nn.Module, x: Tensor, labels: Tensor) -> list[Row]:
    """Operands of the backward before and after their transform [HDQT H9, H10].

    The gradient is the same in B1 and B2 before it is transformed, by outputs in one and by rows in the other.

    crest: largest size over root mean square: what a step that spans the largest number leaves for the others.
    levels: codes in use, of 2^bits - 1. zeros: percent of codes 0. All rounded to nearest.
    """
    rows = []
    for step in layer_steps(net, x, labels):
        for what, matrices in _operands(step).items():
            found = [_distribution(z, step.layer.scheme.bits) for z in matrices]
            means = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
            rows.append({"layer": step.name, "what": what, **means})
    return rows


def _distribution(z: Tensor, bits: int) -> dict[str, float]:
    z = z.double()
    rms = float(z.square().mean().sqrt())
    codes = F.quantize(z.float(), bits, signed=True)[0]
    return {
        "crest": float(z.abs().max()) / rms if rms > 0 else 0.0,
        "levels": float(codes.unique().numel()),
        "zeros": 100.0 * float((codes == 0).double().mean()),
    }


def _operands(step: LayerStep) -> dict[str, list[Tensor]]:
    """Operand -> the matrices that are quantised, each with a step of its own."""
    scheme = step.layer.scheme
    mode = "none" if scheme.hadamard == "none_scaled" else scheme.hadamard

    def transformed(z: Tensor, dim: int) -> Tensor:
        return F.hadamard_transform(z.contiguous(), dim, hadamard=mode, block=scheme.hadamard_block)

    codes = forward_codes(step.layer, step.x)
    weight = codes.weight.flatten(1).to(torch.int8)
    pairs = list(_matrices(step, codes.input))
    return {
        "b1w before": [weight],
        "b1w after": [transformed(weight, 0)],
        "b2a before": [a for a, _ in pairs],
        "b2a after": [transformed(a, 0) for a, _ in pairs],
        "gradient before": [g for _, g in pairs],
        "b1g after": [transformed(g, 1) for _, g in pairs],
        "b2g after": [transformed(g, 0) for _, g in pairs],
    }


def _matrices(step: LayerStep, codes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Activation codes [rows, K] and output gradients [rows, N] that share their steps."""
    layer, g = step.layer, step.g
    if isinstance(layer, HadamardLinear):
        yield codes.reshape(-1, codes.size(-1)), g.reshape(-1, g.size(-1))
        return
    every = max(1, -(-g.size(0) // _MOST_SAMPLES))
    geometry = {"dilation": layer.dilation, "padding": layer._pad, "stride": layer.stride}
    unfolded = nnF.unfold(codes[::every].float(), layer.kernel_size, **geometry).transpose(1, 2).to(codes.dtype)
    per_sample = list(zip(unfolded, g[::every].flatten(2).transpose(1, 2)))
    if layer.scheme.conv_backward == "per_sample":
        yield from per_sample
    else:
        yield torch.cat([a for a, _ in per_sample]), torch.cat([b for _, b in per_sample])


# Bias and variance --------------------------------------------------------------------------------------------------


def bias_rows(net: nn.Module, x: Tensor, labels: Tensor) -> list[Row]:
    """Relative errors in percent of the integer gradients of each layer, against exact products of the same codes.

    bias: of the mean of _DRAWS draws; an unbiased estimator leaves spread / sqrt(draws). spread: root mean square
    deviation of a draw from that mean. nearest: error where everything rounds to nearest, which is all bias. The
    accumulators have no limit here, so that rounding alone is measured; `limit` is the error that the scheme's limits
    add to the mean.
    """
    wide = _with_schemes(net, accumulator_bits=32, backward_accumulator_bits=32)
    nearest = _with_schemes(net, accumulator_bits=32, backward_accumulator_bits=32, stochastic=())
    rows = []
    layers, plain = dict(wide.named_modules()), dict(nearest.named_modules())
    for step in layer_steps(net, x, labels):
        want = _exact(step)
        drawn = _draws(layers[step.name], step)
        limited = _draws(step.layer, step)
        with torch.random.fork_rng(devices=[]):
            rounded = _gradients(plain[step.name], step)
        for place, name in enumerate(("input", "weight")):
            size = float(want[place].norm())
            if size == 0.0:
                continue
            mean = drawn[place].mean(0)
            numbers = {
                "bias": float((mean - want[place]).norm()) / size,
                "spread": float((drawn[place] - mean).flatten(1).norm(dim=1).square().mean().sqrt()) / size,
                "nearest": float((rounded[place] - want[place]).norm()) / size,
                "limit": float((limited[place].mean(0) - mean).norm()) / size,
            }
            rows.append({"layer": step.name, "what": name, **{k: 100.0 * v for k, v in numbers.items()}})
    return rows


def _gradients(layer: nn.Module, step: LayerStep) -> tuple[Tensor, Tensor]:
    x = step.x.clone().requires_grad_()
    weight = layer.weight.requires_grad_(True)
    return tuple(d.double() for d in torch.autograd.grad(layer(x), (x, weight), step.g))


def _draws(layer: nn.Module, step: LayerStep) -> tuple[Tensor, Tensor]:
    """_DRAWS draws of both gradients; the layer draws its seeds from torch's generator, which is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer.train()
        both = [_gradients(layer, step) for _ in range(_DRAWS)]
    return torch.stack([dx for dx, _ in both]), torch.stack([dw for _, dw in both])


def _exact(step: LayerStep) -> tuple[Tensor, Tensor]:
    """Both gradients by float64 products of the forward's codes with the float gradient."""
    codes = forward_codes(step.layer, step.x)
    x = codes.input.double() * codes.input_step
    weight, g = codes.weight.double() * codes.weight_step, step.g.double()
    if isinstance(step.layer, HadamardLinear):
        return g @ weight, g.reshape(-1, g.size(-1)).t() @ x.reshape(-1, x.size(-1))
    geometry = (step.layer.stride, step.layer._pad, step.layer.dilation)
    dx = torch.nn.grad.conv2d_input(x.shape, weight, g, *geometry)
    return dx, torch.nn.grad.conv2d_weight(x, weight.shape, g, *geometry)


MEASURES: Mapping[str, Callable[[nn.Module, Tensor, Tensor], list[Row]]] = {
    "saturation": saturation_rows,
    "gradient-statistics": distribution_rows,
    "rounding-bias": bias_rows,
}
