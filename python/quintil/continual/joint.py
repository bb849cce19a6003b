"""Upper bounds that keep all data [CIL 2.2]: joint (a curve) and offline (one task, one number; alias nocl)."""

from __future__ import annotations

from torch import Tensor

from .learner import Learner
from .registry import learner
from .tasks import Task


@learner("joint")
class Joint(Learner):
    """At every task, train on the data of all tasks so far, from the previous weights."""

    variant = "cross-entropy on the data of all tasks so far"

    def training_data(self, task: Task) -> tuple[Tensor, Tensor]:
        return task.x_seen, task.y_seen


@learner("offline")
class Offline(Learner):
    """All classes at once, from scratch; the run must have a single task (init_cls = classes, increment 0)."""

    variant = "cross-entropy, all classes in one task"
    single_task = True
