"""The training loop over widths: order of steps, teachers, resuming, baselines [DR D16-D18, D23]."""

from __future__ import annotations

import dataclasses
import io
import math

import pytest
import quintil
import torch
import torch.nn.functional as F
from conftest import same_bits
from quintil import DoubleRounding
from quintil.bits import BASELINES, SwitchConfig, WidthTrainer, baseline, evaluate, get_bits, soft_cross_entropy
from quintil.schemes import Scheme
from torch import nn

BITS = (8, 4, 2)


def network(scheme: Scheme | None) -> nn.Module:
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Linear(6, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(),
        nn.Linear(12, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(),
        nn.Linear(12, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3),
    )  # fmt: skip
    return net if scheme is None else quintil.quantize_(net, scheme)


def batches(count: int = 3, size: int = 16) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(7)
    centres = 2 * torch.randn(3, 6, generator=generator)
    made = []
    for number in range(count):
        indices = torch.arange(number * size, (number + 1) * size)
        y = indices % 3
        made.append((centres[y] + torch.randn(size, 6, generator=generator), y, indices))
    return made


def trainer(scheme=None, traces=None, **options) -> WidthTrainer:
    config = SwitchConfig(**{"epochs": 4, "lr": 0.01, **options})
    return WidthTrainer(network(scheme or DoubleRounding(bits=BITS)), config, samples=48, classes=3, traces=traces)


def test_rate_is_a_cosine():
    config = SwitchConfig(epochs=10, lr=0.4)
    assert config.rate(0) == 0.4 and config.rate(5) == pytest.approx(0.2)
    assert config.rate(9) == pytest.approx(0.2 * (1 + math.cos(0.9 * math.pi)))


def by_hand(model: nn.Module, data, *, joint: bool, factors: dict[int, float]) -> list[list[float]]:
    """One epoch at rate 0.001 without the trainer: Adam, the step group's rate multiplied by the width's factor."""
    steps = {p for n, p in model.named_parameters() if "quantizers" in n}
    weights = {m.weight for m in model.modules() if isinstance(m, nn.Linear)}
    rest = [p for p in model.parameters() if p not in steps and p not in weights]
    groups = [{"params": [p for p in model.parameters() if p in weights], "weight_decay": 5e-5}]
    groups += [{"params": [p for p in model.parameters() if p in steps]}, {"params": rest}]
    optimizer = torch.optim.Adam(groups, lr=0.001)
    losses = []
    for x, y, _ in data:
        optimizer.zero_grad()
        for width in BITS:
            loss = F.cross_entropy(quintil.set_bits(model, width)(x), y)
            loss.backward()
            losses.append(loss.item())
            if joint:
                optimizer.param_groups[1]["lr"] = 0.001 * factors[width]
                optimizer.step()
                optimizer.zero_grad()
        if not joint:
            optimizer.step()
    return losses


@pytest.mark.parametrize("update", ["joint", "conventional"])
def test_order_of_steps(update):
    """A step after every width, high to low, or one for all of them."""
    run, model, data = trainer(update=update, lr=0.001), network(DoubleRounding(bits=BITS)), batches()
    found = run.train_epoch(data, 0)
    factors = {8: 1.0, 4: 0.01, 2: 0.001}
    losses = by_hand(model, data, joint=update == "joint", factors=factors)
    assert found == {str(b): pytest.approx(sum(losses[i::3]) / 3, rel=1e-6) for i, b in enumerate(BITS)}
    state = model.state_dict()
    for key, value in run.model.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=1e-4, atol=1e-6)


def test_an_extra_step_moves_on_momentum():
    """As the published code: everything moves once more on zero gradients, after the last width."""
    plain, extra, data = trainer(), trainer(extra_step=True), batches(1)
    for run in (plain, extra):
        run.train_epoch(data, 0)
    assert not torch.equal(plain.model[3].weight, extra.model[3].weight)
    counts = [run.optimizer.state[run.model[3].weight]["step"].item() for run in (plain, extra)]
    assert counts == [3, 4]
    assert all(parameter.grad is None for parameter in extra.model.parameters())


def test_previous_epoch_teaches_all_widths():
    run, data = trainer(distillation="previous_epoch", pskd_alpha=0.6), batches(1)
    run.train_epoch(data, 0)
    x, y, indices = data[0]
    table = run.taught.table[indices].clone()
    assert torch.allclose(table.sum(1), torch.ones(16))
    twin = trainer(distillation="previous_epoch", pskd_alpha=0.6)
    twin.load_state(run.state())
    share = 0.6 * 2 / 4
    want = (1 - share) * F.one_hot(y, 3) + share * table
    twin.model.train()
    with torch.no_grad():
        loss = soft_cross_entropy(quintil.set_bits(twin.model, 8)(x), want)
    run.model.train()
    for group in run.optimizer.param_groups:
        group["lr"] = 0.0
    losses = run.train_batch(x, y, indices, 1)
    assert losses[0].item() == pytest.approx(loss.item(), rel=1e-6)
    targets = [soft_cross_entropy(quintil.set_bits(run.model, b)(x), want).item() for b in BITS]
    assert [loss.item() for loss in losses] == pytest.approx(targets, rel=1e-5)
    assert not torch.equal(run.taught.table[indices], table)


def test_recursive_distillation_learns_from_the_next_higher_width():
    run, (x, y, indices) = trainer(distillation="recursive", lr=0.0), batches(1)[0]
    run.model.train()
    losses = run.train_batch(x, y, indices, 0)
    logits = [quintil.set_bits(run.model, b)(x).detach() for b in BITS]
    want = [F.cross_entropy(logits[0], y)]
    want += [soft_cross_entropy(low, high.softmax(1)) for high, low in zip(logits, logits[1:])]
    torch.testing.assert_close(torch.stack(losses), torch.stack(want))


def test_a_float_model_has_one_pass():
    run, data = trainer(), batches()
    run = WidthTrainer(network(None), run.config)
    first = run.train_epoch(data, 0)
    assert list(first) == ["32"]
    for epoch in range(1, 4):
        last = run.train_epoch(data, epoch)
    assert last["32"] < first["32"]


class Recorded(nn.Module):
    """Notes the widths at every forward."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.seen = inner, []

    def forward(self, x):
        self.seen.append(tuple(get_bits(self.inner).values()))
        return self.inner(x)


@pytest.mark.parametrize("sampling", ["hasb", "uniform"])
def test_layers_are_redrawn_after_the_warm_up(sampling):
    model = Recorded(network(DoubleRounding(bits=BITS, transitional_norm=True)))
    config = SwitchConfig(epochs=4, lr=0.01, sampling=sampling, sigma=1.0, mix_warmup=1)
    run = WidthTrainer(model, config, traces={"inner.3": 1.0, "inner.6": 0.1})
    run.train_epoch(batches(), 0, torch.Generator().manual_seed(1))
    assert model.seen == [(b, b) for _ in range(3) for b in BITS]
    seen = []
    for _ in range(2):
        model.seen.clear()
        run.train_epoch(batches(), 3, torch.Generator().manual_seed(1))
        seen.append(list(model.seen))
    assert seen[0] == seen[1] and len(set(seen[0])) > 3
    if sampling == "hasb":
        with pytest.raises(ValueError, match="expected traces of every quantised layer, got none of 'inner.6'"):
            WidthTrainer(model, config, traces={"inner.3": 1.0})


def test_resuming_equals_going_on():
    data = batches()
    through, first = (trainer(distillation="previous_epoch", sampling="uniform", mix_warmup=0) for _ in range(2))

    def epoch(run, number):
        return run.train_epoch(data, number, torch.Generator().manual_seed(number))

    losses = [epoch(through, number) for number in range(3)]
    assert [epoch(first, number) for number in range(2)] == losses[:2]
    buffer = io.BytesIO()
    torch.save(first.state(), buffer)
    buffer.seek(0)
    second = trainer(distillation="previous_epoch", sampling="uniform", mix_warmup=0)
    second.load_state(torch.load(buffer, weights_only=True))
    assert epoch(second, 2) == losses[2]
    assert all(same_bits(a, b) for a, b in zip(second.model.state_dict().values(), through.model.state_dict().values()))


def test_accuracy():
    model = nn.Linear(2, 2, bias=False).train()
    model.weight.data = torch.eye(2)
    data = [(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])), (torch.eye(2)[:1], torch.tensor([0]))]
    assert evaluate(model, data) == pytest.approx(200 / 3) and model.training
    for call in (lambda: evaluate(model, []), lambda: trainer().train_epoch([], 0)):
        with pytest.raises(ValueError, match="expected batches with samples, got none"):
            call()


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_learns(name):
    scheme, config = baseline(
        name, DoubleRounding(bits=(4,) if name == "lsq" else (4, 2)), SwitchConfig(epochs=8, lr=0.02)
    )
    run, data = WidthTrainer(network(scheme), config, samples=48, classes=3), batches()
    for epoch in range(8):
        losses = run.train_epoch(data, epoch, torch.Generator().manual_seed(epoch))
    for width in scheme.bits:
        assert evaluate(quintil.set_bits(run.model, width), [(x, y) for x, y, _ in data]) > 80, (width, losses)


def test_baselines_differ_from_the_method_and_each_other():
    made = {name: baseline(name, DoubleRounding(bits=(8,))) for name in BASELINES}
    assert made["double_rounding"] == (DoubleRounding(bits=(8,)), SwitchConfig()) and len(set(made.values())) == len(
        made
    )
    assert made["adabits"][0].rounding == "floor" and made["adabits"][1].update == "conventional"
    with pytest.raises(ValueError, match="^baseline: expected one width for lsq, got \\(8, 6, 4, 2\\)$"):
        baseline("lsq")
    with pytest.raises(ValueError, match="^baseline: expected name to be one of double_rounding, .*, got 'lsqp'$"):
        baseline("lsqp")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"update": "both"}, "SwitchConfig: expected update to be one of joint, conventional, got 'both'"),
        ({"sampling": "all"}, "SwitchConfig: expected sampling to be one of same, hasb, uniform, got 'all'"),
        ({"epochs": 0}, "SwitchConfig: expected epochs of at least 1, got 0"),
        ({"update": "conventional", "extra_step": True},
         "SwitchConfig: expected extra_step only with update joint, got conventional"),
    ],
)  # fmt: skip
def test_refused(options, message):
    with pytest.raises(ValueError) as caught:
        SwitchConfig(**options)
    assert str(caught.value) == message


def test_paper():
    paper = SwitchConfig.paper(epochs=3)
    changed = {f.name for f in dataclasses.fields(paper) if getattr(paper, f.name) != f.default}
    assert changed == {"epochs", "lr_mode", "lr_scope", "extra_step", "pskd_update"}
