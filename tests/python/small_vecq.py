"""The layers of VecQ that its tests work on, each with its float class and an input."""

from __future__ import annotations

import torch
from quintil import VecQ
from quintil.nn import VecQConv1d, VecQConv2d, VecQConvTranspose2d, VecQLinear
from torch import nn
from torch.nn.utils.rnn import PackedSequence

ops = torch.ops.quintil


def makers():
    """Layer of a scheme, its float class with the same arguments, and an input."""
    return {
        "linear": (VecQLinear, nn.Linear, (20, 7), {}, (9, 20)),
        "conv1d": (VecQConv1d, nn.Conv1d, (4, 6, 3), dict(stride=2, padding=1, dilation=2), (3, 4, 11)),
        "conv2d": (VecQConv2d, nn.Conv2d, (4, 6, 3), dict(stride=2, padding=(1, 2), dilation=(1, 2)), (2, 4, 9, 8)),
        "plain conv2d": (VecQConv2d, nn.Conv2d, (4, 6, (2, 3)), {}, (2, 4, 6, 7)),
        "same conv2d": (VecQConv2d, nn.Conv2d, (4, 6, 3), dict(padding="same", bias=False), (2, 4, 6, 7)),
        "grouped": (VecQConv2d, nn.Conv2d, (4, 6, 3), dict(groups=2, padding_mode="reflect", padding=1), (2, 4, 6, 7)),
        "transposed": (VecQConvTranspose2d, nn.ConvTranspose2d, (4, 6, 3), dict(stride=2), (2, 4, 5, 4)),
    }


def made(kind: str, scheme: VecQ):
    layer_class, float_class, arguments, keywords, shape = makers()[kind]
    layer, plain = layer_class(*arguments, **keywords, scheme=scheme), float_class(*arguments, **keywords)
    return layer, plain, torch.randn(shape) * 1.5 + 0.2


def levels_of(t, bits, **options):
    return ops.vecq_quantize(t, bits, step=ops.vecq_step(t, bits, **options))[0]


def started(layer: nn.Module, x: torch.Tensor, batches: int = 3) -> nn.Module:
    """In evaluation mode, after some training forwards."""
    layer.train()
    with torch.no_grad():
        for _ in range(batches):
            layer(x)
    return layer.eval()


def flat(result) -> list[torch.Tensor]:
    """What a recurrent layer returns: the numbers of its output, then its states."""
    output, state = result
    output = output.data if isinstance(output, PackedSequence) else output
    return [output, *(state if isinstance(state, tuple) else (state,))]
