"""How much rounding a layer hurts: the trace of the loss's Hessian, estimated without the Hessian [DR D20]."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]
Batches = Iterable[tuple[Tensor, Tensor]]

_LAYERS = (nn.Linear, nn.Conv2d)


def hessian_trace(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    *,
    layers: Sequence[str] | None = None,
    most_draws: int = 100,
    tolerance: float = 1e-3,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """Hutchinson's estimate of Tr(H_l) / n_l for the n_l weights of every layer, in the order of the model [DR D20].

    model: float32 and not quantised; runs in evaluation mode, and is left as it was. loss(output, target): the mean
        over a batch. batches: (input, target) pairs, gone through once per draw, so not an iterator; they count by
        their size.
    layers: names of modules with a weight; None = every nn.Linear and nn.Conv2d.
    A draw is one vector v of random signs for all weights together, and v_l . (H v)_l the estimate for layer l. Draws
    are averaged until one changes the estimates by less than `tolerance` of their sizes, both summed over the layers,
    or `most_draws` is reached. Signs come from `generator` (default: torch's own); equal seeds give equal traces.

    Raises TypeError for an iterator or other dtypes, ValueError for unknown layers, quantised layers, or no batches.
    """
    names, weights = _weights(model, layers)
    if iter(batches) is batches:
        raise TypeError("hessian_trace: expected batches to be iterable many times, got an iterator")
    if most_draws < 1:
        raise ValueError(f"hessian_trace: expected most_draws of at least 1, got {most_draws}")
    mean = torch.zeros(len(weights), dtype=torch.float64)
    with _prepared(model, weights):
        for draw in range(1, most_draws + 1):
            signs = [_signs(weight, generator) for weight in weights]
            products = _hessian_product(model, loss, batches, weights, signs)
            estimate = torch.stack([(v.double() * p).sum() for v, p in zip(signs, products)])
            change = (estimate - mean) / draw
            mean += change
            if draw > 1 and change.abs().sum() < tolerance * mean.abs().sum():
                break
    return {name: float(trace) / weight.numel() for name, trace, weight in zip(names, mean, weights)}


def _weights(model: nn.Module, layers: Sequence[str] | None) -> tuple[list[str], list[Tensor]]:
    modules = dict(model.named_modules())
    quantised = [name for name, module in modules.items() if hasattr(module, "scheme")]
    if quantised:
        raise ValueError(
            f"hessian_trace: expected a float model, got a quantised layer {quantised[0]!r} (call dequantize_ first)"
        )
    names = [name for name, m in modules.items() if isinstance(m, _LAYERS)] if layers is None else list(layers)
    for name in names:
        if not isinstance(getattr(modules.get(name), "weight", None), Tensor):
            raise ValueError(f"hessian_trace: expected layers to name modules with a weight, got {name!r}")
    if not names:
        raise ValueError("hessian_trace: expected model to hold a Linear or Conv2d layer, got none")
    weights = [modules[name].weight for name in names]
    for name, weight in zip(names, weights):
        if weight.dtype != torch.float32:
            raise TypeError(f"hessian_trace: expected float32 weights, got {weight.dtype} ({name!r})")
    return names, weights


@contextmanager
def _prepared(model: nn.Module, weights: Sequence[Tensor]) -> Iterator[None]:
    """Evaluation mode, and gradients of the weights alone; both as before afterwards."""
    modes = {module: module.training for module in model.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.eval().requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, value in wanted.items():
            parameter.requires_grad_(value)


def _signs(weight: Tensor, generator: torch.Generator | None) -> Tensor:
    """Rademacher numbers, -1 or 1, of the weight's shape."""
    return torch.randint(0, 2, weight.shape, generator=generator).to(weight.dtype) * 2 - 1


def _hessian_product(
    model: nn.Module, loss: Loss, batches: Batches, weights: Sequence[Tensor], vectors: Sequence[Tensor]
) -> list[Tensor]:
    """H v in float64, H the Hessian of the mean loss over all samples, by differentiating grad . v."""
    totals = [torch.zeros(weight.shape, dtype=torch.float64) for weight in weights]
    samples = 0
    for x, y in batches:
        gradients = torch.autograd.grad(loss(model(x), y), weights, create_graph=True, allow_unused=True)
        parts = [(g * v).sum() for g, v in zip(gradients, vectors) if g is not None and g.requires_grad]
        if parts:
            products = torch.autograd.grad(sum(parts), weights, allow_unused=True)
            for total, product in zip(totals, products):
                if product is not None:
                    total += len(x) * product.double()
        samples += len(x)
    if samples == 0:
        raise ValueError("hessian_trace: expected batches with samples, got none")
    return [total / samples for total in totals]
