"""Energy of a model's linear layers and convolutions, forward and backward, counted and priced [HDQT 5.5]."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quintil.nn.registry import SwappedLayer
from quintil.schemes import HDQT
from quintil.studies.counts import KINDS, PHASES, Counts, LayerShape, Operation, float_counts, hdqt_counts
from quintil.studies.prices import Prices, prices_of

_COLUMNS = ("multiplies", "additions", "transform additions", "quantisations", "bytes")


@dataclass(frozen=True)
class LayerEnergy:
    """One layer: its arithmetic ("HDQT(...)" or "float32") and operations by phase (`PHASES`), beside float32's."""

    name: str
    kind: str
    arithmetic: str
    shape: LayerShape
    counts: dict[str, Counts]
    float32: dict[str, Counts]

    def total(self, phase: str | None = None, *, float32: bool = False) -> Counts:
        """Operations of one phase, or of all."""
        source = self.float32 if float32 else self.counts
        return sum((source[name] for name in PHASES if phase in (None, name)), Counter())


@dataclass(frozen=True)
class EnergyReport:
    """What `energy` found, for one run of the batch: layers in the order of definition, and the prices."""

    layers: tuple[LayerEnergy, ...]
    prices: Prices
    samples: int

    def counts(self, phase: str | None = None, *, float32: bool = False) -> Counts:
        """Operations of all layers in one phase, or in all."""
        return sum((layer.total(phase, float32=float32) for layer in self.layers), Counter())

    def picojoules(self, phase: str | None = None, *, float32: bool = False) -> float:
        """Energy of all layers in one phase, or in all; of the same model in float32 if `float32`."""
        return self.prices.total(self.counts(phase, float32=float32))

    @property
    def ratio(self) -> float:
        """How many times the model's energy float32 takes; NaN where there is no layer."""
        own = self.picojoules()
        return self.picojoules(float32=True) / own if own else math.nan

    def table(self) -> str:
        """Markdown: a row per layer and phase, the sums, and the prices' name. Operations in millions, energy in nJ."""
        head = ["layer", "arithmetic", "phase", *_COLUMNS, "nJ", "float32 nJ", "ratio"]
        lines = [head, ["---"] * 3 + ["---:"] * (len(head) - 3)]
        for layer in self.layers:
            for phase in PHASES:
                if layer.counts[phase]:
                    own, reference = layer.counts[phase], layer.float32[phase]
                    lines.append([f"`{layer.name}`", _short(layer), phase, *self._cells(own, reference)])
        for phase in (*PHASES, None):
            reference = self.counts(phase, float32=True)
            if reference:
                lines.append(["all layers", "", phase or "step", *self._cells(self.counts(phase), reference)])
        rows = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{rows}\n\n{self.samples} samples, prices {self.prices.name}; operations and bytes in millions"

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values: per layer and phase all operations by kind, width and count, and both energies."""
        return {
            "prices": {"name": self.prices.name, "source": self.prices.source},
            "samples": self.samples,
            "picojoules": self.picojoules(),
            "float32_picojoules": self.picojoules(float32=True),
            "layers": [self._layer_dict(layer) for layer in self.layers],
        }

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2)

    def _cells(self, own: Counts, reference: Counts) -> list[str]:
        energy, floats = self.prices.total(own), self.prices.total(reference)
        millions = [f"{by_kind(own)[kind] / 1e6:.3f}" for kind in KINDS]
        return [*millions, f"{energy / 1e3:.1f}", f"{floats / 1e3:.1f}", f"{floats / energy:.2f}" if energy else "-"]

    def _layer_dict(self, layer: LayerEnergy) -> dict[str, Any]:
        phases = {}
        for phase in PHASES:
            own, reference = layer.counts[phase], layer.float32[phase]
            phases[phase] = {
                "operations": [_operation_dict(o, n) for o, n in sorted(own.items(), key=lambda item: str(item[0]))],
                "picojoules": self.prices.total(own),
                "float32_picojoules": self.prices.total(reference),
            }
        return {"name": layer.name, "kind": layer.kind, "arithmetic": layer.arithmetic, "phases": phases}


def by_kind(counts: Counts) -> Counter[str]:
    """Operations by kind alone, whatever their widths."""
    found: Counter[str] = Counter()
    for operation, count in counts.items():
        found[operation.kind] += count
    return found


def energy(
    model: nn.Module,
    input: Tensor,
    scheme: HDQT | None = None,
    *,
    prices: Prices | str = "horowitz45_scaled",
    backward: bool = True,
) -> EnergyReport:
    """Operations and energy of one training step of `model` on the batch `input`, layer by layer, beside float32.

    Counted are every nn.Linear and nn.Conv2d that runs: the forward, and with `backward` the gradients that the model
    asks for (an input that needs no gradient has no input gradient, a frozen weight no weight gradient). Everything
    else (norms, ReLU, the loss, the optimiser) runs in float32 in both and is left out. Bytes are those that quantisers
    and products must read and write once, codes packed, as if everything else stayed in registers.

    model: before or after `quantize_`; it runs once, in evaluation mode, and is left as it was, as is the random state.
    input: a batch, float [samples, ...].
    scheme: count the layers as if it had swapped them; None counts each as it is, HDQT or float32. Convolutions that
        HDQT cannot take (groups) count as float32.
    prices: a `Prices`, or the name of a built-in table, a key of `quintil.studies.PRICES`.

    Raises TypeError for a scheme that is not HDQT, given or in a layer, and ValueError for an unknown table or a model
    none of whose layers runs.
    """
    if scheme is not None and not isinstance(scheme, HDQT):
        raise TypeError(f"energy: expected scheme to be an HDQT or None, got {scheme!r}")
    table = prices_of(prices)
    runs: dict[str, list[LayerEnergy]] = {}
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    hooks = [
        module.register_forward_hook(functools.partial(_record, runs, name, scheme, backward), with_kwargs=True)
        for name, module in layers.items()
    ]
    training = {module: module.training for module in model.modules()}
    try:
        with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(backward):
            model.eval()(input)
    finally:
        for module, mode in training.items():
            module.training = mode
        for hook in hooks:
            hook.remove()
    if not runs:
        raise ValueError("energy: expected model to run an nn.Linear or nn.Conv2d, got none")
    return EnergyReport(tuple(_together(runs[name]) for name in layers if name in runs), table, len(input))


def _record(
    runs: dict[str, list[LayerEnergy]],
    name: str,
    scheme: HDQT | None,
    backward: bool,
    layer: nn.Module,
    arguments: tuple[Tensor, ...],
    keywords: dict[str, Tensor],
    output: Tensor,
) -> None:
    shape = _shape(layer, arguments[0] if arguments else keywords["input"], output, backward)
    own = scheme or getattr(layer, "scheme", None)
    if own is not None and not isinstance(own, HDQT):
        raise TypeError(f"energy: expected layers of HDQT or float32, got {own.summary()} (in {name!r})")
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        own = None
    floats = float_counts(shape)
    counts = floats if own is None else hdqt_counts(shape, own)
    kind = layer.float_class.__name__ if isinstance(layer, SwappedLayer) else type(layer).__name__
    arithmetic = "float32" if own is None else own.summary()
    runs.setdefault(name, []).append(LayerEnergy(name, kind, arithmetic, shape, counts, floats))


def _shape(layer: nn.Module, x: Tensor, output: Tensor, backward: bool) -> LayerShape:
    convolution = isinstance(layer, nn.Conv2d)
    outputs, depth = layer.weight.size(0), math.prod(layer.weight.shape[1:])
    return LayerShape(
        rows=output.numel() // outputs,
        depth=depth,
        outputs=outputs,
        inputs=x.numel(),
        samples=(x.size(0) if x.dim() == 4 else 1) if convolution else 1,
        folds=convolution,
        bias=layer.bias is not None,
        input_gradient=backward and x.requires_grad,
        weight_gradient=backward and layer.weight.requires_grad,
    )


def _together(runs: list[LayerEnergy]) -> LayerEnergy:
    """A layer that ran several times: the sums of its runs, the shape of the first."""
    first = runs[0]
    counts = {phase: sum((run.counts[phase] for run in runs), Counter()) for phase in PHASES}
    floats = {phase: sum((run.float32[phase] for run in runs), Counter()) for phase in PHASES}
    return LayerEnergy(first.name, first.kind, first.arithmetic, first.shape, counts, floats)


def _short(layer: LayerEnergy) -> str:
    return layer.arithmetic.partition("(")[0]


def _operation_dict(operation: Operation, count: int) -> dict[str, Any]:
    bits = [operation.bits, operation.other_bits or operation.bits]
    width = bits if operation.kind == "multiply" else operation.bits
    return {"kind": operation.kind, "number": operation.number, "bits": width, "count": count}
