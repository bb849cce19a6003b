"""Oracles of VecQ (specification, section 6): what the method promises, on distributions and on odd tensors."""

import math

import pytest
import quintil.functional as F
import torch
from torch import Tensor

N = 1_000_000
#          bits: orientation loss, normalised mean squared error of the normal distribution at the best step
GAUSSIAN = {
    1: (2.02115e-1, 0.363380),
    2: (6.13020e-2, 0.118846),
    3: (1.88984e-2, 0.037440),
    4: (5.78819e-3, 0.011543),
    5: (1.74914e-3, 0.003495),
    6: (5.20158e-4, 0.001040),
    7: (1.52178e-4, 0.000304),
    8: (4.38441e-5, 0.000088),
}
TABLE = [1.0, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308]


def quantiles(kind: str) -> Tensor:
    """A million numbers without sampling error."""
    p = (torch.arange(N, dtype=torch.float64) + 0.5) / N
    normal = torch.special.ndtri(p)
    return {
        "gaussian": normal,
        "laplace": torch.where(p < 0.5, (2 * p).log(), -(2 * (1 - p)).log()),
        "uniform": 2 * p - 1,
        "relu": normal.relu(),
    }[kind].float()


@pytest.fixture(scope="module")
def data() -> dict[str, Tensor]:
    return {kind: quantiles(kind) for kind in ("gaussian", "laplace", "uniform", "relu")}


def normalised_error(x: Tensor, bits: int, step: Tensor | None = None, drive: str = "projection") -> float:
    y, _, _ = F.vecq_quantize(x, bits, step=step, drive=drive)
    return float(F.vecq_losses(x, y)[1] / x.double().square().sum())


@pytest.mark.parametrize("bits", range(1, 9))
def test_level_set_t1(bits):
    x = torch.linspace(-4, 4, 40_001)
    v = F.vecq_codes(x, bits, torch.tensor(TABLE[bits - 1])).double() + 0.5
    found = v.unique()
    assert len(found) == 2 ** bits and torch.equal(found, -found.flip(0)) and not (found == 0).any()
    codes = F.vecq_codes(torch.tensor([0.0, -0.0]), bits, torch.tensor(1.0))
    assert codes.tolist() == [0, 0], "both zeros lie at +1/2"


@pytest.mark.parametrize("bits", range(2, 9))
def test_table_of_steps_is_the_optimum_t2(bits, data):
    """Of the closed integrals of the normal density: <v,x> and <v,v> from thresholds at multiples of the step."""

    def orientation(step: float) -> float:
        t = torch.arange(1, 2 ** (bits - 1), dtype=torch.float64) * step
        density = torch.exp(-t * t / 2) / math.sqrt(2 * math.pi)
        tail = torch.special.erfc(t / math.sqrt(2)) / 2
        vx = 2 * (0.5 / math.sqrt(2 * math.pi) + float(density.sum()))
        vv = 2 * (0.125 + float((2 * torch.arange(1, len(t) + 1) * tail).sum()))
        return 1 - vx / math.sqrt(vv)

    low, high = 0.5 * TABLE[bits - 1], 1.5 * TABLE[bits - 1]
    for _ in range(80):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, b) if orientation(a) < orientation(b) else (a, high)
    assert low == pytest.approx(TABLE[bits - 1], abs=1e-4)
    assert orientation(low) == pytest.approx(GAUSSIAN[bits][0], rel=1e-4)
    x = data["gaussian"]
    assert float(F.vecq_step(x, bits)) == pytest.approx(TABLE[bits - 1], rel=1e-5)
    searched = F.vecq_step(x, bits, lambda_mode="search")
    assert float(searched) == pytest.approx(low, rel=0.01 if bits == 8 else 2e-3)


@pytest.mark.parametrize("kind", ["gaussian", "laplace", "uniform", "relu"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_length_is_least_squares_t3_t4(kind, bits, data):
    x = data[kind][::7]
    _, codes, alpha = F.vecq_quantize(x, bits)
    v, w = codes.double() + 0.5, x.double()
    solution = torch.linalg.lstsq(v[:, None], w[:, None]).solution
    assert float(alpha) == pytest.approx(float(solution), rel=1e-6)
    residual = w - float(solution) * v
    assert abs(float(v @ residual)) < 1e-6 * float(v @ w)
    cosine = float(v @ w) / float(v.norm() * w.norm())
    orientation, modulus, total = F.vecq_losses(x, F.vecq_quantize(x, bits)[0])
    assert float(orientation) == pytest.approx(1 - cosine, rel=1e-6)
    assert float(modulus) == pytest.approx(float(w @ w) * (1 - cosine**2), rel=1e-5)
    assert float(total) == float(orientation + modulus)
    assert normalised_error(x, bits, drive="norm") == pytest.approx(2 * (1 - cosine), rel=1e-5)


@pytest.mark.parametrize("bits", GAUSSIAN)
def test_errors_on_the_normal_distribution_t5(bits, data):
    orientation, error = GAUSSIAN[bits]
    x = data["gaussian"]
    y, _, alpha = F.vecq_quantize(x, bits)
    assert normalised_error(x, bits) == pytest.approx(error, rel=0.005 if bits <= 6 else 0.02)
    assert float(F.vecq_losses(x, y)[0]) == pytest.approx(orientation, rel=0.005)
    assert float(alpha) == pytest.approx(math.sqrt(8 / math.pi) if bits == 1 else TABLE[bits - 1], rel=1e-3)


@pytest.mark.parametrize(
    "kind, bits, projection, norm, clipq",
    [
        ("gaussian", 2, 0.1189, 0.1226, None),
        ("laplace", 2, 0.198, 0.209, 0.1996),
        ("uniform", 2, 0.0677, 0.0689, 0.0739),
        ("relu", 2, 0.290, 0.315, 0.3005),
        ("gaussian", 4, 0.01154, 0.01158, None),
        ("laplace", 4, 0.0360, 0.0363, 0.0379),
        ("uniform", 4, 0.00963, 0.00965, 0.0097),
        ("relu", 4, 0.0537, 0.0545, 0.0618),
    ],
)
def test_three_lengths_t6_t7(kind, bits, projection, norm, clipq, data):
    x = data[kind]
    got = {drive: normalised_error(x, bits, drive=drive) for drive in ("projection", "norm", "none")}
    assert got["projection"] == pytest.approx(projection, rel=0.01)
    assert got["norm"] == pytest.approx(norm, rel=0.01)
    if clipq is not None:
        assert got["none"] == pytest.approx(clipq, rel=0.01)
    assert got["projection"] <= min(got["norm"], got["none"]) * (1 + 1e-6)


@pytest.mark.parametrize("bits", range(1, 9))
def test_equivariance_t8(bits):
    x = torch.randn(5000)
    y, codes, _ = F.vecq_quantize(x, bits)
    for c in (0.25, 8.0):
        scaled, scaled_codes, _ = F.vecq_quantize(c * x, bits)
        same = codes == scaled_codes
        assert int((~same).sum()) <= 1  # the 1e-7 beside the step
        torch.testing.assert_close(scaled[same], c * y[same], rtol=1e-4, atol=0.0)
        exact = F.vecq_quantize(c * x, bits, step=c * F.vecq_step(x, bits))[1]
        assert torch.equal(exact, codes)
    assert torch.equal(F.vecq_quantize(-x, bits)[1], -1 - codes)


def test_one_bit_is_the_mean_size_t9(data):
    x = torch.randn(3000)
    y, _, alpha = F.vecq_quantize(x, 1)
    assert y.abs().unique().numel() == 1
    assert float(y.abs()[0]) == pytest.approx(float(x.abs().mean()), rel=1e-6)
    assert torch.equal(y.sign(), x.sign()) and float(alpha) == pytest.approx(2 * float(x.abs().mean()), rel=1e-6)
    assert float(F.vecq_quantize(data["gaussian"], 1)[2]) == pytest.approx(math.sqrt(8 / math.pi), rel=1e-4)


@pytest.mark.parametrize("lambda_mode", ["table", "search"])
@pytest.mark.parametrize("bits", range(1, 17))
def test_degenerate_tensors_t10(bits, lambda_mode):
    def of(x: Tensor) -> Tensor:
        return F.vecq_quantize(x, bits, step=F.vecq_step(x, bits, lambda_mode=lambda_mode))[0]

    assert torch.equal(of(torch.zeros(9)), torch.zeros(9))
    for value in (3.0, -0.7, 1e-3, 1e4):
        for n in (1, 9):
            torch.testing.assert_close(of(torch.full((n,), value)), torch.full((n,), value), rtol=2e-6, atol=0)
    assert of(torch.empty(0, 3)).shape == (0, 3)


def test_gradients_t13():
    x, g = torch.randn(500), torch.randn(500)
    for mode, ratio in (("ste", 0.0), ("pwl", 0.5), ("pwl_c", 0.5)):
        at = x.clone().requires_grad_()
        y, codes, alpha = F.vecq_quantize(at, 2, grad_mode=mode, grad_ratio=ratio)
        w = alpha * (codes + 0.5)
        inside = (x >= w.min()) & (x <= w.max()) if mode == "pwl_c" else torch.ones(500, dtype=torch.bool)
        assert torch.equal(torch.autograd.grad(y, at, g)[0], torch.where(inside, g, 0.0))
        moved = w + ratio * ((x.clamp(w.min(), w.max()) if mode == "pwl_c" else x) - w)
        torch.testing.assert_close(y.detach(), moved)
        assert mode != "pwl_c" or 10 < int((~inside).sum()) < 490


@pytest.mark.parametrize(
    "kind, bits, table, search, factor",
    [
        ("gaussian", 2, 0.1191, 0.1191, 1.00),
        ("laplace", 2, 0.1977, 0.1962, 1.09),
        ("uniform", 2, 0.0676, 0.0625, 0.87),
        ("relu", 2, 0.2905, 0.2864, 1.20),
        ("gaussian", 4, 0.0116, 0.0116, 1.00),
        ("laplace", 4, 0.0358, 0.0254, 1.37),
        ("uniform", 4, 0.0096, 0.0039, 0.65),
        ("relu", 4, 0.0537, 0.0344, 1.44),
        ("laplace", 8, 3.9e-3, 3.2e-4, 1.80),
        ("uniform", 8, 7.9e-5, 1.5e-5, 0.44),
        ("relu", 8, 4.5e-3, 2.9e-4, 1.56),
    ],
)
def test_searched_steps_t15(kind, bits, table, search, factor, data):
    x = data[kind]
    step, best = F.vecq_step(x, bits), F.vecq_step(x, bits, lambda_mode="search")
    assert float(best / step) == pytest.approx(factor, rel=0.02)
    assert normalised_error(x, bits, step) == pytest.approx(table, rel=0.02)
    assert normalised_error(x, bits, best) == pytest.approx(search, rel=0.1 if bits == 8 else 0.02)  # tails


@pytest.mark.parametrize("bits", range(1, 17))
def test_a_search_is_never_worse_t15(bits):
    for shape in ((7,), (40,), (3000,)):
        for draw in (torch.randn, torch.rand, lambda s: torch.randn(s).relu(), lambda s: torch.randn(s).pow(3)):
            x = draw(shape)
            losses = [
                float(F.vecq_losses(x, F.vecq_quantize(x, bits, step=F.vecq_step(x, bits, lambda_mode=mode))[0])[0])
                for mode in ("search", "table")
            ]
            assert losses[0] <= losses[1] + 1e-12


def test_a_search_runs_for_every_group():
    x = torch.cat([torch.rand(1, 400), torch.randn(1, 400), torch.randn(1, 400).pow(3)])
    per_channel = F.vecq_step(x, 4, per_channel=True, lambda_mode="search")
    for row, step in zip(x, per_channel):
        assert float(step) == float(F.vecq_step(row, 4, lambda_mode="search"))
    groups = F.vecq_step(x, 4, group_size=100, lambda_mode="search")
    assert groups.shape == (3, 4) and float(groups[1, 2]) == float(F.vecq_step(x[1, 200:300], 4, lambda_mode="search"))
