"""The same bits with 1, 2 and 3 threads: every op, and training steps of an MLP and of a small convnet."""

import pytest
import quintil.functional as F
import torch
from conftest import SCALAR, activations, same_bits, weights

ops = torch.ops.quintil
SCALE = 1 if SCALAR else 3


def train(layers, x, labels, **options):
    """Three SGD steps with fixed seeds; all parameters and the last loss."""
    torch.manual_seed(7)
    parameters = [p.clone().requires_grad_() for p in layers["parameters"]]
    optimiser = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    for step in range(3):
        loss = torch.nn.functional.cross_entropy(layers["forward"](x, parameters, step, **options), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return [p.detach() for p in parameters] + [loss.detach()]


def mlp(x, parameters, step, **options):
    for i, w in enumerate(parameters[:-1]):
        x = ops.hadamard_linear(x, w, seed=10 * step + i, **options).relu()
    return ops.hadamard_linear(x, parameters[-1], seed=10 * step + 9, **options)


def convnet(x, parameters, step, **options):
    batch = {"conv_backward": "batch", **options}
    x = ops.hadamard_conv2d(x, parameters[0], parameters[1], [1, 1], [1, 1], seed=10 * step, **options).relu()
    x = ops.hadamard_conv2d(x, parameters[2], None, [2, 2], [1, 1], seed=10 * step + 1, **batch).relu()
    x, *_ = ops.hadamard_conv2d_batch_norm(x, *parameters[4:7], x, [1, 1], [1, 1], seed=10 * step + 2, **options)
    return ops.hadamard_linear(x.flatten(1), parameters[3], seed=10 * step + 3, **options)


def make_mlp():
    parameters = [weights(101, 101) * 0.1, weights(101, 101) * 0.1, weights(19, 101) * 0.1]
    return {"parameters": parameters, "forward": mlp}, activations(128, 101), torch.randint(0, 19, (128,))


def make_convnet():
    parameters = [
        weights(16, 3, 3, 3) * 0.3,
        weights(16),
        weights(24, 16, 3, 3) * 0.1,
        weights(10, 24 * 16) * 0.1,
        weights(24, 24, 3, 3) * 0.1,
        weights(24).abs() + 0.5,
        weights(24),
    ]
    return (
        {"parameters": parameters, "forward": convnet},
        activations(5 * SCALE, 3, 8, 8),
        torch.randint(0, 10, (5 * SCALE,)),
    )


@pytest.mark.parametrize("make", [make_mlp, make_convnet])
@pytest.mark.parametrize("dc_row", ["together", "separate"])
def test_training_steps(make, dc_row):
    net, x, labels = make()
    results = {}
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results[threads] = train(net, x, labels, dc_row=dc_row)
    assert not torch.equal(results[1][0], net["parameters"][0]), "the step must have trained"
    for threads in (2, 3):
        for i, (a, b) in enumerate(zip(results[threads], results[1])):
            assert same_bits(a, b), f"{threads} threads, tensor {i}"


def step_gradients(op, x, scale, *bits, **options):
    """y and all gradients, one after the other."""
    leaves = [t.clone().requires_grad_() for t in (x, scale)]
    y = op(*leaves, *bits, **options)
    return torch.cat([t.flatten() for t in (y.detach(), *torch.autograd.grad(y, leaves, x.cos()))])


def single_ops():
    x = torch.randn(300 * SCALE, 257)
    a, b = torch.randint(0, 16, (130, 333)).to(torch.uint8), torch.randint(-7, 8, (333, 170)).to(torch.int8)
    broken = x.clone()
    broken[-1, -1] = float("inf")
    steps = x.abs().mean(1) / 8
    codes = torch.randint(-128, 128, (2**20 + 7,)).to(torch.int8)
    image, kernel = a[:120].flatten()[: 5 * 16 * 22 * 22].reshape(5, 16, 22, 22), b[:144].flatten()[:4320].reshape(
        30, 16, 3, 3
    )
    return {
        "quantize": lambda: ops.quantize(x, 4)[0],
        "quantize stochastic": lambda: ops.quantize(x, 4, seed=3)[0],
        "quantize rows": lambda: ops.quantize(x, 8, scale=x.abs().amax(1) / 127)[0],
        "quantize non-finite": lambda: ops.quantize(broken, 4)[1],
        "dequantize": lambda: ops.dequantize(b, torch.tensor(0.37)),
        "pack_int4": lambda: ops.pack_int4(b),
        "unpack_int4": lambda: ops.unpack_int4(ops.pack_int4(b), 170),
        "transform": lambda: ops.hadamard_transform(x),
        "transform rows": lambda: ops.hadamard_transform(x, 0, hadamard="binary"),
        "transform codes": lambda: ops.hadamard_transform(b, 0),
        "mm": lambda: ops.tiled_int_mm(a, b),
        "mm every_mac": lambda: ops.tiled_int_mm(a, b, accumulate="every_mac"),
        "mm wrap": lambda: ops.tiled_int_mm(a, b, overflow="wrap", tile_size=0),
        "saturation": lambda: ops.tile_saturation(a, b),
        "int linear": lambda: ops.int_linear(a, steps.mean(), b.t(), steps[:170]),
        "int linear wide": lambda: ops.int_linear(a, steps.mean(), b.t(), steps[:170], x_zero2=-511),
        "int conv": lambda: ops.int_conv2d(image, steps.mean(), kernel, steps[:30], None, [1, 1], [1, 1], x_zero2=7),
        "int linear joined": lambda: ops.int_linear(
            a, steps.mean(), b.t(), steps[:170], residual=x[: len(a), :170], relu=True, out_scale=steps.mean()
        ),
        "affine quantize": lambda: ops.affine_quantize(x, x[0], x[1], steps.mean(), 4),
        "lsq": lambda: step_gradients(ops.lsq_quantize, x, steps.mean(), 4),
        "lsq rows": lambda: step_gradients(ops.lsq_quantize, x, steps, 4, signed=True, offset=torch.tensor(0.1)),
        "luq": lambda: ops.luq_quantize(x, seed=3, samples=2),
        "luq codes": lambda: ops.luq_codes(x, seed=3)[0].float(),
        "sawb": lambda: ops.sawb_clip(x),
        "minifloat": lambda: ops.minifloat_quantize(x, [5, 4, 3, 2, 1, 0], torch.tensor(1)),
        "minifloat drawn": lambda: ops.minifloat_quantize(x, [5, 4, 3, 2, 1, 0], torch.tensor(1), seed=3),
        "minifloat held": lambda: ops.minifloat_quantize(x, [5, 4, 3, 2, 1, 0], torch.tensor(1), previous=x.cos()),
        "vecq step": lambda: ops.vecq_step(x, 4),
        "vecq step search": lambda: ops.vecq_step(x, 4, per_channel=True, lambda_mode="search"),
        "vecq": lambda: torch.cat([t.flatten().float() for t in ops.vecq_quantize(x, 4)]),
        "vecq rows": lambda: ops.vecq_quantize(x, 4, step=ops.vecq_step(x, 4, per_channel=True), drive="norm")[0],
        "vecq losses": lambda: torch.stack(ops.vecq_losses(x, x.cos())),
        "double round": lambda: ops.double_round(codes, 8, 4),
        "double round rows": lambda: step_gradients(
            ops.double_round_quantize, x, steps / 16, 8, 4, scale_grad_sum="all"
        ),
    }


@pytest.mark.parametrize("name", sorted(single_ops()))
def test_single_ops(name):
    call = single_ops()[name]
    torch.set_num_threads(1)
    want = call()
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert same_bits(call(), want), f"{threads} threads"


def test_draws_do_not_depend_on_threads():
    """One seed per call, whatever happened before: shuffled calls and thread counts give the same codes."""
    x = torch.randn(50, 70)
    want = {seed: ops.quantize(x, 4, seed=seed)[0] for seed in range(5)}
    for threads, seed in ((3, 4), (1, 2), (2, 0), (3, 1), (2, 3), (1, 4)):
        torch.set_num_threads(threads)
        assert same_bits(F.quantize(x, 4, signed=True, seed=seed)[0], want[seed])
