"""The state of a learner as plain values, and back: what the entries "learner" and "running" of a checkpoint hold."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .checkpoint import frozen
from .distributed import world_size
from .epochs import EpochProgress
from .exemplars import NearestMean
from .learner import Learner


def learner_state(learner: Learner, *, self_contained: bool = False) -> dict:
    """Everything that a learner is between two tasks. self_contained: with the exemplars, not only their places."""
    net, memory, means = learner.net.state_dict(), learner.memory, learner.nearest_mean
    state = {
        "net": net,
        "teacher": None if learner.teacher is None else _unless_equal(learner.teacher.state_dict(), net),
        "memory": None if memory is None else memory.state(contents=self_contained),
        "means": None if means is None else means.means,
        "streams": learner.streams.state(),
        "extra": learner.extra_state(),
    }
    return frozen(state)


def restore_learner(learner: Learner, content: dict, path: Path, x_train: Tensor | None) -> None:
    """Give a freshly built learner the state of a checkpoint between two tasks.

    x_train: the data set's training samples, from which exemplars are taken that the file holds only the places of;
    with None such a memory stays empty, which is enough to predict. ValueError naming the first thing that does not
    fit.
    """
    state = content["learner"]
    for size in content["config"]["task_sizes"][: content["task"]]:
        learner.known, learner.seen = learner.seen, learner.seen + size
        learner.grow(learner.seen)
    learner.load_extra_state(state["extra"])
    load_tensors(learner.net, state["net"], f"net of {path}")
    learner.net.eval()
    if state["teacher"] is not None:
        learner.teacher = copy.deepcopy(learner.net).eval().requires_grad_(False)
        if state["teacher"] != "net":
            load_tensors(learner.teacher, state["teacher"], f"teacher of {path}")
    if (state["memory"] is None) != (learner.memory is None):
        raise ValueError(f"load_checkpoint: expected {path} to fit method {learner.name}, got another memory")
    if learner.memory is not None:
        learner.memory.load_state(state["memory"], x_train, str(path))
    if state["means"] is not None:
        learner.nearest_mean = NearestMean.from_means(state["means"].clone())
    learner.streams.load_state(state["streams"])


def running_state(learner: Learner, epoch: int, *, self_contained: bool = False) -> dict:
    """What changes inside a task: `epoch` epochs are done, another one may be under way."""
    scheduler = {key: v for key, v in learner.scheduler.state_dict().items() if isinstance(v, (int, float, list))}
    state = {
        "epoch": epoch,
        "progress": None if learner.progress is None else vars(learner.progress),
        "net": learner.net.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "scheduler": scheduler,
        "trained_samples": learner.trained_samples,
        "streams": learner.streams.state(),
        "memory": learner.memory.state(contents=self_contained) if learner.moving_memory else None,
        "extra": learner.extra_state(),
    }
    return frozen(state)


def restore_running(learner: Learner, state: dict, path: Path, x_train: Tensor) -> int:
    """After `begin_task` of the task that was interrupted: the state inside it. Returns the epochs done."""
    if state["progress"] is not None and world_size() > 1:
        raise ValueError(
            f"run: expected a checkpoint between two epochs for {world_size()} processes, got one inside an epoch "
            f"({path}; go on with one process, or start again with resume false)"
        )
    learner.load_extra_state(state["extra"])
    if state["memory"] is not None:
        learner.memory.load_state(state["memory"], x_train, str(path))
    load_tensors(learner.net, state["net"], f"running net of {path}")
    learner.optimizer.load_state_dict(state["optimizer"])
    learner.scheduler.load_state_dict(state["scheduler"])
    learner.trained_samples = state["trained_samples"]
    learner.progress = None if state["progress"] is None else EpochProgress(**frozen(state["progress"]))
    learner.streams.load_state(state["streams"])
    return state["epoch"]


@torch.no_grad()
def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy tensors into a module in place; ValueError naming the first one that is absent or has another shape."""
    own = module.state_dict()
    for name, tensor in own.items():
        if name not in tensors:
            raise ValueError(f"load_checkpoint: expected tensor {name}, got none (in {where})")
        found = tensors[name]
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            raise ValueError(
                f"load_checkpoint: expected tensor {name} to be {tensor.dtype} {list(tensor.shape)}, got {found.dtype} "
                f"{list(found.shape)} (in {where})"
            )
    unknown = [name for name in tensors if name not in own]
    if unknown:
        raise ValueError(f"load_checkpoint: expected known tensors, got {unknown[0]} (in {where})")
    module.load_state_dict(dict(tensors))


def _unless_equal(tensors: dict, net: dict) -> dict | str:
    same = tensors.keys() == net.keys() and all(
        tensors[name].shape == net[name].shape and torch.equal(tensors[name], net[name]) for name in net
    )
    return "net" if same else tensors
