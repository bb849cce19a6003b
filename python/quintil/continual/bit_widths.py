"""A learner's net at several bit widths after a task: converted, tested at every width, and stored [DR 2].

The learner itself goes on as it was. Its copy becomes float, then layers of Double Rounding; their steps start from
training samples and exemplars, and in `width_epochs` epochs all widths learn to give the logits of the learner's net,
which keeps what a learner does about its bias. So nothing is learned that the learner did not know.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from quintil.bits import MultiLR, SwitchConfig, parameter_groups, recalibrate, set_bits, soft_cross_entropy
from quintil.data.batches import batch_sizes
from quintil.nn import dequantize_, quantize_, save_quantized
from quintil.schemes import DoubleRounding

from .learner import Learner
from .rundir import HEAD_FILES
from .streams import stream_seed
from .tasks import Task

if TYPE_CHECKING:
    from .run import SeedSetup

FILE = "widths.safetensors"
_STARTING_SAMPLES = 1024  # that steps start from and BatchNorms are measured on


def width_record(setup: SeedSetup, task: Task) -> dict[str, dict[str, float]]:
    """Accuracy in percent by width ("8") and head ("cnn", "nme"); the net of the last task goes into FILE."""
    learner, widths = setup.learner, setup.config.bit_widths
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(setup.seed, f"widths{task.number}"))
        twin = _converted(learner, task, widths)
    found = {}
    own = learner.net
    try:
        learner.net = twin
        for width in widths:
            set_bits(twin, width)
            scores = learner.scores(task.x_test)
            found[str(width)] = {
                HEAD_FILES[head]: 100.0 * float((table.argmax(1) == task.y_test).double().mean())
                for head, table in scores.items()
            }
    finally:
        learner.net = own
    if task.number == len(setup.tasks):
        save_quantized(set_bits(twin, max(widths)), Path(setup.folder.path) / FILE)
    return found


def _converted(learner: Learner, task: Task, widths: tuple[int, ...]) -> nn.Module:
    """A copy of the learner's net at several widths, in evaluation mode."""
    twin = copy.deepcopy(learner.net).requires_grad_(True)
    if not isinstance(learner.config.scheme, DoubleRounding):
        quantize_(dequantize_(twin), DoubleRounding(bits=widths))
    samples, _ = learner.training_data(task)
    first = samples[torch.randperm(len(samples))[:_STARTING_SAMPLES]]
    _start(learner, twin, first, widths)
    if learner.config.width_epochs:
        _train(learner, twin, samples, widths)
    for width in widths:
        set_bits(twin, width)
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in twin.modules()):
            recalibrate(twin, _inputs(learner, first))
    return twin.eval()


@torch.no_grad()
def _start(learner: Learner, twin: nn.Module, samples: Tensor, widths: tuple[int, ...]) -> None:
    twin.train()
    for width in widths:
        set_bits(twin, width)
        twin(learner._inputs(samples))


def _train(learner: Learner, twin: nn.Module, samples: Tensor, widths: tuple[int, ...]) -> None:
    """All widths on every batch, from the highest on, towards the logits of the learner's net."""
    config = SwitchConfig(epochs=learner.config.width_epochs)
    optimizer = torch.optim.Adam([g for g in parameter_groups(twin, 0.0) if g["params"]], lr=config.lr)
    rates = MultiLR(twin, optimizer, list(widths))
    learner.net.eval()
    for epoch in range(config.epochs):
        twin.train()
        for group in optimizer.param_groups:
            group["lr"] = config.rate(epoch)
        for x in _inputs(learner, samples[torch.randperm(len(samples))]):
            with torch.no_grad():
                wanted = learner.net(x).softmax(1)
            for width in widths:
                set_bits(twin, width)
                soft_cross_entropy(twin(x), wanted).backward()
                rates.step(width)
                optimizer.zero_grad(set_to_none=True)


def _inputs(learner: Learner, samples: Tensor) -> Iterator[Tensor]:
    for part in samples.split(batch_sizes(len(samples), learner.config.batch_size)):
        yield learner._inputs(part)
