"""A model as a program for inference at one width: what stands between two products joins them.

Around an integer layer a model computes in float32: BatchNorm, ReLU, the sum with a residual, and the quantiser of
the next layer. Each is a pass over memory. Here they become part of the layers' own passes, with the same integers up
to float32's rounding in BatchNorms:

    BatchNorm after a layer        its output steps and bias (`fold_norms_`)
    BatchNorm, ReLU -> quantiser   `ToCodes` with a factor and a summand per channel; unsigned codes need no ReLU
    layer, ReLU -> quantiser       the layer hands over codes
    layer + tensor, ReLU           the layer adds and rectifies

Layers of VecQ take in the BatchNorm and the ReLU behind them; they hand over real numbers.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.modules.batchnorm import _BatchNorm

from quintil.nn.double_rounding import DoubleRoundingConv2d, DoubleRoundingLinear
from quintil.nn.fold import QUANTISED, LeafTracer, affine_of, fold_norms_
from quintil.nn.integer import HalfIntegerConv2d, HalfIntegerLinear, IntegerConv2d, IntegerLinear, ToCodes
from quintil.nn.vecq import VecQLinear
from quintil.nn.vecq_convolutions import VecQConv2d

_RELUS = (F.relu, torch.relu, torch.relu_, F.relu_)
_SUMS = (operator.add, operator.iadd, torch.add)


def deploy(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """A copy of `model` for inference at the widths it has now, its layers joined; the model itself stays as it is.

    model: with linear layers and convolutions of Double Rounding or VecQ whose steps or averages have started,
    traceable by torch.fx, else TypeError. example: an input, any batch size, from which the shapes are taken. Layers
    that do not join (groups, offsets, several lengths for an output, one bit of Double Rounding) stay as they are.
    ValueError for a model without such layers. The result is in evaluation mode, has one width, and can be scripted,
    exported and saved as every torch.fx.GraphModule.
    """
    if not any(isinstance(module, (*QUANTISED, VecQLinear, VecQConv2d)) for module in model.modules()):
        raise ValueError("deploy: expected model to hold layers of Double Rounding or VecQ, got none")
    twin = copy.deepcopy(model)
    fold_norms_(twin)
    program = fx.GraphModule(twin, LeafTracer().trace(twin)).eval()
    with torch.no_grad():
        twin(example)  # raises what layers say, which the line below would hide
        ShapeProp(program).propagate(example)
        for rewrite in (_drop_identities, _use_integers, _hand_over_codes, _add_residuals, _use_half_integers):
            rewrite(program)
            program.graph.eliminate_dead_code()
    program.delete_all_unused_submodules()
    program.recompile()
    return program.eval()


def _drop_identities(program: fx.GraphModule) -> None:
    """Folded BatchNorms, and dropout, which does nothing in evaluation."""
    for node in program.graph.nodes:
        node.type = None  # annotations that were strings are no names that TorchScript knows
        if isinstance(_module(program, node), (nn.Identity, nn.Dropout, nn.Dropout2d)):
            node.replace_all_uses_with(node.args[0])


def _use_integers(program: fx.GraphModule) -> None:
    """Every layer of Double Rounding becomes a quantiser and an integer layer."""
    for node in list(program.graph.nodes):
        layer = _module(program, node)
        if not isinstance(layer, QUANTISED) or not layer.integers or layer.bits == 1:
            continue
        quantizer = next(q for q in layer.input_quantizers.values() if q.bits == layer.bits)
        if quantizer.offset is not None:
            continue
        source = node.args[0] if quantizer.signed else _before_relu(program, node.args[0])
        norm, affine = _module(program, source), None
        if isinstance(norm, _BatchNorm) and norm.running_mean is not None:
            affine = affine_of(norm)
            source = source.args[0]
        step = quantizer.step.detach().clone()
        to_codes = ToCodes(step, quantizer.bits, quantizer.signed, affine)
        with program.graph.inserting_before(node):
            codes = _call(program, f"{node.target}_codes", to_codes, source)
            replacement = _call(program, f"{node.target}_integer", _integer_layer(layer, step), codes)
        replacement.meta = node.meta
        node.replace_all_uses_with(replacement)


def _integer_layer(layer: nn.Module, x_step: Tensor) -> IntegerLinear | IntegerConv2d:
    weight, weight_step = layer.weight_codes()
    bias = None if layer.bias is None else layer.bias.detach().clone()
    weight_step = weight_step.detach().clone()
    if isinstance(layer, DoubleRoundingLinear):
        return IntegerLinear(weight.detach().clone(), weight_step, x_step, bias)
    assert isinstance(layer, DoubleRoundingConv2d)
    weight = weight.detach().clone(memory_format=torch.channels_last)  # the order in which int_conv2d reads it
    return IntegerConv2d(weight, weight_step, x_step, bias, layer.stride, layer.even_padding, layer.dilation)


def _hand_over_codes(program: fx.GraphModule) -> None:
    """An integer layer whose output only one quantiser reads, unsigned and without a factor, returns its codes."""
    for node in list(program.graph.nodes):
        to_codes = _module(program, node)
        if not isinstance(to_codes, ToCodes) or to_codes.gain is not None or to_codes.signed:
            continue
        layer = _integer(program, node.args[0])
        if layer is not None and len(node.args[0].users) == 1:
            layer.out_step, layer.out_bits = to_codes.step, to_codes.bits
            node.replace_all_uses_with(node.args[0])


def _add_residuals(program: fx.GraphModule) -> None:
    """layer + tensor of the same size becomes the layer's own sum, and a ReLU that alone reads it the layer's own."""
    order = {node: place for place, node in enumerate(program.graph.nodes)}
    for node in list(program.graph.nodes):
        if not _is_sum(node):
            continue
        # The later of two layers: its sum is ready when the other's is.
        for term in sorted(node.args, key=order.__getitem__, reverse=True):
            other = node.args[0] if term is node.args[1] else node.args[1]
            layer = _integer(program, term)
            if layer is None or layer.out_step is not None or len(term.users) > 1 or not _same_size(term, other):
                continue
            with program.graph.inserting_before(node):
                joined = program.graph.call_module(term.target, (term.args[0], other))
            joined.meta, order[joined] = node.meta, order[node]
            node.replace_all_uses_with(joined)
            _join_relu(program, layer, joined)
            break


def _join_relu(program: fx.GraphModule, layer: IntegerLinear | IntegerConv2d, node: fx.Node) -> None:
    users = list(node.users)
    if len(users) == 1 and _is_relu(program, users[0]):
        layer.relu = True
        users[0].replace_all_uses_with(node)


def _use_half_integers(program: fx.GraphModule) -> None:
    """Every layer of VecQ, with a BatchNorm and a ReLU that alone read it, becomes one on half-integers."""
    for node in list(program.graph.nodes):
        layer = _module(program, node)
        if not isinstance(layer, (VecQLinear, VecQConv2d)) or not (layer.integers and layer.joins):
            continue
        last, affine, relu = node, None, False
        norm = _only_user(last)
        if isinstance(_module(program, norm), _BatchNorm) and _module(program, norm).running_mean is not None:
            last, affine = norm, affine_of(_module(program, norm))
        if _only_user(last) is not None and _is_relu(program, _only_user(last)):
            last, relu = _only_user(last), True
        with program.graph.inserting_before(node):
            joined = _half_integer_layer(layer, affine, relu)
            replacement = _call(program, f"{node.target}_integer", joined, node.args[0])
        replacement.meta = last.meta
        last.replace_all_uses_with(replacement)


def _half_integer_layer(
    layer: nn.Module, affine: tuple[Tensor, Tensor] | None, relu: bool
) -> HalfIntegerLinear | HalfIntegerConv2d:
    step, length = (value.clone() for value in layer.input_quantizer.step_and_length())
    weight, alpha, sums, bias = (value if value is None else value.clone() for value in layer.weight_codes())
    if affine is not None:
        gain, shift = affine
        alpha, sums, bias = alpha * gain, sums * gain, shift if bias is None else bias * gain + shift
    bits = layer.input_quantizer.bits, layer.weight_quantizer.bits
    arguments = (bits[0], step, length, bits[1], weight, alpha, sums, bias, relu)
    if isinstance(layer, VecQLinear):
        return HalfIntegerLinear(*arguments)
    return HalfIntegerConv2d(*arguments, geometry=layer._geometry)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _call(program: fx.GraphModule, name: str, module: nn.Module, source: fx.Node) -> fx.Node:
    parent, _, last = name.rpartition(".")
    while hasattr(program.get_submodule(parent), last):
        last += "_"
    target = f"{parent}.{last}" if parent else last
    program.add_submodule(target, module)
    return program.graph.call_module(target, (source,))


def _module(program: fx.GraphModule, node: object) -> nn.Module | None:
    if isinstance(node, fx.Node) and node.op == "call_module":
        return program.get_submodule(node.target)
    return None


def _integer(program: fx.GraphModule, node: object) -> IntegerLinear | IntegerConv2d | None:
    module = _module(program, node)
    return module if isinstance(module, (IntegerLinear, IntegerConv2d)) else None


def _calls(node: fx.Node, functions: tuple[Callable, ...], methods: tuple[str, ...]) -> bool:
    return (node.op == "call_function" and node.target in functions) or (
        node.op == "call_method" and node.target in methods
    )


def _is_relu(program: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(_module(program, node), nn.ReLU) or _calls(node, _RELUS, ("relu", "relu_"))


def _is_sum(node: fx.Node) -> bool:
    operands = len(node.args) == 2 and all(isinstance(arg, fx.Node) for arg in node.args)
    return _calls(node, _SUMS, ("add", "add_")) and operands and not node.kwargs


def _before_relu(program: fx.GraphModule, node: fx.Node) -> fx.Node:
    """What a ReLU reads, if leaving it out changes nothing else: one that works in place changes what others read."""
    if not _is_relu(program, node):
        return node
    source = node.args[0]
    return source if len(source.users) == 1 or not _in_place(program, node) else node


def _in_place(program: fx.GraphModule, node: fx.Node) -> bool:
    module = _module(program, node)
    if module is not None:
        return module.inplace
    return node.target in (torch.relu_, F.relu_, "relu_") or bool(node.kwargs.get("inplace", node.args[1:2] == (True,)))


def _same_size(a: fx.Node, b: fx.Node) -> bool:
    sizes = [node.meta["tensor_meta"].shape if "tensor_meta" in node.meta else None for node in (a, b)]
    return sizes[0] is not None and sizes[0] == sizes[1]
