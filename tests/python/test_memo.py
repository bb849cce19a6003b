"""MEMO: where the nets are split, what is frozen, and a run on images [CIL 2.8]."""

from __future__ import annotations

import pytest
import quintil
import torch
from conftest import SCALAR, same_bits
from quintil import HDQT
from quintil.continual import Observer, RunConfig, prepare, run
from quintil.models import ExpandableNet, SharedBaseBackbone, resnet32
from test_der import SCHEMES, learner_and_tasks, snapshot
from torch import nn


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_split_of_resnet32_and_sizes():
    whole = resnet32().eval()
    base, block = whole.split()
    assert parameters(base) == 112_016 and parameters(block) == 351_488
    x = torch.randn(2, 3, 32, 32)
    assert same_bits(block(base(x)), whole(x)) and base(x).shape == (2, 32, 16, 16)
    net = ExpandableNet(SharedBaseBackbone(base, block))
    for classes in range(20, 101, 20):
        net.grow(classes)
    assert parameters(net.backbone) == 1_869_456
    assert sum(p.numel() for p in net.backbone.parameters() if p.requires_grad) == 351_488
    assert net.head.weight.shape == (100, 320) and net.aux.weight.shape == (21, 64)


@pytest.mark.parametrize(
    "changes, base, block",
    [
        ({}, [(48, 64), (48, 48)], [(48, 48), (48, 48)]),
        ({"fc_hid_dim": None}, [(64, 64), (64, 64)], [(64, 64), (64, 64)]),
        ({"half_dims": True}, [(24, 64), (24, 24)], [(24, 24), (24, 24)]),
        ({"fc_nr_hid": 1}, [(48, 64), (48, 48), (48, 48)], [(48, 48), (48, 48), (48, 48)]),
    ],
)
def test_split_of_fcnet(changes, base, block):
    """FCNet(in, hid, hid) and FCNet(hid, hid, hid): four hidden layers."""
    learner, _ = learner_and_tasks("memo", **changes)
    backbone = learner.net.backbone
    shapes = [
        [tuple(m.weight.shape) for m in part.modules() if isinstance(m, nn.Linear)]
        for part in (backbone.base, backbone.parts[0])
    ]
    assert shapes == [base, block]
    assert all(m.bias is None for m in backbone.modules() if isinstance(m, nn.Linear))


@pytest.mark.parametrize("train_base", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_frozen(scheme, train_base):
    learner, tasks = learner_and_tasks("memo", scheme, norm="batch", weight_decay=0.1, train_base=train_base)
    with learner.streams.rounding():
        for task in tasks:
            learner.begin_task(task)
            backbone = learner.net.backbone
            base_trains = train_base or task.number == 1
            frozen = [*backbone.parts[:-1], *([] if base_trains else [backbone.base])]
            moving = [backbone.parts[-1], *([backbone.base] if base_trains else [])]
            before = [snapshot([m]) for m in (*frozen, *moving)]
            learner.train_epoch()
            assert not any(m.training for module in frozen for m in module.modules())
            assert all(m.training for module in moving for m in module.modules())
            learner.end_task()
            after = [snapshot([m]) for m in (*frozen, *moving)]
            same = [all(same_bits(a, b) for a, b in zip(x, y)) for x, y in zip(before, after)]
            assert same == [True] * len(frozen) + [False] * len(moving)
            assert not any(p.requires_grad for module in frozen for p in module.parameters())
            assert all(p.requires_grad for module in moving for p in module.parameters())


def test_the_base_runs_once():
    learner, tasks = learner_and_tasks("memo")
    for classes in (2, 4, 6):
        learner.net.grow(classes)
    calls = []
    learner.net.backbone.base.register_forward_hook(lambda *_: calls.append(1))
    learner.net(torch.randn(3, 64))
    assert len(calls) == 1 and len(learner.net.backbone.parts) == 3


def test_head_keeps_old_rows_and_columns():
    learner, tasks = learner_and_tasks("memo", "HDQT")
    learner.begin_task(tasks[0])
    learner.train_epoch()
    learner.end_task()
    old = learner.net.head.weight.detach().clone()
    learner.begin_task(tasks[1])
    assert same_bits(learner.net.head.weight[:5, :48], old) and learner.net.head.weight.shape == (10, 96)


class Sizes(Observer):
    def __init__(self):
        self.trainable = []

    def on_task(self, task, record, timing):
        self.trainable.append(record["trainable_params"])


@pytest.mark.parametrize("method", ["der", "memo"])
def test_images(method, tmp_path):
    settings = RunConfig(
        "synthetic:cifar", method, model="resnet20", increment=10, memory_size=20, epochs=1, limit_batches=1,
        batch_size=16, scheme=None if SCALAR else HDQT(), threads=1, results_dir=str(tmp_path),
        exemplar_selection="random",
    )  # fmt: skip
    sizes = Sizes()
    path = run(settings, sizes)
    assert (path / "seed0" / "summary.json").is_file()
    block = parameters(quintil.models.resnet20().split()[1])
    assert sizes.trainable == [269_072 + 640, (269_072 if method == "der" else block) + 20 * 128]


def test_weights_start_as_those_of_the_whole_net():
    """Paired runs of two methods start from the same values."""
    changes = dict(increment=10, memory_size=20, model="resnet20")
    nets = [prepare(RunConfig("synthetic:cifar", method, **changes), 3).learner.net for method in ("icarl", "memo")]
    base, block = nets[0].backbone.split()
    assert all(same_bits(a, b) for a, b in zip(snapshot([base]), snapshot([nets[1].backbone.base])))
    assert all(same_bits(a, b) for a, b in zip(snapshot([block]), snapshot([nets[1].backbone.parts[0]])))
