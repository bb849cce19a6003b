"""Energy of a class-incremental run: the operations of its training steps, counted and priced; nothing is trained."""

from __future__ import annotations

import torch

from quintil.continual import RunConfig
from quintil.continual.run import build_net, prepare
from quintil.continual.streams import Streams
from quintil.schemes import HDQT
from quintil.studies import energy


def run_joules(config: RunConfig, *, prices: str = "horowitz45_scaled") -> tuple[float, float] | None:
    """(joules of all training steps under the run's scheme, joules of the same steps in float32); for its first seed.

    A task's steps are its epochs times its batches of new samples and stored exemplars, each counted as a full batch
    with the head that the task has (`quintil.energy`). Distillation's teacher, validation stages and tests are left
    out: they are the same forward for both. None for a scheme whose operations are not counted, and for learners whose
    network grows with every task.
    """
    if config.scheme is not None and type(config.scheme) is not HDQT:
        return None
    if config.method in ("der", "memo"):
        return None
    setup = prepare(config, config.seeds[0])
    memory = setup.learner.memory
    own = reference = 0.0
    for task in setup.tasks:
        kept = 0 if memory is None or task.first == 0 else memory.planned(task.first)[1]
        batches = -(-(task.y.numel() + kept) // config.batch_size)
        epochs = config.schedule(task.first == 0)[0]
        net = build_net(config, setup.dataset, Streams(config.seeds[0]))
        net.grow(task.last, generator=torch.Generator().manual_seed(0))
        places = torch.arange(config.batch_size) % task.y.numel()
        report = energy(net, setup.learner._inputs(task.x.index_select(0, places)), config.scheme, prices=prices)
        own += batches * epochs * report.picojoules() * 1e-12
        reference += batches * epochs * report.picojoules(float32=True) * 1e-12
    return own, reference
