"""`lsq_quantize` against the reference, torch's own learnable fake quantiser (T6, T7) and written examples."""

import math

import pytest
import quintil.functional as F
import torch
from conftest import assert_same
from reference_double_rounding import Step, code_range

SHAPES = [(1,), (9,), (3, 5), (4, 33), (2, 3, 5, 7), (2, 4111)]


def leaf(t):
    return t.detach().clone().requires_grad_()


def gradients(x, scale, bits, grad, **options):
    inputs = [leaf(x), leaf(scale)] + ([leaf(options.pop("offset"))] if options.get("offset") is not None else [])
    named = {"offset": inputs[2]} if len(inputs) == 3 else {}
    y = F.lsq_quantize(*inputs[:2], bits, **named, **options)
    return [y.detach(), *torch.autograd.grad(y, inputs, grad)]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", range(1, 9))
def test_equals_reference(bits, signed):
    for shape in SHAPES:
        x, g = torch.randn(shape) * 2, torch.randn(shape)
        high = code_range(bits, signed)[1]
        for per_row in (False, True):
            scale = (torch.rand(shape[0]) + 0.5) / high if per_row else torch.tensor(1.5 / high)
            for offset in (None, torch.tensor(-0.4)):
                for mask_on in ("scaled", "rounded"):
                    y, *got = gradients(x, scale, bits, g, signed=signed, offset=offset, mask_on=mask_on)
                    step = Step(bits, signed=signed, mask_on=mask_on)
                    assert_same(y, step.forward(x, scale, offset), "y")
                    for name, a, b in zip(("dx", "dscale", "doffset"), got, step.gradients(x, g, scale, offset)):
                        assert_same(a, b, f"{name} of {shape}, per_row={per_row}, offset={offset}, {mask_on}")


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_torch_learnable_fake_quantiser_t6(bits, signed):
    low, high = code_range(bits, signed)
    scale = torch.tensor(0.25)  # a power of two: torch multiplies by 1 / scale
    x = torch.cat([torch.randn(5000) * high / 8, torch.arange(4 * low - 8, 4 * high + 8) / 16])
    g = torch.randn(x.shape)
    factor = 1 / math.sqrt(x.numel() * high)
    ours = gradients(x, scale, bits, g, signed=signed, mask_on="rounded")
    theirs = [leaf(x), leaf(scale.reshape(1)), leaf(torch.zeros(1))]
    y = torch._fake_quantize_learnable_per_tensor_affine(*theirs, low, high, factor)
    dx, dscale, _ = torch.autograd.grad(y, theirs, g)
    assert_same(ours[0], y)
    assert_same(ours[1], dx)
    torch.testing.assert_close(ours[2], dscale[0], rtol=1e-4, atol=1e-5)

    scaled = gradients(x, scale, bits, g, signed=signed)
    u = x / scale
    between = (u > high) & (u < high + 0.5) | (u < low) & (u > low - 0.5)
    assert between.sum() > 1
    assert_same(scaled[1][between], torch.zeros(int(between.sum())))
    assert_same(dx[between], g[between])


def test_torch_learnable_quantiser_per_channel_t7():
    x, g, scale = torch.randn(6, 50), torch.randn(6, 50), 2.0 ** torch.arange(-6.0, 0.0)
    theirs = [leaf(x), leaf(scale), leaf(torch.zeros(6))]
    y = torch._fake_quantize_learnable_per_channel_affine(*theirs, 0, -8, 7, 1 / math.sqrt(50 * 7))
    dx, dscale, _ = torch.autograd.grad(y, theirs, g)
    ours = gradients(x, scale, 4, g, signed=True, mask_on="rounded")
    assert_same(ours[0], y)
    assert_same(ours[1], dx)
    torch.testing.assert_close(ours[2], dscale, rtol=1e-4, atol=1e-5)


def test_written_example():
    """Grid 0, 0.5, 1, 1.5 from offset 1; one value below, one above, two ties."""
    x = torch.tensor([0.0, 1.0, 1.2, 1.25, 1.75, 2.4, 3.0])
    y, dx, ds, do = gradients(x, torch.tensor(0.5), 2, torch.ones(7), offset=torch.tensor(1.0))
    assert y.tolist() == [1.0, 1.0, 1.0, 1.0, 2.0, 2.5, 2.5]
    assert dx.tolist() == [0, 1, 1, 1, 1, 1, 0]
    c = 1 / math.sqrt(7 * 3)
    assert float(ds) == pytest.approx(c * (0 + 0 - 0.4 - 0.5 + 0.5 + 0.2 + 3), rel=1e-5)
    assert float(do) == pytest.approx(2 * c, rel=1e-6)


def test_a_step_descends_to_the_best_one():
    """The step of least squares is a fixed point of gradient descent on |y - x|^2."""
    x = torch.randn(20000)
    scale = leaf(torch.tensor(0.2))
    optimiser = torch.optim.Adam([scale], lr=0.01)
    for _ in range(150):
        optimiser.zero_grad()
        (F.lsq_quantize(x, scale, 3, signed=True) - x).square().mean().mul(1000).backward()
        optimiser.step()
    error = lambda s: float((F.lsq_quantize(x, torch.tensor(s), 3, signed=True) - x).square().mean())  # noqa: E731
    best = min((error(s / 1000), s / 1000) for s in range(300, 900, 10))[1]
    assert scale.item() == pytest.approx(best, rel=0.06)


def test_odd_numbers():
    scale = torch.tensor(0.5)
    x = torch.tensor([math.nan, math.inf, -math.inf, 0.0, 1e38])
    y, dx, ds, _ = gradients(x, scale, 2, torch.ones(5), offset=torch.tensor(0.0))
    assert_same(y, torch.tensor([math.nan, 1.5, 0.0, 0.0, 1.5]))
    assert dx.tolist() == [1, 0, 0, 1, 0] and math.isnan(ds)
    assert torch.isnan(F.lsq_quantize(torch.ones(3), torch.tensor(math.nan), 4)).all()
    assert F.lsq_quantize(torch.ones(3), torch.tensor(0.0), 4).tolist() == [0, 0, 0]
    _, dx, ds = gradients(torch.empty(0, 3), torch.empty(0), 4, torch.empty(0, 3))
    assert dx.shape == (0, 3) and ds.shape == (0,)
    _, dx, ds = gradients(torch.empty(2, 0), torch.ones(2), 4, torch.empty(2, 0))
    assert dx.shape == (2, 0) and ds.tolist() == [0, 0]


def test_checked_mode_names_the_first_bad_index():
    from quintil import set_checked

    set_checked(True)
    try:
        with pytest.raises(ValueError, match=r"^lsq_quantize: expected x to be finite, got nan"):
            F.lsq_quantize(torch.tensor([[1.0], [math.nan]]), torch.tensor(1.0), 4)
        with pytest.raises(ValueError, match="^lsq_quantize: expected scale to be finite"):
            F.lsq_quantize(torch.ones(2), torch.tensor(math.inf), 4)
    finally:
        set_checked(False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_float_types_are_computed_in_float32(dtype):
    x, scale, g = torch.randn(4, 9).to(dtype), torch.tensor(0.25).to(dtype), torch.randn(4, 9).to(dtype)
    got = gradients(x, scale, 4, g, signed=True)
    want = gradients(x.float(), scale.float(), 4, g.float(), signed=True)
    for a, b in zip(got, want):
        assert a.dtype == dtype
        assert_same(a, b.to(dtype))


def test_memory_formats_are_kept():
    x = torch.randn(2, 3, 5, 4).to(memory_format=torch.channels_last)
    plain = leaf(x.contiguous())
    scale = torch.tensor([0.1, 0.2])
    x = leaf(x)
    y = F.lsq_quantize(x, scale, 4)
    g = torch.randn(y.shape)
    assert y.is_contiguous(memory_format=torch.channels_last)
    (dx,) = torch.autograd.grad(y, x, g)
    want = F.lsq_quantize(plain, scale, 4)
    assert_same(y, want)
    assert_same(dx, torch.autograd.grad(want, plain, g)[0])
    strided = torch.randn(6, 10).t()[::2]
    assert_same(
        F.lsq_quantize(strided, torch.tensor(0.1), 4), F.lsq_quantize(strided.contiguous(), torch.tensor(0.1), 4)
    )


def test_a_second_derivative_is_refused():
    x = leaf(torch.randn(4))
    y = F.lsq_quantize(x, torch.tensor(0.1), 4)
    with pytest.raises(NotImplementedError, match="^lsq_quantize: expected a first derivative, got create_graph=True"):
        torch.autograd.grad(y, x, leaf(torch.ones(4)), create_graph=True)
