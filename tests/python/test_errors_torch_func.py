"""Derivatives that differentiable ops refuse, in torch.func and in forward mode; vmap of a forward is a loop."""

import pytest
import torch

ops = torch.ops.quintil


def layer_calls():
    """Each differentiable op as a function of one tensor, and such a tensor."""
    w, kernel = torch.randn(3, 8), torch.randn(4, 3, 3, 3)
    return {
        "hadamard_linear": (lambda x: ops.hadamard_linear(x, w, seed=1), torch.randn(4, 8)),
        "hadamard_conv2d": (lambda x: ops.hadamard_conv2d(x, kernel, seed=1), torch.randn(2, 3, 5, 5)),
        "hadamard_conv2d_batch_norm": (
            lambda x: ops.hadamard_conv2d_batch_norm(x, kernel, torch.ones(4), torch.zeros(4), seed=1)[0],
            torch.randn(2, 3, 5, 5),
        ),
        "hadamard_transform": (lambda x: ops.hadamard_transform(x), torch.randn(4, 8)),
        "lsq_quantize": (lambda x: ops.lsq_quantize(x, torch.tensor(0.1), 4), torch.randn(4, 8)),
        "luq_quantize": (lambda x: ops.luq_quantize(x, seed=3), torch.randn(4, 8)),
        "minifloat_quantize": (
            lambda x: ops.minifloat_quantize(x, [5, 4, 3, 2, 1, 0], torch.tensor(0)),
            torch.randn(4, 8),
        ),
        "double_round_quantize": (
            lambda x: ops.double_round_quantize(x, torch.tensor(0.02), 8, 4),
            torch.randn(4, 8),
        ),
    }


@pytest.mark.parametrize("name", sorted(layer_calls()))
@pytest.mark.parametrize("transform", ["grad", "vjp", "jacrev", "vmap of grad"])
def test_torch_func_transforms_raise(name, transform):
    call, x = layer_calls()[name]
    total = lambda x: call(x).sum()  # noqa: E731
    use = {
        "grad": lambda: torch.func.grad(total)(x),
        "vjp": lambda: torch.func.vjp(call, x),
        "jacrev": lambda: torch.func.jacrev(call)(x),
        "vmap of grad": lambda: torch.func.vmap(torch.func.grad(total))(torch.stack([x, x])),
    }
    with pytest.raises(RuntimeError, match="cannot use C\\+\\+ torch::autograd::Function with functorch transforms"):
        use[transform]()


@pytest.mark.parametrize("name", sorted(layer_calls()))
def test_forward_mode_is_refused(name):
    """Never a result without its tangent."""
    call, x = layer_calls()[name]
    words = {"hadamard_transform": "jvp is not implemented|functorch"}.get(
        name, f"^{name}: expected inputs without a tangent"
    )
    error = RuntimeError if name == "hadamard_transform" else NotImplementedError
    with pytest.raises(error, match=words):
        torch.func.jvp(call, (x,), (x,))
    with pytest.raises(error, match=words), torch.autograd.forward_ad.dual_level():
        call(torch.autograd.forward_ad.make_dual(x, x))


@pytest.mark.parametrize("name", sorted(layer_calls()))
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_vmap_of_a_forward_is_a_loop(name):
    call, x = layer_calls()[name]
    batch = torch.stack([x, 2 * x.roll(1, 0), x.abs()])
    assert torch.equal(torch.func.vmap(call)(batch), torch.stack([call(sample) for sample in batch]))
