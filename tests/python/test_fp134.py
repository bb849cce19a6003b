"""FP134's layers: what is rounded, scales that follow, hysteresis, the float master, copies and files [HDQT 2.8]."""

import copy

import pytest
import quintil
import quintil.functional as F
import reference_baselines as reference
import torch
from conftest import assert_same
from quintil import FP134
from quintil.nn import FP134Conv2d, FP134Linear, round_master_
from quintil.nn.fp134 import MASTER_FORMAT, ScaledFloat
from reference_baselines import FP130, MASTER
from torch import nn

FORMATS = {"fp134": reference.FP134, "fp130": FP130}
SCALES = ("output_scale", "error_scale", "weight_gradient_scale")


def exponent(quantizer):
    return int(quantizer.exponent)


@pytest.mark.parametrize("room", [1, 2])
@pytest.mark.parametrize("significands", FORMATS.values())
def test_scales_follow_the_largest_number(significands, room):
    """H20 against its definition, over sizes that grow, shrink and stay."""
    quantizer = ScaledFloat(significands, room, torch.device("cpu"))
    scale = 0
    for size in (1.0, 1.0, 40.0, 40.0, 40.0, 40.0, 1e-3, 1e-3, 1e-3, *[1e-4] * 20, 0.3, 2.0**-12, *[0.5] * 9):
        x = torch.rand(50) * size
        y = quantizer(x)
        assert_same(y, reference.minifloat(x, significands, scale))
        scale = reference.next_scale(scale, x, y, room)
        assert exponent(quantizer) == scale


def test_scales_settle_with_the_stated_room():
    for room in (1, 2):
        quantizer = ScaledFloat(reference.FP134, room, torch.device("cpu"))
        for _ in range(30):
            quantizer(torch.tensor([6.0, -0.1]))
        assert exponent(quantizer) == 2 + room  # 4 <= 6 < 8
        quantizer(torch.tensor([6.0]))
        assert exponent(quantizer) == 2 + room


@pytest.mark.parametrize("still", [torch.zeros(5), torch.empty(0), torch.tensor([1.0, torch.inf]),
                                   torch.tensor([torch.nan, 1e-9])])  # fmt: skip
def test_tensors_that_move_no_scale(still):
    quantizer = ScaledFloat(reference.FP134, 1, torch.device("cpu"), start_at_data=True)
    quantizer(still)
    assert exponent(quantizer) == 0 and not quantizer.started
    quantizer(torch.tensor([40.0]))
    assert exponent(quantizer) == 6 and quantizer.started  # floor(log2 40) = 5, then room for 1
    quantizer(still)
    assert exponent(quantizer) == 6
    quantizer.eval()(torch.tensor([1e9]))
    assert exponent(quantizer) == 6


def test_scales_stop():
    quantizer = ScaledFloat(reference.FP134, 1, torch.device("cpu"))
    for _ in range(130):
        quantizer(torch.tensor([1e-40]))
    assert exponent(quantizer) == -100
    for _ in range(230):
        quantizer(torch.tensor([3e38]))
    assert exponent(quantizer) == 100


@pytest.mark.parametrize("activations", ["fp134", "fp130"])
@pytest.mark.parametrize("stochastic", [True, False])
def test_linear_rounds_output_error_and_weight_gradient(activations, stochastic):
    format_ = FORMATS[activations]
    layer = FP134Linear(12, 5, scheme=FP134(activations=activations, errors_stochastic=stochastic))
    x, g = torch.randn(7, 12, requires_grad=True), torch.randn(7, 5)
    torch.manual_seed(99)
    y = layer(x)
    y.backward(g)
    torch.manual_seed(99)
    weight_seed = F.draw_seed()
    error_seed = F.draw_seed() if stochastic else None
    plain = nn.functional.linear(x.detach(), layer.weight.detach(), layer.bias.detach())
    assert_same(y, reference.minifloat(plain, format_, 0))
    error = reference.minifloat(g, format_, 0, error_seed)
    assert_same(x.grad, error @ layer.weight.detach())
    assert_same(layer.bias.grad, error.sum(0))
    dw = error.t() @ x.detach()
    start = int(torch.frexp(dw.abs().max())[1]) - 1
    assert_same(layer.weight.grad, reference.minifloat(dw, format_, start, weight_seed))
    assert exponent(layer.weight_gradient_scale) == reference.next_scale(start, dw, layer.weight.grad, 2)
    assert exponent(layer.error_scale) == reference.next_scale(0, g, error, 1)


@pytest.mark.parametrize("weights", ["fp134", "fp130"])
def test_full_also_rounds_input_and_weight(weights):
    layer = FP134Conv2d(3, 4, 3, padding=1, scheme=FP134(weights, full=True)).eval()
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        layer.weight.mul_(torch.tensor([1.0, 100.0, 1e-3, 0.0]).reshape(4, 1, 1, 1))
    rows = []
    for row in layer.weight.detach():
        most = float(row.abs().max())
        scale = int(torch.frexp(torch.tensor(most))[1]) - 1
        rows.append(reference.minifloat(row, FORMATS[weights], scale))
    rounded = torch.stack(rows)
    plain = nn.functional.conv2d(reference.minifloat(x, reference.FP134, 0), rounded, layer.bias.detach(), padding=1)
    assert_same(layer(x), reference.minifloat(plain.detach(), reference.FP134, 0))


def test_weights_without_full_stay():
    x = torch.randn(4, 12)
    layers = [FP134Linear(12, 5, scheme=FP134(weights)) for weights in ("fp134", "fp130")]
    layers[1].load_state_dict(layers[0].state_dict())
    assert_same(layers[0](x), layers[1](x))


def test_hysteresis():
    """A weight that wavers by less than a step of its format keeps its value; without hysteresis it would not."""
    layer = FP134Linear(2, 1, bias=False, scheme=FP134("fp130", full=True, hysteresis=True))
    values = []
    with torch.no_grad():
        for weight in (1.4, 1.6, 1.4, 1.9, 1.1, 2.1, 1.9, 0.9):
            layer.weight.copy_(torch.tensor([[weight, 8.0]]))
            values.append(float(layer.rounded_weight()[0, 0]))
            assert float(layer.eval().rounded_weight()[0, 0]) == values[-1]
            layer.train()
    assert values == [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 1.0]
    plain = FP134Linear(2, 1, bias=False, scheme=FP134("fp130", full=True))
    with torch.no_grad():
        plain.weight.copy_(torch.tensor([[1.6, 8.0]]))
    assert plain.rounded_weight().tolist() == [[2.0, 8.0]]
    twin = copy.deepcopy(layer)
    assert_same(twin.held_weight, layer.held_weight)
    assert "held_weight" in layer.state_dict() and "held_weight" not in plain.state_dict()


@pytest.mark.parametrize("full", [False, True])
def test_copies_states_and_files(full, tmp_path):
    def net():
        return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))

    model = quintil.quantize_(net(), FP134(full=full, hysteresis=full))
    x = torch.randn(16, 8)
    for _ in range(9):
        (1e-3 * model(x).square().sum()).backward()
    keys = {f"{i}.{name}.{part}" for i in (0, 2) for name in SCALES for part in ("exponent", "started")}
    assert keys <= set(model.state_dict())
    assert exponent(model[0].error_scale) != 0
    other = quintil.quantize_(net(), FP134(full=full, hysteresis=full)).eval()
    other.load_state_dict(model.state_dict())
    quintil.save_quantized(model, tmp_path / "a.safetensors")
    loaded = quintil.load_quantized(net(), tmp_path / "a.safetensors")
    teacher = copy.deepcopy(model).eval().requires_grad_(False)
    scales = copy.deepcopy({k: v for k, v in teacher.state_dict().items()})
    want = model.eval()(x)
    for copied in (other, loaded, teacher):
        assert_same(copied(x * 1), want)
    for key, value in teacher.state_dict().items():
        assert_same(value, scales[key], key)
    before = {*quintil.dequantize_(model).state_dict()}
    assert before == {"0.weight", "0.bias", "2.weight", "2.bias"} and type(model[0]) is nn.Linear


@pytest.mark.parametrize("full", [False, True])
def test_scripted_evaluation(full, tmp_path):
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(100, 3))
    quintil.quantize_(model, FP134(full=full))
    x = torch.randn(4, 2, 5, 5)
    model(x)
    model.eval()
    scripted = torch.jit.script(model)
    scripted.save(str(tmp_path / "a.pt"))
    for net in (scripted, torch.jit.load(str(tmp_path / "a.pt"))):
        assert_same(net(x), model(x))
    with pytest.raises(torch.jit.Error, match=r"FP134: expected evaluation mode in TorchScript"):
        scripted.train()(x)


@pytest.mark.parametrize(
    "scheme",
    [FP134(), FP134("fp130", full=True), FP134(full=True, hysteresis=True), FP134(errors_stochastic=False)],
)
def test_training_lowers_the_loss(scheme):
    net = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4))
    quintil.quantize_(net, scheme)
    x = torch.randn(64, 1, 6, 6)
    labels = (x.mean((1, 2, 3)) > 0).long() + 2 * (x[:, 0, :3].mean((1, 2)) > 0).long()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    round_master_(optimizer)
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(net(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0], losses[:: len(losses) - 1]


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda p: torch.optim.Adam(p)])
def test_master_weights_are_short_floats(make):
    layer = nn.Linear(30, 20)
    optimizer = make(layer.parameters())
    handle = round_master_(optimizer)

    def on_grid(t):
        return torch.equal(F.minifloat_quantize(t, MASTER_FORMAT, torch.tensor(32)), t)

    assert MASTER_FORMAT == MASTER
    assert all(on_grid(p) for p in layer.parameters())
    for _ in range(3):
        layer(torch.randn(5, 30)).square().sum().backward()
        optimizer.step()
    state = [t for values in optimizer.state.values() for t in values.values() if t.dim() > 0]
    assert state and all(on_grid(t.detach()) for t in (*layer.parameters(), *state))
    handle.remove()
    optimizer.step()
    assert not on_grid(layer.weight.detach())


def test_rounding_of_masters_is_unbiased():
    weight = nn.Parameter(torch.full((200, 500), 1 + 2.0**-11))  # a quarter of the way to 1 + 2^-9
    round_master_(torch.optim.SGD([weight], lr=0.1))
    ups = int((weight > 1).sum())
    assert abs(ups - 25_000) <= 5 * (100_000 * 0.25 * 0.75) ** 0.5 + 1
    with pytest.raises(TypeError, match=r"round_master_: expected optimizer to be a torch.optim.Optimizer, got list"):
        round_master_([weight])


def test_no_draw_and_no_movement_in_evaluation():
    layer, x = FP134Linear(8, 3, scheme=FP134()), torch.randn(5, 8)
    for _ in range(4):
        layer(x).sum().backward()
    state = copy.deepcopy(layer.eval().state_dict())
    before = torch.get_rng_state()
    with torch.no_grad():
        layer(100 * x)
    assert torch.equal(torch.get_rng_state(), before)
    layer(100 * x).sum().backward()
    for key, value in layer.state_dict().items():
        assert_same(value, state[key], key)


@pytest.mark.parametrize(
    "fields, error, text",
    [
        ({"weights": "fp8"}, ValueError, r"FP134: expected weights to be one of 'fp134', 'fp130', got 'fp8'"),
        ({"activations": 8}, TypeError, r"FP134: expected activations to be a str, got 8"),
        ({"full": 1}, TypeError, r"FP134: expected full to be a bool, got 1"),
        ({"hysteresis": True}, ValueError, r"FP134: expected hysteresis False without full, got True"),
    ],
)
def test_bad_fields(fields, error, text):
    with pytest.raises(error, match=text):
        FP134(**fields)


def test_groups_and_padding_modes_are_taken_and_others_refused():
    layer = nn.Conv2d(4, 4, 3, groups=2, padding=1, padding_mode="circular")
    quintil.quantize_(nn.Sequential(layer), FP134())
    assert layer(torch.randn(2, 4, 5, 5)).shape == (2, 4, 5, 5)
    with pytest.raises(ValueError, match=r"quantize_: expected layers that FP134 can take, got '0' \(Conv1d"):
        quintil.quantize_(nn.Sequential(nn.Conv1d(4, 4, 3)), FP134())


def test_energy_names_what_it_does_not_know():
    model = quintil.quantize_(nn.Sequential(nn.Linear(8, 3)), FP134())
    with pytest.raises(TypeError, match=r"energy: expected layers of HDQT or float32, got FP134\(\) \(in '0'\)"):
        quintil.energy(model, torch.randn(2, 8))
