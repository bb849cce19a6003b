"""uL2Q's levels as an option of VecQ: around the mean, their length from a table [VECQ V14]."""

from __future__ import annotations

import copy
import math

import pytest
import quintil
import torch
from conftest import assert_same, same_bits
from quintil import VecQ
from quintil.nn import VecQConv2d, VecQEmbedding, VecQLinear, VecQLSTM
from quintil.nn.ul2q import quantize_around_mean
from small_nets import Net, images
from torch import Tensor, nn

#: As published, apart from the package's table.
LAMBDA = [
    1.5950161625,
    0.9952900854,
    0.5872211504,
    0.3358904980,
    0.1894424409,
    0.1057087704,
    0.0570827360,
    0.0304821810,
]
SCHEME = VecQ(3, levels="ul2q")


def around_mean(weight: Tensor, bits: int, sizes: tuple[int, ...] = (), unbiased: bool = False, **options):
    factor = LAMBDA[bits - 1] if bits <= 8 else 6 / (2**bits - 1)
    given = {"tie": "even", "grad_mode": "ste", "grad_ratio": 0.0, **options}
    return quantize_around_mean(weight, bits, factor, list(sizes), unbiased, *given.values())


def reference(numbers: list[float], bits: int, unbiased: bool = False) -> tuple[list[float], float, float]:
    """Half-integers, length and mean of one run in double [VECQ V14]."""
    n = len(numbers)
    mean = math.fsum(numbers) / n
    variance = math.fsum((a - mean) ** 2 for a in numbers) / max(1, n - unbiased)
    length = (LAMBDA[bits - 1] if bits <= 8 else 6 / (2**bits - 1)) * math.sqrt(variance)
    half = 2 ** (bits - 1)
    levels = [min(max(round((a - mean) / (length + 1e-7) - 0.5), -half), half - 1) + 0.5 for a in numbers]
    return levels, length, mean


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("sizes", [(), (6,), (6, 4)])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10])
def test_levels_lengths_and_means(bits, sizes, unbiased):
    weight = torch.randn(6, 4, 9) * 0.3 + torch.randn(6, 1, 1)
    values, codes, length, mean = around_mean(weight, bits, sizes, unbiased)
    assert codes.dtype == (torch.int8 if bits <= 8 else torch.int16) and length.shape == mean.shape == sizes
    runs = weight.reshape(max(1, math.prod(sizes)), -1)
    for run, got, code, a, b in zip(
        runs, values.reshape(runs.shape), codes.reshape(runs.shape), length.reshape(-1), mean.reshape(-1)
    ):
        levels, alpha, beta = reference(run.double().tolist(), bits, unbiased)
        assert float(a) == pytest.approx(alpha, rel=1e-6) and float(b) == pytest.approx(beta, rel=1e-6, abs=1e-7)
        away = (code.double() + 0.5 - torch.tensor(levels)).abs()
        assert bool((away <= 1).all()) and (away > 0).float().mean() < 0.01, "float32 may fall on the other side"
        torch.testing.assert_close(got.double(), alpha * (code.double() + 0.5) + beta, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tie", ["even", "away"])
def test_ties(tie):
    """[F] rounds (w - mean) / length + 1/2 half away from 0, then takes 1/2 off; [V14] rounds half to even."""
    distances = torch.arange(-4.0, 5.0)  # whole lengths from the mean: all are ties
    length = LAMBDA[3] * float(distances.double().std(correction=0))
    factor = (1.0 - 1e-7) / float(distances.double().std(correction=0))  # so that the step is 1
    codes = quantize_around_mean(distances, 4, factor, [], False, tie, "ste", 0.0)[1]
    want = {
        "even": [-4, -4, -2, -2, 0, 0, 2, 2, 4],
        "away": [-5, -4, -3, -2, 0, 1, 2, 3, 4],
    }
    assert length != 1.0 and codes.tolist() == want[tie]
    weight = torch.randn(1000)
    assert_same(around_mean(weight, 4, tie="away")[0], around_mean(weight, 4)[0])  # no ties among random numbers


def test_equal_and_missing_numbers():
    for weight in (torch.zeros(5), torch.full((3, 4), -0.7), torch.tensor([0.4]), torch.tensor(2.5)):
        for unbiased in (False, True):
            assert_same(around_mean(weight, 4, unbiased=unbiased)[0], weight)
    assert around_mean(torch.zeros(0, 3), 4)[0].shape == (0, 3)
    assert around_mean(torch.zeros(0, 3), 4, (0,))[0].shape == (0, 3)
    assert around_mean(torch.tensor([1.0, torch.nan]), 4)[0].isnan().all()


def test_gradients():
    weight = torch.randn(50, requires_grad=True)
    g = torch.randn(50)
    for options in (dict(), dict(tie="away"), dict(grad_mode="pwl", grad_ratio=0.25)):
        values = around_mean(weight, 2, **options)[0]
        assert_same(torch.autograd.grad(values, weight, g)[0], g)
    moved, plain = values, around_mean(weight, 2)[0]
    torch.testing.assert_close(moved, plain + 0.25 * (weight - plain), rtol=1e-5, atol=1e-6)
    clipped = torch.autograd.grad(around_mean(weight, 2, grad_mode="pwl_c")[0], weight, g)[0]
    inside = (weight >= plain.min()) & (weight <= plain.max())
    assert_same(clipped, torch.where(inside, g, torch.zeros_like(g)))


def test_layers_compute_on_these_levels(tmp_path):
    x = torch.randn(7, 20)
    for options, sizes in ((dict(), ()), (dict(per_channel=True), (5,)), (dict(group_size=4), (5, 5))):
        layer = VecQLinear(20, 5, scheme=VecQ(3, levels="ul2q", **options))
        want = nn.functional.linear(x, around_mean(layer.weight, 3, sizes)[0], around_mean(layer.bias, 3)[0])
        assert_same(layer(x), want)
        half_integers, length = layer.levels()
        assert bool((half_integers % 1 == 0.5).all()) and length.shape == sizes
        layer(x).sum().backward()
        torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(5, 20))
    table = VecQEmbedding(30, 8, padding_idx=2, scheme=SCHEME).eval()
    with torch.no_grad():
        want = around_mean(table.weight, 3)[0]
        want[2] = table.weight[2]
        assert_same(table(torch.arange(30)), want)
    assert torch.isfinite(VecQLSTM(4, 3, scheme=SCHEME)(torch.randn(5, 2, 4))[0]).all()
    assert VecQConv2d(2, 2, 1, scheme=VecQ(3, 8, levels="ul2q")).integers is False


def test_models_script_and_are_stored(tmp_path):
    model = quintil.quantize_(Net(), VecQ(3, 8, levels="ul2q", tie="away"))
    x = images()
    model(x)
    model.eval()
    with torch.no_grad():
        want = model(x)
        assert same_bits(copy.deepcopy(model)(x), want)
        quintil.save_quantized(model, tmp_path / "net")
        assert same_bits(quintil.load_quantized(Net(), tmp_path / "net")(x), want)
    scripted = torch.jit.script(quintil.quantize_(nn.Sequential(nn.Linear(6, 4)), SCHEME))
    plain = copy.deepcopy(scripted)
    assert_same(scripted(torch.ones(2, 6)), plain(torch.ones(2, 6)))


@pytest.mark.parametrize(
    "options, text",
    [
        (dict(levels="max"), "levels to be one of 'vecq', 'ul2q', got 'max'"),
        (dict(levels="ul2q", lambda_mode="search"), "lambda_mode 'table' with levels 'ul2q', got 'search'"),
        (dict(tie="up"), "tie to be one of 'even', 'away', got 'up'"),
        (dict(tie="away"), "tie 'even' without levels 'ul2q' and grad_mode 'ste', got 'away'"),
        (dict(levels="ul2q", tie="away", grad_mode="pwl"), "tie 'even' without levels 'ul2q' and grad_mode 'ste', got 'away'"),
    ],
    ids=str,
)  # fmt: skip
def test_refused(options, text):
    with pytest.raises(ValueError, match=f"^VecQ: expected {text}$"):
        VecQ(4, **options)
