"""How often a model's ranges and accumulators saturate on a batch: what a new task does to each layer [CIL R9]."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quintil import functional as F
from quintil.nn.hdqt import HadamardConv2d, HadamardLinear
from quintil.schemes import HDQT

_MOST_ROWS = 256  # of a product that are counted, evenly spaced: the count is a diagnostic, not fast


@torch.no_grad()
def saturation(model: nn.Module, x: Tensor) -> dict[str, dict[str, float]]:
    """Shares of saturated codes and accumulator tiles in the forward of every HDQT layer, in percent, by layer name.

    model: any model with swapped layers; it is run once on the batch x in evaluation mode and left as it was.
    "codes": input elements beyond range_fraction * max|x| [HDQT H1]; "tiles": tile sums beyond the accumulator's limit
    [H3] as each tile ends, over at most 256 rows (output positions) of the layer. A layer that runs several times
    reports its last run; one that does not run is absent.
    """
    found: dict[str, dict[str, float]] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, (HadamardLinear, HadamardConv2d)):
            hooks.append(module.register_forward_pre_hook(functools.partial(_record, found, name)))
    training = model.training
    try:
        model.eval()(x)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return found


def _record(found: dict[str, dict[str, float]], name: str, layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    if arguments[0].numel() > 0:
        seen = forward_codes(layer, arguments[0])
        found[name] = {
            "codes": 100.0 * seen.clipped / seen.input.numel(),
            "tiles": 100.0 * seen.full_tiles / max(1, seen.tiles),
        }


@dataclass(frozen=True)
class ForwardCodes:
    """What the forward of an HDQT layer makes of an input [H1-H3], rounded to nearest.

    input, weight: int8 or uint8 codes, in the shapes of the input and the weight; their float32 steps.
    clipped: input elements beyond the range. full_tiles: tile sums beyond the limit, of `tiles` that were counted.
    """

    input: Tensor
    weight: Tensor
    input_step: float
    weight_step: float
    clipped: int
    full_tiles: int
    tiles: int


@torch.no_grad()
def forward_codes(layer: nn.Module, x: Tensor) -> ForwardCodes:
    """Codes and saturation of one HDQT layer on an input x that is not empty; draws no random number."""
    scheme: HDQT = layer.scheme
    x = x.detach().float()
    codes, step = F.quantize(x, scheme.bits, range_fraction=scheme.range_fraction)
    weight, weight_step = F.quantize(
        layer.operand_weight().detach().float(), scheme.bits, range_fraction=scheme.range_fraction
    )
    beyond = x.abs() > scheme.range_fraction * x.abs().max()
    rows, columns = _operands(layer, codes, weight)
    rows = rows[:: -(-rows.size(0) // _MOST_ROWS)]
    tile = scheme.tile_size or max(1, rows.size(1))
    tiles = rows.size(0) * columns.size(1) * -(-rows.size(1) // tile)
    full = int(F.tile_saturation(rows, columns, tile_size=tile, accumulator_bits=scheme.accumulator_bits))
    return ForwardCodes(codes, weight, float(step), float(weight_step), int(beyond.sum()), full, tiles)


def _operands(layer: nn.Module, codes: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The forward product as matrices [rows, K] and [K, outputs], k in the order in which products share a tile."""
    if isinstance(layer, HadamardLinear):
        return codes.reshape(-1, codes.size(-1)), _signed(weight).t()
    geometry = {"dilation": layer.dilation, "padding": layer._pad, "stride": layer.stride}
    codes = codes.unsqueeze(0) if codes.dim() == 3 else codes
    unfolded = nn.functional.unfold(codes.float(), layer.kernel_size, **geometry)  # [N, C * taps, positions]
    channels = codes.size(1)
    taps = unfolded.unflatten(1, (channels, -1))
    kernel = weight.flatten(2)  # [O, C, taps]
    if layer.scheme.tile_order == "khwc":
        taps, kernel = taps.transpose(1, 2), kernel.transpose(1, 2)
    rows = taps.flatten(1, 2).transpose(1, 2).flatten(0, 1)
    return rows.to(codes.dtype), _signed(kernel.flatten(1)).t()


def _signed(weight: Tensor) -> Tensor:
    """Weight codes as int8: an all-non-negative weight has unsigned codes [HDQT H1], of up to 7 bits they fit."""
    if weight.dtype == torch.uint8 and int(weight.max()) > 127:
        raise NotImplementedError(
            f"saturation: expected weight codes up to 127, got {int(weight.max())} (a weight without negative elements "
            "at 8 bits)"
        )
    return weight.to(torch.int8)
