"""LUQ's layers: products against the reference, the sticky sign, training, copies and files [HDQT 2.7]."""

import copy
import itertools

import pytest
import quintil
import quintil.functional as F
import reference_baselines as reference
import torch
from conftest import assert_same
from quintil import LUQ
from quintil.nn import LUQConv2d, LUQLinear
from torch import nn


def operands(x, w, negative, levels):
    signed = (-8, 15) if levels == "original" else (-7, 7)
    x = reference.luq_operand(x, *(signed if negative else (0, 15)))
    return x, reference.luq_operand(w, *((-8, 8) if levels == "original" else (-7, 7)))


def reference_rows(x, w, bias, negative, scheme):
    (xc, sx), (wc, sw) = operands(x, w, negative, scheme.levels)
    sums = reference.limited(xc[:, None] * wc[None], scheme.accumulator_bits, scheme.tile_size).float()
    y = sums * sw * sx
    return y if bias is None else y + bias


def train_rows(layer, x, g):
    """y, dx, dw and db of a training step whose only seed is 99."""
    x = x.clone().requires_grad_()
    torch.manual_seed(99)
    y = layer(x)
    layer.zero_grad()
    y.backward(g)
    bias = None if layer.bias is None else layer.bias.grad
    return y.detach(), x.grad, layer.weight.grad, bias


@pytest.mark.parametrize("levels", ["corrected", "original"])
@pytest.mark.parametrize("accumulator_bits, tile_size", [(32, 0), (8, 0), (8, 32), (12, 0), (16, 0)])
@pytest.mark.parametrize("signed", [True, False])
def test_linear_forward_equals_reference(levels, accumulator_bits, tile_size, signed):
    scheme = LUQ(accumulator_bits=accumulator_bits, tile_size=tile_size, levels=levels)
    layer = LUQLinear(70, 11, scheme=scheme)
    x = torch.randn(9, 70) if signed else torch.randn(9, 70).relu()
    want = reference_rows(x, layer.weight.detach(), layer.bias.detach(), signed, scheme)
    assert_same(layer(x), want)
    assert_same(layer(x.reshape(3, 3, 70)), want.reshape(3, 3, 11))


def test_no_limit_from_16_bits_on():
    """As published: a 16-bit accumulator of these sums would saturate."""
    layer = LUQLinear(4000, 2, bias=False, scheme=LUQ(accumulator_bits=16))
    with torch.no_grad():
        layer.weight.fill_(1.0)
    x = torch.ones(1, 4000)
    x[0, 0] = 0.5
    (xc, _), (wc, _) = operands(x, layer.weight.detach(), False, "corrected")
    assert float((xc[0] * wc[0]).sum()) > 2**15
    assert_same(layer(x), reference_rows(x, layer.weight.detach(), None, False, layer.scheme))


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_linear_backward_equals_reference(samples):
    layer = LUQLinear(70, 11, scheme=LUQ(samples=samples))
    x, g = torch.randn(9, 70), torch.randn(9, 11) * torch.exp(torch.randn(9, 11))
    y, dx, dw, db = train_rows(layer, x, g)
    torch.manual_seed(99)
    seed = F.draw_seed()
    (xc, sx), (wc, sw) = operands(x, layer.weight.detach(), True, "corrected")
    alpha = g.abs().max() / 64
    draws = [reference_codes(g, seed, j) for j in range(samples)]
    for got, factors, step in ((dx, lambda d: d @ wc, sw), (dw, lambda d: d.t() @ xc, sx)):
        assert_same(got, sum(factors(d) for d in draws).float() * (1 / samples) * alpha * step)
    assert_same(db, sum(d.sum(0) for d in draws).float() * (1 / samples) * alpha)


def reference_codes(g, seed, sample):
    """Draw `sample` alone, float64: what it adds to the sum of the draws before it."""
    alpha = (g.abs().max() / 64).double()
    total = [(reference.luq(g, seed, 4, n) / alpha * n).double().round() if n else 0 for n in (sample, sample + 1)]
    return total[1] - total[0]


def test_original_levels_multiply_in_float32():
    layer = LUQLinear(30, 7, scheme=LUQ(levels="original"))
    x, g = torch.randn(9, 30), torch.randn(9, 7)
    _, dx, dw, db = train_rows(layer, x, g)
    torch.manual_seed(99)
    drawn = F.luq_quantize(g, seed=F.draw_seed(), levels="original")
    (xc, sx), (wc, sw) = operands(x, layer.weight.detach(), True, "original")
    torch.testing.assert_close(dx, drawn @ (wc.float() * sw))
    torch.testing.assert_close(dw, drawn.t() @ (xc.float() * sx))
    torch.testing.assert_close(db, drawn.sum(0))


GEOMETRIES = [((1, 1), (1, 1), (1, 1)), ((2, 1), (0, 2), (1, 1)), ((1, 2), (2, 2), (2, 1))]


@pytest.mark.parametrize("stride, padding, dilation", GEOMETRIES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_conv_is_linear_on_unfolded_images(stride, padding, dilation, channels_last):
    scheme = LUQ(accumulator_bits=9, tile_size=8)
    layer = LUQConv2d(3, 5, 3, stride, padding, dilation, scheme=scheme)
    x = torch.randn(2, 3, 8, 7)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    (xc, sx), (wc, sw) = operands(x, layer.weight.detach(), True, "corrected")
    rows = nn.functional.unfold(xc, 3, dilation, padding, stride)
    sums = reference.limited(rows.transpose(1, 2)[:, :, None] * wc.flatten(1), 9, 8).float()
    y = layer(x)
    want = (sums * sw * sx + layer.bias.detach()).transpose(1, 2).reshape(y.shape)
    assert_same(y, want)
    assert y.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)

    g = torch.randn(y.shape)
    _, dx, dw, db = train_rows(layer, x, g)
    torch.manual_seed(99)
    flat = g.permute(0, 2, 3, 1).reshape(-1, 5)
    codes, alpha = F.luq_codes(flat, seed=F.draw_seed())
    images = codes.double().reshape(2, *y.shape[2:], 5).permute(0, 3, 1, 2)
    exact_x, exact_w = xc.clone().requires_grad_(), wc.clone().requires_grad_()
    exact = nn.functional.conv2d(exact_x, exact_w, None, stride, padding, dilation)
    exact.backward(images)
    assert_same(dx, exact_x.grad.float() * alpha * sw)
    assert_same(dw, exact_w.grad.float() * alpha * sx)
    assert_same(db, codes.long().sum(0).float() * alpha)


def test_single_images_and_odd_sizes():
    layer = LUQConv2d(3, 5, 3, padding="same", scheme=LUQ()).eval()
    x = torch.randn(3, 6, 7)
    assert_same(layer(x), layer(x[None])[0])
    assert layer(torch.empty(0, 3, 6, 7)).shape == (0, 5, 6, 7)
    linear = LUQLinear(4, 3, scheme=LUQ())
    assert_same(linear(torch.empty(0, 4)), torch.empty(0, 3))
    assert_same(linear(torch.zeros(2, 4)), linear.bias.detach().expand(2, 3))
    assert linear(torch.tensor([[1.0, float("nan"), 0, 0]])).isnan().all()
    with pytest.raises(ValueError, match=r"LUQConv2d: expected an input of at least the kernel's size"):
        LUQConv2d(3, 5, 3, scheme=LUQ())(torch.randn(1, 3, 2, 2))


def test_deep_weight_gradients_are_exact():
    """More rows than one int32 product takes."""
    layer = LUQLinear(2, 3, scheme=LUQ())
    x, g = torch.randn(140_000, 2), torch.randn(140_000, 3)
    _, _, dw, _ = train_rows(layer, x, g)
    torch.manual_seed(99)
    codes, alpha = F.luq_codes(g, seed=F.draw_seed())
    (xc, sx), _ = operands(x, layer.weight.detach(), True, "corrected")
    assert_same(dw, (codes.double().t() @ xc).float() * alpha * sx)


def test_the_sign_is_sticky():
    layer = LUQLinear(20, 5, scheme=LUQ())
    positive, mixed = torch.rand(6, 20), torch.randn(6, 20)
    w, bias = layer.weight.detach(), layer.bias.detach()
    assert_same(layer(positive), reference_rows(positive, w, bias, False, layer.scheme))
    layer.eval()
    assert_same(layer(mixed), reference_rows(mixed, w, bias, True, layer.scheme))
    assert not layer.seen_negative  # evaluation remembers nothing
    layer.train()(mixed)
    assert layer.seen_negative
    for mode in (True, False):
        assert_same(layer.train(mode)(positive), reference_rows(positive, w, bias, True, layer.scheme))
    assert layer.state_dict()["seen_negative"]


def test_copies_and_states_keep_the_sign():
    model = quintil.quantize_(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)), LUQ())
    assert [*model.state_dict()] == [
        "0.weight", "0.bias", "0.seen_negative", "2.weight", "2.bias", "2.seen_negative",
    ]  # fmt: skip
    x = torch.randn(16, 8)
    model(x)
    twin = copy.deepcopy(model).eval()
    other = quintil.quantize_(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)), LUQ()).eval()
    other.load_state_dict(model.state_dict())
    for net in (twin, other):
        assert net[0].seen_negative and not net[2].seen_negative
        assert_same(net(x.abs()), model.eval()(x.abs()))
    quintil.dequantize_(model)
    assert type(model[0]) is nn.Linear and "0.seen_negative" not in model.state_dict()


def test_files(tmp_path):
    model = quintil.quantize_(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)), LUQ(accumulator_bits=8))
    x = torch.randn(16, 8)
    model(x)
    quintil.save_quantized(model, tmp_path / "a.safetensors")
    other = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    loaded = quintil.load_quantized(other, tmp_path / "a.safetensors")
    assert loaded[0].scheme == LUQ(accumulator_bits=8)
    assert_same(loaded(x), model.eval()(x))


def test_scripted_evaluation(tmp_path):
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(100, 3))
    quintil.quantize_(model, LUQ(accumulator_bits=9))
    x = torch.randn(4, 2, 5, 5)
    model(x)
    model.eval()
    scripted = torch.jit.script(model)
    scripted.save(str(tmp_path / "a.pt"))
    for net in (scripted, torch.jit.load(str(tmp_path / "a.pt")), torch.jit.freeze(scripted)):
        assert_same(net(x), model(x))
    with pytest.raises(torch.jit.Error, match=r"LUQ: expected evaluation mode in TorchScript"):
        scripted.train()(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype):
    layer = LUQLinear(8, 3, scheme=LUQ()).to(dtype)
    x = torch.randn(5, 8, dtype=dtype, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == layer.weight.grad.dtype == dtype


def test_second_derivatives_are_refused():
    layer = LUQLinear(8, 3, scheme=LUQ())
    x = torch.randn(5, 8, requires_grad=True)
    grad = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def small_net():
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4))


@pytest.mark.parametrize("scheme", [LUQ(), LUQ(samples=2), LUQ(levels="original"), LUQ(accumulator_bits=12)])
def test_training_lowers_the_loss(scheme):
    net = quintil.quantize_(small_net(), scheme)
    x = torch.randn(64, 1, 6, 6)
    labels = (x.mean((1, 2, 3)) > 0).long() + 2 * (x[:, 0, :3].mean((1, 2)) > 0).long()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(net(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0], losses[:: len(losses) - 1]


def test_a_step_is_the_same_with_any_number_of_threads():
    x, g = torch.randn(3, 1, 6, 6), torch.randn(3, 4)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        net = quintil.quantize_(small_net(), LUQ(samples=2))
        torch.manual_seed(8)
        net(x).backward(g)
        results.append([p.grad for p in net.parameters()])
    for other in results[1:]:
        for a, b in zip(other, results[0]):
            assert_same(a, b)


def test_a_draw_per_call_and_no_draw_without_gradients():
    layer, x = LUQLinear(8, 3, scheme=LUQ()), torch.randn(5, 8)
    before = torch.get_rng_state()
    with torch.no_grad():
        layer(x)
    assert torch.equal(torch.get_rng_state(), before)
    grads = []
    for _ in range(2):
        layer.zero_grad()
        layer(x).pow(3).sum().backward()
        grads.append(layer.weight.grad.clone())
    assert not torch.equal(*grads)


@pytest.mark.parametrize(
    "fields, error, text",
    [
        ({"bits": 8}, ValueError, r"LUQ: expected bits in 4\.\.4, got 8"),
        ({"bits": 4.0}, TypeError, r"LUQ: expected bits to be an int, got 4\.0"),
        ({"samples": 0}, ValueError, r"LUQ: expected samples in 1\.\.1024, got 0"),
        ({"accumulator_bits": 33}, ValueError, r"LUQ: expected accumulator_bits in 4\.\.32, got 33"),
        ({"tile_size": -1}, ValueError, r"LUQ: expected tile_size >= 0, got -1"),
        ({"levels": "og"}, ValueError, r"LUQ: expected levels to be one of 'corrected', 'original', got 'og'"),
    ],
)
def test_bad_fields(fields, error, text):
    with pytest.raises(error, match=text):
        LUQ(**fields)


def test_layers_that_luq_cannot_take():
    for layer in (nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, padding_mode="circular"),
                  nn.Conv2d(4, 4, 2, padding="same"), nn.Conv1d(4, 4, 3)):  # fmt: skip
        with pytest.raises(ValueError, match=r"quantize_: expected layers that LUQ can take"):
            quintil.quantize_(nn.Sequential(layer), LUQ())


def test_energy_names_what_it_does_not_know():
    model = quintil.quantize_(nn.Sequential(nn.Linear(8, 3)), LUQ())
    with pytest.raises(TypeError, match=r"energy: expected layers of HDQT or float32, got LUQ\(\) \(in '0'\)"):
        quintil.energy(model, torch.randn(2, 8))
    with pytest.raises(TypeError, match=r"energy: expected scheme to be an HDQT or None, got LUQ"):
        quintil.energy(nn.Sequential(nn.Linear(8, 3)), torch.randn(2, 8), LUQ())


def test_round_trip_of_the_scheme():
    for scheme in map(lambda v: LUQ(4, *v), itertools.product((1, 3), (32, 8), (0, 32), ("corrected", "original"))):
        assert quintil.schemes.Scheme.from_dict(scheme.to_dict()) == scheme
