"""`fuse_`: convolution, BatchNorm, residual and ReLU as one op of a training step, which saves codes alone.

A container whose forward calls a HadamardConv2d and a BatchNorm2d of its own one after the other gets a forward in
which they are one call of `functional.hadamard_conv2d_batch_norm`. `torch.fx` finds them; the container keeps its
children, parameters, names and hooks, and evaluation takes the layers as they are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from quintil.functional import can_have_gradient, draw_seed
from quintil.nn.hdqt import HadamardConv2d

_conv2d_batch_norm = torch.ops.quintil.hadamard_conv2d_batch_norm.default
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RELUS = (F.relu, torch.relu)


class FusedContainer:
    """Base of the classes that `fuse_` gives to containers; `float_class` is the class before."""

    float_class = nn.Module


def fuse_(model: nn.Module) -> nn.Module:
    """Fuse HadamardConv2d, BatchNorm2d, a residual and a ReLU wherever `model` has them in a row; returns `model`.

    In place and after `quantize_`: every module of `model` that owns such a pair (bias-free convolution, affine norm)
    and whose forward `torch.fx` can trace gets a forward that calls `functional.hadamard_conv2d_batch_norm` in
    training mode. Module objects, Parameters and state_dict keys stay. The sums of the convolution are normalised
    exactly, so the output of a block differs from that of its separate layers by float rounding alone. In evaluation
    mode, or where a convolution or norm has hooks, the layers run one by one as before.

    What is saved for the backward of such a block shrinks from 8.5 bytes per output element to 2.6 (two for the sum,
    half for the codes of the input, an eighth for the ReLU). A fused container is not scriptable; it can be copied
    but not pickled (store its state_dict); `unfuse_` undoes it.

    Raises TypeError if `model` is no nn.Module and ValueError if nothing in it can be fused.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"fuse_: expected model to be an nn.Module, got {type(model).__name__}")
    fused = 0
    for module in model.modules():
        if isinstance(module, FusedContainer):
            fused += 1
        elif _owns_pair(module):
            forward = _fused_forward(module)
            if forward is not None:
                own = {"forward": forward, "float_class": type(module), "__module__": type(module).__module__}
                module.__class__ = type(f"Fused{type(module).__name__}", (FusedContainer, type(module)), own)
                fused += 1
    if fused == 0:
        raise ValueError(
            "fuse_: expected model to call a HadamardConv2d and then a BatchNorm2d of the same container, got none "
            "that torch.fx can trace (quantize_ comes first)"
        )
    return model


def unfuse_(model: nn.Module) -> nn.Module:
    """Give every container that `fuse_` changed its own forward back, in place, and return `model`."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"unfuse_: expected model to be an nn.Module, got {type(model).__name__}")
    for module in model.modules():
        if isinstance(module, FusedContainer):
            module.__class__ = type(module).float_class
    return model


def conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    """relu(norm(conv(x)) + residual), in one op where that is possible."""
    if not _fuses_now(conv, norm, x, residual):
        y = norm(conv(x))
        y = y if residual is None else y + residual
        return F.relu(y) if relu else y
    tensors = (x, conv.weight, norm.weight, norm.bias, residual)
    wanted = any(can_have_gradient(t, conv.weight, None) for t in tensors)
    seed = draw_seed() if conv.scheme.stochastic and wanted else None
    y, mean, variance = _conv2d_batch_norm(
        x,
        conv.operand_weight(),
        norm.weight,
        norm.bias,
        residual,
        conv.stride,
        conv._pad,
        conv.dilation,
        relu=relu,
        eps=norm.eps,
        seed=seed,
        **conv._options[True],
    )
    _update_running_statistics(norm, mean, variance, y.numel() // y.shape[1])
    return y


def _fuses_now(conv: nn.Module, norm: nn.Module, x: Tensor, residual: Tensor | None) -> bool:
    if not isinstance(conv, HadamardConv2d) or not (conv.training and norm.training) or x.dim() != 4:
        return False
    if any(map(_has_hooks, (conv, norm))):
        return False
    if residual is None:
        return True
    taps = (d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size))
    sizes = [(n + 2 * p - t) // s + 1 for n, p, t, s in zip(x.shape[2:], conv._pad, taps, conv.stride)]
    return residual.shape == (x.shape[0], conv.out_channels, *sizes)  # else it is broadcast


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _update_running_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, values: int) -> None:
    """As nn.BatchNorm2d does: the running variance is the unbiased one."""
    if norm.running_mean is None:
        return
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        momentum = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
        norm.running_var.lerp_((variance * (values / (values - 1))).to(norm.running_var.dtype), momentum)


def _owns_pair(module: nn.Module) -> bool:
    children = list(module.children())
    return any(_fusible_conv(c) for c in children) and any(_fusible_norm(c) for c in children)


def _fusible_conv(module: nn.Module) -> bool:
    return isinstance(module, HadamardConv2d) and module.bias is None and _sums_fit(module)


def _sums_fit(conv: HadamardConv2d) -> bool:
    """Whether the op takes this weight: its Meta function says so without any data."""
    taps = [d * (k - 1) + 2 for d, k in zip(conv.dilation, conv.kernel_size)]
    image = torch.empty(2, conv.in_channels, *taps, device="meta")
    weight, channels = torch.empty(conv.weight.shape, device="meta"), torch.empty(conv.out_channels, device="meta")
    try:
        _conv2d_batch_norm(image, weight, channels, channels, **conv._options[False])
    except ValueError:
        return False
    return True


def _fusible_norm(module: nn.Module) -> bool:
    return type(module) is nn.BatchNorm2d and module.affine


class _OneLevel(fx.Tracer):
    """Every child is a call, so that the forward of one container alone is traced."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _fused_forward(module: nn.Module) -> Callable[..., Tensor] | None:
    """The forward of `module` with its pairs fused, or None if there are none or it cannot be traced."""
    try:
        graph = _OneLevel().trace(module)
    except Exception:  # a forward that depends on data: tracing may raise anything, and the module stays as it is
        return None
    pairs = 0
    for node in list(graph.nodes):
        pairs += _fuse_node(graph, module, node)
    if pairs == 0:
        return None
    return type(fx.GraphModule(module, graph)).forward


def _fuse_node(graph: fx.Graph, module: nn.Module, norm: fx.Node) -> bool:
    """Replace conv -> `norm` (-> add) (-> relu) by one call."""
    if norm.op != "call_module" or not _fusible_norm(module.get_submodule(norm.target)):
        return False
    conv = norm.args[0] if norm.args else None
    if not isinstance(conv, fx.Node) or conv.op != "call_module" or len(conv.users) != 1 or len(conv.args) != 1:
        return False
    if not _fusible_conv(module.get_submodule(conv.target)):
        return False
    last, residual = norm, None
    addition = _only_user(last)
    if addition is not None and _is_addition(addition):
        residual = addition.args[1] if addition.args[0] is last else addition.args[0]
        last = addition
    relu = _only_user(last)
    if relu is not None and _is_relu(module, relu):
        last = relu
    with graph.inserting_before(last):
        layers = [graph.create_node("get_attr", name) for name in (conv.target, norm.target)]
        arguments = (*layers, conv.args[0], residual, last is relu)
        last.replace_all_uses_with(graph.call_function(conv_norm, arguments))
    for node in (relu if last is relu else None, addition if residual is not None else None, norm, conv):
        if node is not None:
            graph.erase_node(node)
    return True


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_addition(node: fx.Node) -> bool:
    """x + y of two tensors; a constant or `alpha` is another thing."""
    function = node.op == "call_function" and node.target in _ADDITIONS
    method = node.op == "call_method" and node.target in ("add", "add_")
    both = len(node.args) == 2 and all(isinstance(a, fx.Node) for a in node.args) and node.args[0] is not node.args[1]
    return (function or method) and both and not node.kwargs


def _is_relu(module: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(module.get_submodule(node.target)) is nn.ReLU
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in _RELUS
