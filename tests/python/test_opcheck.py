"""`torch.library.opcheck` on every public op: schema, autograd registration, Meta functions, AOT dispatch."""

import pytest
import quintil
import torch
from conftest import activations, weights

ops = torch.ops.quintil
ALL_SITES = "fw,fa,b1w,b1g,b2a,b2g"


def leaf(t):
    return t.detach().requires_grad_()


def int8(*shape):
    return torch.randint(-7, 8, shape).to(torch.int8)


def uint8(*shape):
    return torch.randint(0, 16, shape).to(torch.uint8)


def linear(*, b=6, k=37, n=9, grad=False, bias=True, strided=False, dtype=torch.float32, **options):
    x, w = activations(b, k).to(dtype), weights(n, k).to(dtype)
    if strided:
        x, w = x.t().contiguous().t(), torch.stack([w, w], -1)[..., 0]
    tensors = [x, w, torch.randn(n) if bias else None]
    return tuple(leaf(t) if grad and t is not None else t for t in tensors), {"seed": 5, **options}


def conv(
    *,
    n=2,
    grad=False,
    bias=True,
    channels_last=False,
    geometry=((1, 1), (1, 1)),
    dtype=torch.float32,
    **options,
):
    x, w = activations(n, 3, 7, 6).to(dtype), weights(4, 3, 3, 3).to(dtype)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    tensors = [x, w, torch.randn(4) if bias else None]
    return (*(leaf(t) if grad and t is not None else t for t in tensors), *map(list, geometry)), {
        "seed": 5,
        **options,
    }


def conv_norm(grad=False, residual=False, dtype=torch.float32, channels_last=False, seed=3, **options):
    x, w = torch.randn(3, 3, 6, 5), torch.randn(4, 3, 3, 3)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    tensors = [x, w, torch.rand(4) + 0.5, torch.randn(4), torch.randn(3, 4, 6, 5)]
    tensors = [t.to(dtype).requires_grad_(grad) for t in tensors]
    return (*tensors[: 5 if residual else 4], *([] if residual else [None]), [1, 1], [1, 1]), dict(seed=seed, **options)


def step(*shape, bits, per_row=False, grad=False, offset=False, dtype=torch.float32, **options):
    """x, scale, the widths, and an offset among the options."""
    tensors = [torch.randn(shape).to(dtype), (torch.rand(shape[0] if per_row else ()) + 0.1).to(dtype)]
    if offset:
        tensors.append(torch.tensor(0.2, dtype=dtype))
    tensors = [leaf(t) if grad else t for t in tensors]
    return (*tensors[:2], *bits), {**options, **({"offset": tensors[2]} if offset else {})}


def minifloat(*shape, scale=0, grad=False, dtype=torch.float32, **options):
    x = torch.randn(shape).to(dtype)
    return (leaf(x) if grad else x, [5, 5, 4, 3, 2, 1, 0], torch.tensor(scale)), options


SAMPLES = {
    "quantize": [
        lambda: ((torch.randn(5, 9), 4), {}),
        lambda: ((torch.randn(5, 9), 4), {"signed": False, "seed": 3}),
        lambda: ((torch.randn(5, 9).t(), 8), {"narrow": False, "range_fraction": 0.975}),
        lambda: ((torch.randn(4, 3, 2), 4), {"scale": torch.rand(4) + 0.1}),
        lambda: ((torch.empty(0, 3), 4), {}),
        lambda: ((torch.randn(3, 3, dtype=torch.float64), 4), {}),
        lambda: ((leaf(torch.randn(3, 3)), 4), {}),
    ],
    "dequantize": [
        lambda: ((int8(4, 5), torch.tensor(0.3)), {}),
        lambda: ((uint8(4, 5), torch.rand(4)), {}),
        lambda: ((int8(0, 5), torch.tensor(0.3)), {}),
        lambda: ((int8(4, 5), torch.tensor(0.3, dtype=torch.float64)), {}),
    ],
    "pack_int4": [
        lambda: ((int8(3, 8),), {}),
        lambda: ((uint8(3, 7),), {}),
        lambda: ((int8(6, 5).t(),), {}),
        lambda: ((int8(0, 4),), {}),
    ],
    "unpack_int4": [
        lambda: ((uint8(3, 4), 7), {}),
        lambda: ((uint8(3, 4), 8), {"signed": False}),
        lambda: ((uint8(3, 0), 0), {}),
    ],
    "hadamard_transform": [
        lambda: ((torch.randn(3, 20),), {}),
        lambda: ((leaf(torch.randn(3, 20)), 0), {"hadamard": "binary"}),
        lambda: ((leaf(torch.randn(3, 20)),), {"block": 16}),
        lambda: ((int8(3, 20), 1), {"hadamard": "divisor"}),
        lambda: ((leaf(torch.randn(2, 3, 4).transpose(0, 2)), 1), {"hadamard": "none"}),
        lambda: ((torch.empty(0, 5),), {}),
        lambda: ((torch.randn(3, 5, dtype=torch.bfloat16),), {}),
    ],
    "tiled_int_mm": [
        lambda: ((int8(5, 40), int8(40, 6)), {}),
        lambda: ((uint8(5, 40), int8(6, 40).t()), {"tile_size": 0}),
        lambda: (
            (int8(5, 40), int8(40, 6)),
            {"accumulate": "every_mac", "overflow": "wrap", "accumulator_bits": 6},
        ),
        lambda: ((int8(0, 4), int8(4, 3)), {}),
    ],
    "tile_saturation": [
        lambda: ((int8(5, 40), int8(40, 6)), {}),
        lambda: ((uint8(5, 40), int8(40, 6)), {"tile_size": 7, "accumulator_bits": 6}),
    ],
    "hadamard_linear": [
        lambda: linear(),
        lambda: linear(grad=True),
        lambda: linear(grad=True, bias=False, strided=True),
        lambda: linear(grad=True, hadamard="binary", stochastic=ALL_SITES),
        lambda: linear(b=0, grad=True),
        lambda: linear(grad=True, seed=None, stochastic=""),
        lambda: linear(seed=None),
        lambda: linear(grad=True, hadamard="divisor", ste="raw", backward_tile_size=0, seed=0),
        lambda: linear(grad=True, requantize=False, ste="clip", bits=8, seed=2**62 - 1),
        lambda: linear(grad=True, dc_row="separate", weight_gradient_accumulator_bits=32),
        lambda: linear(grad=True, dtype=torch.bfloat16),
        lambda: linear(grad=True, dtype=torch.float64, bias=False),
    ],
    "hadamard_conv2d": [
        lambda: conv(),
        lambda: conv(grad=True),
        lambda: conv(grad=True, bias=False, channels_last=True),
        lambda: conv(grad=True, conv_backward="batch", tile_order="chw", geometry=((2, 1), (0, 2))),
        lambda: conv(grad=True, stochastic=ALL_SITES, hadamard="binary"),
        lambda: conv(n=0, grad=True),
        lambda: conv(grad=True, seed=None, stochastic=""),
        lambda: conv(grad=True, geometry=((1, 1), (2, 2), (2, 2))),
        lambda: conv(grad=True, dc_row="separate", weight_gradient_accumulator_bits=6),
        lambda: conv(grad=True, dtype=torch.float16),
    ],
    "hadamard_conv2d_batch_norm": [
        lambda: conv_norm(),
        lambda: conv_norm(grad=True),
        lambda: conv_norm(grad=True, relu=False, residual=True, channels_last=True),
        lambda: conv_norm(grad=True, residual=True, conv_backward="batch", ste="clip"),
        lambda: conv_norm(grad=True, dc_row="separate", weight_gradient_accumulator_bits=6),
        lambda: conv_norm(grad=True, dtype=torch.bfloat16, seed=None, stochastic=""),
    ],
    "luq_quantize": [
        lambda: ((torch.randn(5, 9),), {"seed": 3}),
        lambda: ((leaf(torch.randn(5, 9)),), {"seed": 2**62 - 1, "samples": 3, "bits": 2}),
        lambda: ((leaf(torch.randn(2, 3, 4).transpose(0, 2)),), {"seed": 3, "levels": "original"}),
        lambda: ((leaf(torch.randn(3, 4, dtype=torch.bfloat16)),), {"seed": 0}),
        lambda: ((torch.empty(0, 3),), {"seed": 3}),
    ],
    "luq_codes": [
        lambda: ((torch.randn(5, 9),), {"seed": 3}),
        lambda: ((leaf(torch.randn(5, 9).t()),), {"seed": 3, "bits": 3, "sample": 7}),
        lambda: ((torch.empty(0, 3, dtype=torch.float64),), {"seed": 3}),
    ],
    "sawb_clip": [
        lambda: ((torch.randn(5, 9),), {}),
        lambda: ((leaf(torch.randn(5, 9, dtype=torch.float16)),), {}),
        lambda: ((torch.empty(0),), {}),
    ],
    "minifloat_quantize": [
        lambda: minifloat(5, 9),
        lambda: minifloat(5, 9, grad=True, seed=2**62 - 1),
        lambda: minifloat(4, 3, 2, grad=True, scale=[0, -3, 2, 9], previous=torch.randn(4, 3, 2)),
        lambda: minifloat(3, 7, grad=True, dtype=torch.bfloat16, seed=0),
        lambda: minifloat(0, 7, grad=True),
    ],
    "lsq_quantize": [
        lambda: step(4, 9, bits=[4]),
        lambda: step(4, 9, bits=[4], grad=True, offset=True),
        lambda: step(4, 9, bits=[2], grad=True, per_row=True, signed=True, mask_on="rounded"),
        lambda: step(0, 5, bits=[8], grad=True),
        lambda: step(3, 7, bits=[8], grad=True, offset=True, dtype=torch.bfloat16),
        lambda: ((leaf(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)), torch.tensor(0.1), 8), {}),
    ],
    "double_round": [
        lambda: ((int8(4, 5), 8, 2), {}),
        lambda: ((int8(3, 2, 4, 4).to(memory_format=torch.channels_last), 4, 4), {"rounding": "half_up"}),
        lambda: ((int8(6, 5).t(), 8, 1), {"rounding": "floor"}),
        lambda: ((int8(0, 5), 8, 4), {}),
    ],
    "vecq_step": [
        lambda: ((torch.randn(4, 9), 4), {}),
        lambda: ((torch.randn(4, 9), 12), {"per_channel": True, "sigma": "unbiased"}),
        lambda: ((leaf(torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)), 2), {"group_size": 4}),
        lambda: ((torch.randn(4, 9).half(), 3), {"lambda_mode": "search"}),
        lambda: ((torch.empty(0, 5), 4), {"per_channel": True}),
    ],
    "vecq_quantize": [
        lambda: ((torch.randn(4, 9), 4), {}),
        lambda: ((leaf(torch.randn(4, 9)), 12), {"step": torch.rand(4) / 9, "drive": "norm"}),
        lambda: ((leaf(torch.randn(4, 9)), 2), {"grad_mode": "pwl_c", "grad_ratio": 0.5}),
        lambda: ((leaf(torch.randn(4, 3, 2, 2)), 3), {"step": torch.rand(4, 6), "grad_mode": "pwl_c"}),
        lambda: ((leaf(torch.randn(4, 9)), 3), {"step": torch.rand(4), "alpha": torch.rand(4), "grad_mode": "pwl"}),
        lambda: ((leaf(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)), 8), {}),
        lambda: ((leaf(torch.empty(0, 5)), 4), {"step": torch.empty(0, 5), "grad_mode": "pwl_c"}),
        lambda: ((leaf(torch.randn(3, 7).bfloat16()), 4), {"drive": "none"}),
        lambda: ((leaf(torch.randn(())), 4), {"grad_mode": "pwl_c"}),
    ],
    "vecq_codes": [
        lambda: ((torch.randn(4, 9), 4, torch.tensor(0.3)), {}),
        lambda: ((torch.randn(9, 4).t(), 9, torch.rand(4, 3)), {}),
        lambda: ((leaf(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)), 8, torch.rand(2).double()), {}),
    ],
    "vecq_activation": [
        lambda: ((leaf(torch.randn(4, 9)), 4, torch.ones(3)), {"training": True}),
        lambda: ((leaf(torch.randn(4, 9)), 4, torch.rand(3)), {"training": False, "momentum": 0.5}),
        lambda: ((torch.empty(0, 9), 8, torch.ones(3)), {"training": True, "drive": "norm", "sigma": "unbiased"}),
        lambda: ((leaf(torch.randn(4, 9).bfloat16()), 12, torch.ones(3)), {"training": True}),
    ],
    "vecq_losses": [
        lambda: ((torch.randn(4, 9), torch.randn(4, 9)), {}),
        lambda: ((leaf(torch.randn(4, 9)), torch.randn(9, 4).double().t()), {"per_channel": True}),
        lambda: ((torch.empty(0, 5), torch.empty(0, 5)), {"per_channel": True}),
    ],
    "affine_quantize": [
        lambda: ((torch.randn(2, 3, 4, 5), torch.rand(3), torch.randn(3), torch.tensor(0.1), 4), {}),
        lambda: ((torch.randn(4, 7).half(), torch.rand(7), torch.randn(7), torch.tensor(0.1), 8), {"signed": True}),
        lambda: ((torch.randn(0, 3, 4), leaf(torch.rand(3)), torch.randn(3), leaf(torch.tensor(0.1)), 2), {}),
        lambda: (
            (torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.rand(3), torch.randn(3))
            + (torch.tensor(0.1), 8),
            {},
        ),
    ],
    "int_linear": [
        lambda: (
            (uint8(5, 40), torch.tensor(0.1), int8(6, 40), torch.tensor(0.2)),
            {"residual": torch.randn(5, 6), "relu": True, "out_scale": torch.tensor(0.3), "out_bits": 4},
        ),
        lambda: ((uint8(5, 40), torch.tensor(0.1), int8(6, 40), torch.tensor(0.2)), {}),
        lambda: ((int8(2, 3, 7), torch.tensor(0.1), int8(6, 7), torch.rand(6), torch.randn(6)), {"x_zero2": 3}),
        lambda: ((int8(0, 7), torch.tensor(0.1), int8(6, 7), torch.rand(6)), {"weight_zero2": -1}),
        lambda: ((uint8(7), leaf(torch.tensor(0.1)), int8(6, 7), leaf(torch.rand(6).double())), {}),
    ],
    "int_conv2d": [
        lambda: (
            (uint8(2, 3, 7, 6), torch.tensor(0.1), int8(4, 3, 3, 3), torch.rand(4)),
            {"residual": leaf(torch.randn(2, 4, 5, 4)), "relu": True},
        ),
        lambda: (
            (uint8(2, 3, 7, 6).to(memory_format=torch.channels_last), torch.tensor(0.1), int8(4, 3, 3, 3))
            + (torch.rand(4),),
            {"out_scale": leaf(torch.tensor(0.3))},
        ),
        lambda: ((uint8(2, 3, 7, 6), torch.tensor(0.1), int8(4, 3, 3, 3), torch.rand(4), None, [1, 1], [1, 1]), {}),
        lambda: (
            (int8(2, 3, 7, 6).to(memory_format=torch.channels_last), torch.tensor(0.1), int8(4, 3, 3, 3))
            + (torch.tensor(0.2), torch.randn(4), [2, 1], [0, 2], [2, 1]),
            {"x_zero2": -1, "weight_zero2": 5},
        ),
        lambda: ((uint8(0, 3, 7, 6), torch.tensor(0.1), int8(4, 3, 3, 3), torch.rand(4)), {}),
    ],
    "double_round_quantize": [
        lambda: step(4, 9, bits=[8, 4]),
        lambda: step(4, 9, bits=[8, 2], grad=True, per_row=True),
        lambda: step(2, 3, 3, 3, bits=[8, 8], grad=True, rounding="half_up", chain_pow2=True),
        lambda: step(5, 6, bits=[6, 1], grad=True, per_row=True, scale_grad_sum="all", scale_residual="single"),
        lambda: step(5, 6, bits=[6, 3], grad=True, weight_source="float", rounding="floor", mask_on="rounded"),
        lambda: step(0, 5, bits=[8, 4], grad=True),
        lambda: step(3, 7, bits=[8, 4], grad=True, dtype=torch.float64),
    ],
}


@pytest.mark.parametrize("name, i", [(name, i) for name, samples in SAMPLES.items() for i in range(len(samples))])
def test_opcheck(name, i):
    args, kwargs = SAMPLES[name][i]()
    torch.library.opcheck(getattr(ops, name).default, args, kwargs)


def test_active_isa_returns_a_runnable_name():
    assert ops.active_isa() == quintil.active_isa()
    assert quintil.active_isa() in quintil.runnable_isas()


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_meta_agrees_with_cpu(name):
    """Shapes, dtypes and strides from the Meta function, without any data."""
    for sample in SAMPLES[name]:
        args, kwargs = sample()
        to_meta = lambda v: v.to("meta") if isinstance(v, torch.Tensor) else v  # noqa: E731
        real = getattr(ops, name)(*args, **kwargs)
        meta = getattr(ops, name)(*map(to_meta, args), **{k: to_meta(v) for k, v in kwargs.items()})
        for a, b in zip(real if isinstance(real, tuple) else (real,), meta if isinstance(meta, tuple) else (meta,)):
            assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride()), name
