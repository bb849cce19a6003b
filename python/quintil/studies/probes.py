"""What the integers of a training step do: levels in use, clipping, saturation, steps, and gradients beside float's.

A probe is a set of hooks on the HDQT layers. It draws no random number and replaces no tensor, so that outputs and
gradients are the same bits with and without it; without a probe a model has no hook.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as nnF
from torch import Tensor, nn

from quintil import functional as F
from quintil.nn.fuse import FusedContainer
from quintil.nn.hdqt import HadamardConv2d, HadamardLinear
from quintil.nn.saturation import forward_codes
from quintil.studies.counts import block_orders

_OP_NAMES = ("HadamardLinear", "HadamardConv2d")  # of the autograd nodes
_MOST_HOPS = 4  # from a layer's output to that node: casts and the sample axis of a single image
_MOST_SAMPLES = 8  # of a convolution's gradient whose codes are counted, evenly spaced


@dataclass
class LayerRecord:
    """What a probe saw of one layer.

    histograms: operand -> code -> how often, over all runs seen: "input" and "weight" of the forward [HDQT H2], and
        "gradient", the transformed gradient of B1 [H9], rounded to nearest where the layer draws.
    history: an entry per run seen: run (its number), training, input_step, weight_step, input_levels and weight_levels
        (how many codes occur), elements and clipped (of the input, beyond the range), tiles and full_tiles (counted
        tile sums, and those beyond the limit); once its backward ran also gradient_levels, gradient_zeros (share of
        codes 0), and input_gradient_cosine and weight_gradient_cosine.
    """

    histograms: dict[str, Counter[int]] = field(
        default_factory=lambda: {"input": Counter(), "weight": Counter(), "gradient": Counter()}
    )
    history: list[dict[str, float]] = field(default_factory=list)
    runs: int = 0


class Probe:
    """Made by `probe`; collects until `close`, which the end of a `with` block calls."""

    def __init__(self, model: nn.Module, every: int) -> None:
        self.layers: dict[str, LayerRecord] = {}
        self._every = every
        self._hooks = []
        for name, module in model.named_modules():
            if isinstance(module, (HadamardLinear, HadamardConv2d)):
                record = self.layers[name] = LayerRecord()
                self._hooks.append(
                    module.register_forward_hook(functools.partial(self._forward, record), with_kwargs=True)
                )

    def close(self) -> None:
        """Remove the hooks; what was collected stays. A backward of an earlier forward is still recorded."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def to_dict(self) -> dict[str, Any]:
        """Layer -> runs, histograms and history as JSON values; codes are texts, as JSON's keys are."""
        return {
            name: {
                "runs": record.runs,
                "histograms": {
                    operand: {str(code): count for code, count in sorted(codes.items())}
                    for operand, codes in record.histograms.items()
                },
                "history": record.history,
            }
            for name, record in self.layers.items()
        }

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2)

    def write_tensorboard(self, folder: str | Path) -> None:
        """Event files with <layer>/<entry of the history> over the run's number; ImportError without tensorboard."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError(
                "probe: expected the package tensorboard, got none (pip install 'quintil[tensorboard]')"
            ) from None
        with SummaryWriter(str(folder)) as writer:
            for name, record in self.layers.items():
                for entry in record.history:
                    for key, value in entry.items():
                        if key != "run":
                            writer.add_scalar(f"{name}/{key}", value, entry["run"])

    @torch.no_grad()
    def _forward(
        self,
        record: LayerRecord,
        layer: nn.Module,
        arguments: tuple[Tensor, ...],
        keywords: dict[str, Tensor],
        output: Tensor,
    ) -> None:
        run, record.runs = record.runs, record.runs + 1
        x = arguments[0] if arguments else keywords["input"]
        if run % self._every or x.numel() == 0:
            return
        seen = forward_codes(layer, x)
        entry: dict[str, float] = {
            "run": run, "training": float(layer.training), "input_step": seen.input_step,
            "weight_step": seen.weight_step, "input_levels": _count(record.histograms["input"], seen.input),
            "weight_levels": _count(record.histograms["weight"], seen.weight), "elements": x.numel(),
            "clipped": seen.clipped, "tiles": seen.tiles, "full_tiles": seen.full_tiles,
        }  # fmt: skip
        record.history.append(entry)
        node = _node(output)
        if node is not None:  # x may be changed in place before the backward
            kept = x.detach().float().clone()
            weight = layer.operand_weight().detach().float()
            node.register_hook(functools.partial(_backward, record, entry, layer, kept, weight))


def probe(model: nn.Module, *, every: int = 1) -> Probe:
    """Record what the integers of every HDQT layer of `model` do, until the probe is closed; results stay as they are.

    every: look at each `every`-th run of a layer, from the first. A run that is looked at takes several times as long
        and keeps the layer's input as float32 until its backward.

    `probe.layers[name]` holds a `LayerRecord`; `to_json` and `write_tensorboard` write it. Gradient cosines compare the
    layer's integer gradients with those that float32 products of the same input, weight and output gradient give; the
    bits of the layers above are in both. Second derivatives, and compiled or scripted models, are not seen.

    Raises TypeError if `model` is no nn.Module; ValueError for `every` below 1, for a model without an HDQT layer, and
    for one that `quintil.nn.fuse_` changed, since fused layers do not run one by one (`unfuse_` first).
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"probe: expected model to be an nn.Module, got {type(model).__name__}")
    if every < 1:
        raise ValueError(f"probe: expected every of at least 1, got {every}")
    fused = [name or "the model itself" for name, m in model.named_modules() if isinstance(m, FusedContainer)]
    if fused:
        raise ValueError(f"probe: expected model without fused layers, got some in {fused[0]} (call unfuse_ first)")
    made = Probe(model, every)
    if not made.layers:
        raise ValueError("probe: expected model to hold a layer of HDQT, got none (quantize_ comes first)")
    return made


def _count(histogram: Counter[int], codes: Tensor) -> int:
    """Add codes to a histogram; returns how many different ones there are."""
    levels, counts = codes.unique(return_counts=True)
    histogram.update(dict(zip(levels.tolist(), counts.tolist())))
    return len(levels)


def _node(output: Tensor) -> Any:
    """The layer's autograd node above its output, or None."""
    node = output.grad_fn
    for _ in range(_MOST_HOPS):
        if node is None or any(name in node.name() for name in _OP_NAMES):
            return node
        node = node.next_functions[0][0] if node.next_functions else None
    return None


@torch.no_grad()
def _backward(
    record: LayerRecord,
    entry: dict[str, float],
    layer: nn.Module,
    x: Tensor,
    weight: Tensor,
    gradients: tuple[Tensor | None, ...],
    outer: tuple[Tensor | None, ...],
) -> None:
    """Complete the entry of a run with its gradients: the node's inputs are x, weight and bias."""
    g = outer[0]
    if g is None:
        return
    codes = _gradient_codes(layer, g)
    histogram: Counter[int] = Counter()
    entry["gradient_levels"] = _count(histogram, codes)
    entry["gradient_zeros"] = histogram[0] / max(1, codes.numel())
    record.histograms["gradient"].update(histogram)
    floats = _float_gradients(layer, x, weight, g, [gradient is not None for gradient in gradients[:2]])
    for name, own, reference in zip(("input", "weight"), gradients, floats):
        if own is not None:
            cosine = nnF.cosine_similarity(own.double().flatten(), reference.double().flatten(), dim=0, eps=1e-300)
            entry[f"{name}_gradient_cosine"] = float(cosine)


def _float_gradients(
    layer: nn.Module, x: Tensor, weight: Tensor, g: Tensor, wanted: list[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of input and weight by float32 products."""
    if isinstance(layer, HadamardLinear):
        rows, g = x.reshape(-1, x.size(-1)), g.reshape(-1, g.size(-1))
        return (g @ weight if wanted[0] else None), (g.t() @ rows if wanted[1] else None)
    x = x.unsqueeze(0) if x.dim() == 3 else x
    geometry = (layer.stride, layer._pad, layer.dilation)
    dx = torch.nn.grad.conv2d_input(x.shape, weight, g, *geometry) if wanted[0] else None
    return dx, torch.nn.grad.conv2d_weight(x, weight.shape, g, *geometry) if wanted[1] else None


def _gradient_codes(layer: nn.Module, g: Tensor) -> Tensor:
    """Codes of the output gradient in B1 [HDQT H9], nearest; of a convolution by sample, of `_MOST_SAMPLES` at most."""
    scheme = layer.scheme
    if isinstance(layer, HadamardLinear):
        groups = [g.reshape(-1, g.size(-1))]
    elif scheme.conv_backward == "batch":
        groups = [g.transpose(0, 1).flatten(1).t()]
    else:
        groups = [sample.flatten(1).t() for sample in g[:: max(1, -(-g.size(0) // _MOST_SAMPLES))]]
    mode = "none" if scheme.hadamard == "none_scaled" else scheme.hadamard
    scales = [p**-0.5 for p in block_orders(layer.weight.size(0), mode) for _ in range(p)]
    codes = []
    for group in groups:
        z = F.hadamard_transform(group.contiguous(), 1, hadamard=mode, block=scheme.hadamard_block)
        z = z * z.new_tensor(scales) if mode == "binary" else z
        codes.append(F.quantize(z, scheme.bits, signed=True)[0].flatten())
    return torch.cat(codes) if codes else torch.empty(0, dtype=torch.int8)
