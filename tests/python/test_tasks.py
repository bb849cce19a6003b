"""Task sizes, class orders and the stream of tasks [CIL 1, 4]."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import torch
from conftest import assert_same
from quintil.continual import TaskStream, class_order, task_sizes


@pytest.mark.parametrize(
    "classes, init_cls, increment, want",
    [
        (100, 20, 20, [20] * 5),
        (19, 2, 2, [2] * 9 + [1]),
        (11, 2, 2, [2] * 5 + [1]),
        (100, 50, 10, [50] + [10] * 5),
        (100, 50, 5, [50] + [5] * 10),
        (100, 100, 0, [100]),
        (19, 19, 2, [19]),
        (10, 4, 5, [4, 5, 1]),
        (5, 2, 7, [2, 3]),
        (1, 1, 0, [1]),
    ],
)
def test_task_sizes(classes, init_cls, increment, want):
    assert task_sizes(classes, init_cls, increment) == want


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((10, 0, 2), "task_sizes: expected init_cls in 1..10, got 0 (number of classes 10)"),
        ((10, 11, 2), "task_sizes: expected init_cls in 1..10, got 11 (number of classes 10)"),
        (
            (10, 2, -1),
            "task_sizes: expected increment of at least 1, or 0 with init_cls = 10, got -1 (init_cls 2)",
        ),
        (
            (10, 2, 0),
            "task_sizes: expected increment of at least 1, or 0 with init_cls = 10, got 0 (init_cls 2)",
        ),
    ],
)
def test_task_sizes_refused(arguments, message):
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        task_sizes(*arguments)


@pytest.mark.parametrize(
    "seed, first",
    [
        (1993, [68, 56, 78, 8, 23, 84, 90, 65, 74, 76]),
        (42467, [67, 70, 85, 44, 33]),
        (88801, [61, 87, 46, 27, 48]),
        (91280, [16, 58, 37, 32, 63]),
        (1056, [87, 33, 88, 72, 98]),
        (27534, [21, 62, 68, 64, 17]),
    ],
)
def test_orders_of_cifar100(seed, first):
    order = class_order(100, None, seed)
    assert order[: len(first)] == first and sorted(order) == list(range(100))
    assert class_order(100, "icarl", seed) == class_order(100, None, 1993)


def test_order_of_dsads():
    labels = list(range(1, 20))
    assert [labels[c] for c in class_order(19, None, 42467)][:6] == [9, 19, 10, 5, 6, 8]


def test_given_orders():
    assert class_order(4, "identity", 7) == [0, 1, 2, 3]
    assert class_order(4, (2, 0, 3, 1), 7) == [2, 0, 3, 1]
    for order, message in [
        ((0, 0, 1), "class_order: expected a permutation of 0..2, got 3 entries starting [0, 0, 1]"),
        ((0, 1), "class_order: expected a permutation of 0..2, got 2 entries starting [0, 1]"),
        ("icarl2", "class_order: expected order to be icarl, identity or a list, got 'icarl2'"),
    ]:
        with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
            class_order(3, order, 0)


def dataset(classes: int = 5, per_class: int = 6) -> SimpleNamespace:
    """Every sample holds its own number and its label."""

    def side(offset: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.randperm(classes * per_class) % classes
        return torch.stack([torch.arange(len(y)) + offset, y], dim=1).float(), y

    (x_train, y_train), (x_test, y_test) = side(0), side(1000)
    return SimpleNamespace(x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def test_stream():
    data, order, sizes = dataset(), [3, 0, 4, 1, 2], [2, 2, 1]
    stream = TaskStream(data, order, sizes)
    assert len(stream) == 3 and [stream.counts(t) for t in (1, 2, 3)] == [(12, 12), (12, 12), (6, 6)]
    first, seen = 0, []
    for number, (task, size) in enumerate(zip(stream, sizes), start=1):
        assert (task.number, task.first, task.last) == (number, first, first + size)
        first += size
        assert set(task.y.tolist()) == set(range(task.first, task.last))
        assert set(task.y_test.tolist()) == set(task.y_seen.tolist()) == set(range(task.last))
        for x, y in ((task.x, task.y), (task.x_seen, task.y_seen), (task.x_test, task.y_test)):
            assert [order[position] for position in y.tolist()] == x[:, 1].tolist()
            assert y.tolist() == sorted(y.tolist())
        assert_same(data.x_train[task.index], task.x)
        seen += task.x[:, 0].tolist()
        assert task.x_seen[:, 0].tolist() == seen
    assert sorted(seen) == list(range(30))  # every training sample in exactly one task
    assert sorted(task.x_test[:, 0].tolist()) == [1000 + i for i in range(30)]


def test_stream_refuses_what_does_not_fit():
    data = dataset()
    with pytest.raises(ValueError, match=re.escape("expected task sizes with the sum 5, got [2, 2] (sum 4)")):
        TaskStream(data, range(5), [2, 2])
    with pytest.raises(ValueError, match=re.escape("TaskStream: expected y_train in 0..3, got 0..4")):
        TaskStream(data, range(4), [2, 2])
    data.y_test[data.y_test == 2] = 1
    with pytest.raises(ValueError, match=re.escape("expected samples of every class in y_test, got none of [2]")):
        TaskStream(data, range(5), [5])
