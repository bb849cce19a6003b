"""What is measured after a task, and the summary of a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from quintil.metrics import accuracy_matrix, confusion_counts, task_metrics
from quintil.nn import saturation
from quintil.schemes import HDQT

from .bit_widths import width_record
from .learner import Learner
from .rundir import HEAD_FILES, quintil_version
from .tasks import Task

if TYPE_CHECKING:
    from .run import SeedSetup


def evaluate(setup: SeedSetup, task: Task, history: dict[str, list[np.ndarray]]) -> tuple[dict, dict[str, np.ndarray]]:
    """Record of metrics.jsonl after one task and the accuracy tables; appends the confusion counts to `history`."""
    learner, sizes, config = setup.learner, setup.tasks.sizes, setup.config
    record: dict = {"task": task.number, "classes": task.last, "new_classes": task.last - task.first}
    record |= {"n_train": task.y.numel(), "n_test": task.y_test.numel(), **_memory_sizes(learner)}
    if isinstance(config.scheme, HDQT):
        record["saturation"] = _saturation(learner, task)
    record |= learner.record()
    matrices = {}
    for head, scores in learner.scores(task.x_test).items():
        tag = HEAD_FILES[head]
        predicted = scores.argmax(1)
        history.setdefault(head, []).append(confusion_counts(task.y_test.numpy(), predicted.numpy(), task.last))
        best = scores.topk(min(5, task.last), dim=1).indices
        values = task_metrics(history[head], sizes, hdqt_rounding=config.hdqt_rounding)
        values["top5"] = 100.0 * float((best == task.y_test.unsqueeze(1)).any(1).double().mean())
        record[tag] = values
        record[f"acc_{tag}"] = values["acc"]
        matrices[head] = accuracy_matrix(history[head], sizes)
    if config.bit_widths:
        record["bit_widths"] = width_record(setup, task)
    return record, matrices


def _saturation(learner: Learner, task: Task) -> dict[str, dict[str, float]]:
    """Saturated codes and tiles per layer on one batch, evenly spaced over the task's test samples [CIL R9]."""
    size = min(learner.config.batch_size, task.x_test.size(0))
    places = torch.linspace(0, task.x_test.size(0) - 1, size).long()
    return saturation(learner.net, learner._inputs(task.x_test.index_select(0, places)))


def _memory_sizes(learner: Learner) -> dict:
    """Bytes of the net (float32, and with weights at the scheme's bits) and of the exemplars."""
    net, scheme = learner.net, learner.config.scheme
    state = [*net.parameters(), *net.buffers()]
    weights = [m.weight for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    in_weights = sum(w.numel() for w in weights)
    total = sum(t.numel() * t.element_size() for t in state)
    bits = 32 if scheme is None else scheme.stored_bits
    memory = learner.memory
    return {
        "model_bytes": total,
        "model_bytes_at_scheme_bits": total - 4 * in_weights + (in_weights * bits + 7) // 8,
        "trainable_params": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "exemplars": 0 if memory is None else len(memory),
        "exemplars_per_class": 0 if memory is None else max(memory.counts, default=0),
        "exemplar_bytes": 0 if memory is None else memory.bytes,
    }


def summarise(setup: SeedSetup, record: dict) -> dict:
    """summary.json: the last task's numbers as <name>_<head>, `acc` under the name last_acc."""
    summary = {name: value for name, value in record.items() if not isinstance(value, (dict, float))}
    for tag in HEAD_FILES.values():
        for name, value in record.get(tag, {}).items():
            if name != "per_class":
                summary[f"last_acc_{tag}" if name == "acc" else f"{name}_{tag}"] = value
    summary |= {"seed": setup.seed, "tasks": len(setup.tasks), "version": quintil_version()}
    summary |= {"method": setup.config.method, "learner_variant": setup.learner.variant}
    summary["data_features"] = setup.dataset.features
    return summary
