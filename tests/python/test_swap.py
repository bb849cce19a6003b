"""`quantize_` and `dequantize_`: what changes in a model, and that nothing else does."""

from __future__ import annotations

import copy
import re

import pytest
import quintil
import torch
from conftest import same_bits
from quintil import HDQT
from quintil.nn import HadamardLinear
from small_nets import SWAPPABLE, Net, OwnLinear, descent, images, swapped
from torch import nn


class ReplacesForward(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


def test_swaps_in_place_and_changes_nothing_else():
    model = Net().eval()
    before = {name: (id(m), type(m), m.training) for name, m in model.named_modules()}
    parameters = {name: id(p) for name, p in model.named_parameters()}
    keys, values = list(model.state_dict()), copy.deepcopy(model.state_dict())
    assert quintil.quantize_(model, HDQT()) is model
    assert swapped(model) == SWAPPABLE
    assert {name: (id(m), m.training) for name, m in model.named_modules()} == {
        name: (identity, training) for name, (identity, _, training) in before.items()
    }
    assert {name: id(p) for name, p in model.named_parameters()} == parameters
    assert list(model.state_dict()) == keys
    assert all(same_bits(model.state_dict()[key], values[key]) for key in keys)
    for name, (_, kind, _) in before.items():
        assert isinstance(model.get_submodule(name), kind), name
    assert isinstance(model.block[0], nn.Conv2d) and isinstance(model.head, nn.Linear)
    assert {m.scheme for m in model.modules() if hasattr(m, "scheme")} == {HDQT()}


def test_layers_compute_what_the_ops_compute():
    linear, conv = nn.Linear(20, 7), nn.Conv2d(3, 6, 3, stride=2, padding=(1, 2), dilation=(1, 2))
    scheme = HDQT(bits=5, accumulator_bits=9, tile_size=16, tile_order="chw")
    x, image = torch.randn(9, 20), images()
    for layer in (linear, conv):
        assert quintil.quantize_(layer, scheme) is layer and layer.scheme == scheme
    want = quintil.functional.hadamard_linear(x, linear.weight, linear.bias, **scheme.linear_options(), seed=3)
    assert same_bits(linear(x), want)
    geometry = {"stride": (2, 2), "padding": (1, 2), "dilation": (1, 2)}
    want = quintil.functional.hadamard_conv2d(
        image, conv.weight, conv.bias, **geometry, **scheme.conv2d_options(), seed=3
    )
    assert same_bits(conv(image), want)
    assert same_bits(conv(image[0]), conv(image[:1])[0])


def test_dequantize_restores_the_float_model_to_the_bit():
    model, x = Net(), images()
    kinds = {name: type(m) for name, m in model.named_modules()}
    attributes = {name: set(vars(m)) for name, m in model.named_modules()}
    want = model.eval()(x)
    quintil.quantize_(model, HDQT())
    assert not torch.equal(model(x), want)
    assert quintil.dequantize_(model) is model
    assert same_bits(model(x), want)
    assert {name: type(m) for name, m in model.named_modules()} == kinds
    assert {name: set(vars(m)) for name, m in model.named_modules()} == attributes
    assert quintil.dequantize_(model) is model  # nothing left to do


def test_an_optimiser_made_before_keeps_working():
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    quintil.quantize_(model, HDQT())
    y = torch.arange(40) % 5
    x = torch.randn(5, 3, 8, 8)[y] + 0.1 * images(40)
    before = [p.detach().clone() for p in model.parameters()]
    losses = descent(model, optimizer, x, y, 30)
    assert losses[-1] < 0.5 * losses[0]
    assert not any(torch.equal(p, old) for p, old in zip(model.parameters(), before))


def test_hooks_stay():
    model, calls = Net(), []
    model.head.register_forward_hook(lambda module, inputs, output: calls.append(("forward", type(module))))
    model.body["a"].register_forward_pre_hook(lambda module, inputs: calls.append(("before", type(module))))
    model.head.weight.register_hook(lambda gradient: calls.append(("gradient", None)))
    quintil.quantize_(model, HDQT())
    model(images()).sum().backward()
    assert calls == [("before", HadamardLinear), ("forward", HadamardLinear), ("gradient", None)]
    calls.clear()
    quintil.dequantize_(model)
    model(images())
    assert calls == [("before", nn.Linear), ("forward", nn.Linear)]


def test_user_subclass_keeps_its_own():
    model = quintil.quantize_(Net(), HDQT())
    layer = model.body["b"]
    assert isinstance(layer, OwnLinear) and isinstance(layer, HadamardLinear)
    assert layer.note == "mine" and layer.shout() == "MINE"
    assert "scheme=HDQT()" in repr(layer) and "in_features=16" in repr(layer)
    assert type(quintil.dequantize_(layer)) is OwnLinear


@pytest.mark.parametrize(
    "skip, left",
    [
        ("head", {"head"}),
        (["head", "stem.0"], {"head", "stem.0"}),
        ("body", {"body.a", "body.b"}),
        ("body.*", {"body.a", "body.b"}),
        ("*.0", {"stem.0", "block.0"}),
        ("st*", {"stem.0"}),
        (["[hb]*"], {"block.0", "body.a", "body.b", "head"}),
        (lambda name, module: isinstance(module, nn.Conv2d), {"stem.0", "block.0"}),
        (lambda name, module: name.endswith(".b"), {"body.b"}),
        ((), set()),
        ("*", SWAPPABLE),
    ],
)
def test_skip(skip, left):
    model = quintil.quantize_(Net(), HDQT(), skip=skip)
    assert swapped(model) == SWAPPABLE - left


def untouched(model: nn.Module, error: type[Exception], message: str, *arguments, **options) -> None:
    """The call raises exactly this, and every module is what it was."""
    before = {name: (type(m), dict(vars(m))) for name, m in model.named_modules()}
    with pytest.raises(error, match=re.escape(message)) as caught:
        quintil.quantize_(model, *arguments, **options)
    assert str(caught.value).startswith("quantize_: expected ")
    assert {name: (type(m), dict(vars(m))) for name, m in model.named_modules()} == before


def test_patterns_without_a_match_are_all_named():
    untouched(Net(), ValueError, "got 'tail', 'body.c*'", HDQT(), skip=["tail", "head", "body.c*"])


class Hostile(nn.Module):
    """One layer that can be swapped among ten that cannot."""

    def __init__(self):
        super().__init__()
        self.good = nn.Linear(4, 4)
        self.grouped = nn.Conv2d(4, 4, 3, groups=2)
        self.reflect = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.uneven = nn.Conv2d(4, 4, 4, padding="same")
        self.one_d = nn.Conv1d(4, 4, 3)
        self.transposed = nn.ConvTranspose2d(4, 4, 3)
        self.lazy = nn.LazyLinear(4)
        self.own = ReplacesForward(4, 4)
        self.attention = nn.MultiheadAttention(4, 1)
        self.integer = nn.Linear(4, 4)
        self.integer.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)
        self.named = nn.Linear(4, 4)
        self.named.scheme = "colour"


BAD = {
    "grouped": "groups=2",
    "reflect": "padding_mode='reflect'",
    "uneven": "padding='same' with kernel_size=(4, 4), which pads one side more than the other",
    "one_d": "Conv1d has no version in HDQT",
    "transposed": "ConvTranspose2d has no version in HDQT",
    "lazy": "its lazy parameters are not initialised yet",
    "own": "it has its own forward",
    "attention.out_proj": "MultiheadAttention may read its weight without calling it",
    "integer": "its weight is torch.int8, expected a floating-point dtype",
    "named": "it has an attribute 'scheme' of its own",
}


def test_layers_that_cannot_be_taken_are_all_named():
    listed = ", ".join(f"{name!r} ({reason})" for name, reason in BAD.items())
    text = f"expected layers that HDQT can take, got {listed} (leave them out with skip)"
    untouched(Hostile(), ValueError, text, HDQT())
    untouched(Hostile(), ValueError, f"got 'bad'; {text}", HDQT(), skip="bad")
    model = quintil.quantize_(Hostile(), HDQT(), skip=[*(set(BAD) - {"lazy"}), "l?zy"])
    assert swapped(model) == {"good"}


def test_other_refusals():
    untouched(nn.Conv2d(4, 4, 3, groups=4), ValueError, "got the model itself (groups=4)", HDQT())
    untouched(nn.ReLU(), ValueError, "expected model to hold a layer that HDQT swaps, got none", HDQT())
    untouched(Net(), TypeError, "expected scheme to be a scheme such as HDQT(), got 'hdqt'", "hdqt")
    untouched(Net(), TypeError, "expected skip to be names, glob patterns or a callable, got 3", HDQT(), skip=3)
    for call in (lambda: quintil.quantize_(3, HDQT()), lambda: quintil.dequantize_(3)):
        with pytest.raises(TypeError, match="ize_: expected model to be an nn.Module, got int"):
            call()


def test_equal_scheme_again_is_a_no_op_and_another_one_swaps_again():
    model = quintil.quantize_(Net(), HDQT())
    state = {name: dict(vars(m)) for name, m in model.named_modules()}
    quintil.quantize_(model, HDQT(bits=4))
    assert {name: dict(vars(m)) for name, m in model.named_modules()} == state
    x = images()
    quintil.quantize_(model.eval(), HDQT(bits=8, accumulator_bits=32), skip="head")
    schemes = {name: m.scheme.bits for name, m in model.named_modules() if hasattr(m, "scheme")}
    assert schemes == {name: 4 if name == "head" else 8 for name in SWAPPABLE}
    fresh = Net().eval()
    fresh.load_state_dict(model.state_dict())
    quintil.quantize_(quintil.quantize_(fresh, HDQT(), skip=lambda name, _: name != "head"), HDQT(8, 32), skip="head")
    assert same_bits(model(x), fresh(x))
    assert type(quintil.dequantize_(model).body["b"]) is OwnLinear


def test_shared_modules_are_swapped_once_and_skipped_by_any_name():
    def model() -> nn.ModuleDict:
        layer = nn.Linear(4, 4)
        return nn.ModuleDict({"encoder": layer, "decoder": layer, "other": nn.Linear(4, 4)})

    both = quintil.quantize_(model(), HDQT())
    assert both["encoder"] is both["decoder"] and isinstance(both["encoder"], HadamardLinear)
    left = quintil.quantize_(model(), HDQT(), skip="decoder")
    assert type(left["encoder"]) is nn.Linear and isinstance(left["other"], HadamardLinear)
    tied = nn.ModuleDict({"a": nn.Linear(4, 4, bias=False), "b": nn.Linear(4, 4, bias=False)})
    tied["b"].weight = tied["a"].weight
    quintil.quantize_(tied, HDQT())
    assert tied["b"].weight is tied["a"].weight and len(list(tied.parameters())) == 1
