"""DER: features that are added and frozen, the auxiliary loss, the alignment of the head [CIL 2.8, C11, C12]."""

from __future__ import annotations

import math

import pytest
import quintil
import torch
from conftest import same_bits
from quintil import HDQT
from quintil.continual import RunConfig, align_new_rows, auxiliary_labels, prepare
from quintil.models import ExpandableBackbone, ExpandableNet, FCNet, resnet32
from quintil.nn import HadamardLinear, SwappedLayer
from torch import nn

SCHEMES = {"float32": None, "HDQT": HDQT(), "paper": HDQT.paper()}


def learner_and_tasks(method: str, scheme: str = "float32", **changes):
    settings = RunConfig(
        "synthetic", method, increment=5, memory_size=60, epochs=1, lr=0.05, batch_size=32, fc_hid_dim=48,
        scheme=SCHEMES[scheme], threads=1,
    )  # fmt: skip
    torch.set_num_threads(1)
    setup = prepare(settings.replace(**changes), 0)
    return setup.learner, list(setup.tasks)


def snapshot(modules: list[nn.Module]) -> list[torch.Tensor]:
    """Copies of parameters and buffers."""
    return [value.clone() for module in modules for value in module.state_dict().values()]


def test_sizes():
    net = ExpandableNet(ExpandableBackbone(resnet32()))
    for classes in range(20, 101, 20):
        net.grow(classes)
    assert sum(p.numel() for p in net.backbone.parameters()) == 2_317_520
    assert sum(p.numel() for p in net.backbone.parameters() if p.requires_grad) == 463_504
    assert net.head.weight.shape == (100, 320) and net.aux.weight.shape == (21, 64)
    assert net.features(torch.randn(2, 3, 8, 8)).shape == (2, 320)


@pytest.mark.parametrize("cosine", [False, True], ids=["linear", "cosine"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_growth_keeps_old_rows_and_columns_to_the_bit(scheme, cosine):
    net = ExpandableNet(ExpandableBackbone(FCNet(24, norm="batch")), cosine=cosine)
    generator, x = torch.Generator().manual_seed(2), torch.randn(7, 24)
    for task, (known, classes) in enumerate([(0, 3), (3, 4), (4, 40)]):
        old = net.head.weight.detach().clone() if known else None
        if known:
            net.train()(x)  # moves the BatchNorm buffers of the newest part
            features = net.eval().features(x).detach()
        net.grow(classes, generator=generator)
        assert net.head.weight.shape == (classes, 24 * (task + 1))
        limit = math.sqrt(3 / (24 * (task + 1)))
        if known:
            assert same_bits(net.head.weight[:known, : 24 * task], old)
            fresh = torch.cat([net.head.weight[:known, 24 * task :].flatten(), net.head.weight[known:].flatten()])
            assert 0.8 * limit < fresh.abs().max().item() <= limit and torch.count_nonzero(fresh) == fresh.numel()
            assert net.aux.weight.shape == (classes - known + 1, 24)
            newest, before = net.backbone.parts[-1], net.backbone.parts[-2]
            assert all(same_bits(a, b) for a, b in zip(snapshot([newest]), snapshot([before])))
            assert newest.layers[0].weight.data_ptr() != before.layers[0].weight.data_ptr()
        else:
            assert net.aux is None
        if SCHEMES[scheme] is not None:
            quintil.quantize_(net, SCHEMES[scheme])
            swapped = sum(isinstance(m, SwappedLayer) for m in net.modules())
            assert swapped == 2 * (task + 1) + 1 + (known > 0)
            assert not known or isinstance(net.aux, HadamardLinear)
        if known:
            assert same_bits(net.eval().features(x)[:, : 24 * task].contiguous(), features)
    with pytest.raises(ValueError, match="^grow: expected classes of at least 40, got 39$"):
        net.grow(39)
    assert len(net.backbone.parts) == 3


@pytest.mark.parametrize("scheme", SCHEMES)
def test_old_extractors_are_frozen(scheme):
    learner, tasks = learner_and_tasks("der", scheme, norm="batch", weight_decay=0.1)
    with learner.streams.rounding():
        for task in tasks:
            learner.begin_task(task)
            parts = learner.net.backbone.parts
            old, newest = list(parts[:-1]), parts[-1]
            before, moving = snapshot(old), snapshot([newest])
            for _ in range(2):
                learner.train_epoch()
                assert not any(m.training for part in old for m in part.modules())
                assert all(m.training for m in newest.modules())
            learner.end_task()
            assert all(same_bits(a, b) for a, b in zip(before, snapshot(old)))
            assert not all(same_bits(a, b) for a, b in zip(moving, snapshot([newest])))
            assert not any(p.requires_grad for part in old for p in part.parameters())
            assert learner.net.aux is None and len(parts) == task.number
            assert learner.nearest_mean.means.shape == (task.last, 64 * task.number)


def test_loss_is_c12():
    """Against double-precision loops: old classes share the auxiliary label 0, new ones follow."""
    assert auxiliary_labels(torch.tensor([0, 4, 5, 6, 9]), 5).tolist() == [0, 0, 1, 2, 5]
    learner, tasks = learner_and_tasks("der", alpha_aux=0.7)
    for task in tasks[:2]:
        learner.begin_task(task)
        learner.train_epoch()
        if task.number == 1:
            x, y = learner._samples[:20], learner._labels[:20]
            assert set(learner.batch_parts(x, y, None)[1]) == {"ce"}
            learner.end_task()
    net = learner.net.double()
    rows = torch.arange(0, learner._labels.numel(), 9)
    x, y = learner._samples[rows].double(), learner._labels[rows]
    assert (y < 5).any() and (y >= 5).any()

    def cross_entropy(logits: torch.Tensor, labels: list[int]) -> float:
        total = 0.0
        for row, label in zip(logits.tolist(), labels):
            total += math.log(math.fsum(math.exp(v) for v in row)) - row[label]
        return total / len(labels)

    net.eval()
    features = torch.cat([part(x) for part in net.backbone.parts], dim=1)
    logits, aux = features @ net.head.weight.T, features[:, -64:] @ net.aux.weight.T
    got, parts = learner.batch_parts(x, y, None)
    torch.testing.assert_close(got, logits)
    assert parts["ce"].item() == pytest.approx(cross_entropy(logits, y.tolist()))
    targets = [0 if label < 5 else label - 5 + 1 for label in y.tolist()]
    assert parts["aux"].item() == pytest.approx(0.7 * cross_entropy(aux, targets))


def test_alignment():
    weight = nn.Parameter(torch.randn(7, 12))
    old = weight.detach().clone()
    norms = old.norm(dim=1)
    gamma = align_new_rows(weight, 4)
    assert gamma == pytest.approx((norms[:4].mean() / norms[4:].mean()).item())
    assert same_bits(weight[:4], old[:4])
    torch.testing.assert_close(weight[4:].detach(), gamma * old[4:])
    assert weight[:4].norm(dim=1).mean().item() == pytest.approx(weight[4:].norm(dim=1).mean().item())
    assert align_new_rows(weight, 4) == pytest.approx(1.0)
    for known in (0, 7):
        with pytest.raises(ValueError, match=f"^align_new_rows: expected known in 1..6, got {known}$"):
            align_new_rows(weight, known)


def test_the_head_is_aligned_after_later_tasks():
    learner, tasks = learner_and_tasks("der")
    for task in tasks[:2]:
        learner.begin_task(task)
        learner.train_epoch()
        learner.end_task()
        assert (learner.gamma is None) == (task.number == 1)
    norms = learner.net.head.weight.norm(dim=1)
    assert norms[:5].mean().item() == pytest.approx(norms[5:].mean().item(), rel=1e-6)


@pytest.mark.parametrize("method", ["der", "memo"])
@pytest.mark.parametrize("scheme", ["float32", "HDQT"])
def test_state_goes_into_a_fresh_learner(method, scheme):
    learner, tasks = learner_and_tasks(method, scheme, norm="batch")
    for task in tasks[:2]:
        learner.begin_task(task)
        learner.train_epoch()
        learner.end_task()
    fresh, _ = learner_and_tasks(method, scheme, norm="batch")
    random = torch.random.get_rng_state()
    for classes in (5, 10):
        fresh.grow(classes)
    fresh.load_extra_state(learner.extra_state())
    assert torch.equal(random, torch.random.get_rng_state())
    fresh.net.load_state_dict(learner.net.state_dict())
    x = fresh._inputs(tasks[1].x_test)
    assert same_bits(fresh.net.eval()(x), learner.net.eval()(x)) and fresh.gamma == learner.gamma
    flags = [[p.requires_grad for p in net.parameters()] for net in (fresh.net, learner.net)]
    assert flags[0] == flags[1]
