"""Autocast on the CPU: every op on real numbers sees float32, so a region of bfloat16 changes nothing but the casts."""

import pytest
import quintil
import torch
from conftest import activations, assert_same, weights

ops = torch.ops.quintil


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_inputs_are_cast_to_float32(dtype):
    x, w, image, kernel = (
        activations(8, 16).to(dtype),
        weights(4, 16),
        activations(2, 3, 5, 5).to(dtype),
        weights(4, 3, 3, 3),
    )
    calls = [
        lambda x, image: ops.hadamard_linear(x, w, seed=3),
        lambda x, image: ops.hadamard_conv2d(image, kernel, None, [1, 1], [1, 1], [1, 1], seed=3),
        lambda x, image: ops.hadamard_transform(x),
        lambda x, image: ops.quantize(x, 4)[1],
        lambda x, image: ops.lsq_quantize(x, torch.tensor(0.25, dtype=dtype), 4),
        lambda x, image: ops.vecq_step(x, 4),
        lambda x, image: ops.luq_quantize(x, seed=3),
        lambda x, image: ops.luq_codes(x, seed=3)[1],
        lambda x, image: ops.minifloat_quantize(x, [5, 4, 3, 2, 1, 0], torch.tensor(0)),
        lambda x, image: ops.vecq_quantize(x, 4, grad_mode="pwl", grad_ratio=0.5)[0],
        lambda x, image: ops.vecq_activation(x, 4, torch.ones(3), training=True)[0],
        lambda x, image: ops.double_round_quantize(x, torch.tensor(0.125, dtype=dtype), 8, 2),
    ]
    for call in calls:
        with torch.autocast("cpu", dtype=dtype):
            got = call(x, image)
        assert got.dtype == torch.float32
        assert_same(got, call(x.float(), image.float()))
        if got.dim() > 0:
            assert call(x, image).dtype == dtype, "outside the region the result has the input's type"


def test_a_model_trains_under_autocast():
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    quintil.quantize_(model, quintil.HDQT(), skip="0")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(activations(8, 16))
    assert y.dtype == torch.float32, "the float layer gave bfloat16, the integer layer float32"
    y.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
