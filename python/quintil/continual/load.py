"""A learner from a checkpoint file, for predictions and for looking inside."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from quintil import data
from quintil.data.custom import images_to_float
from quintil.data.images import normalise_images
from quintil.data.persons import to_float
from quintil.schemes import Scheme

from .checkpoint import check_same_config, read_checkpoint
from .config import RunConfig
from .learner import Learner
from .learner_state import restore_learner
from .registry import find_learner
from .run import build_net, prepare
from .streams import Streams

_TRANSFORMS = {function.__name__: function for function in (to_float, images_to_float, normalise_images)}


def load_checkpoint(path: str | Path, config: RunConfig | None = None) -> Learner:
    """The learner as it was after the last finished task of a checkpoint, in evaluation mode.

    learner = load_checkpoint("runs/.../seed0/ckpt/last.pt")
    labels = [learner.class_names[k] for k in learner.predict(x, head="nme")]

    `predict` and `scores` give what they gave in the run, for the same batches. x: samples as the data set holds them
    (bytes of images; features already scaled as in the run). `learner.seen` classes can be predicted, `learner.heads()`
    says by which heads; `learner.class_names` are the original labels.

    config: the configuration of the run, with which the data set is loaded too; then `learner.memory` is complete.
    Without it no data set is read, and exemplars are there only if the checkpoint is self-contained. ValueError names
    the file and what is wrong with it: damage, another configuration, the first tensor that does not fit.
    """
    path = Path(path)
    content = read_checkpoint(path)
    if config is not None:
        setup = prepare(config, content["seed"])
        check_same_config(content, setup.describe(), path)
        restore_learner(setup.learner, content, path, setup.dataset.x_train)
        return setup.learner
    return learner_of(content, path)


def learner_of(content: dict, path: Path) -> Learner:
    """The learner of what `read_checkpoint` gave for a path, without its data set."""
    stored = content["config"]
    dataset = _stand_in(content, path)
    config = stored_config(stored)
    streams = Streams(content["seed"])
    kind = find_learner(config.method)
    learner = kind(build_net(config, dataset, streams), config, dataset, streams, len(stored["class_order"]))
    learner.class_names = tuple(stored["class_names"][label] for label in stored["class_order"])
    restore_learner(learner, content, path, None)
    return learner


def stored_config(stored: dict) -> RunConfig:
    """The configuration of a config.json; paths and threads have their defaults."""
    names = {field.name for field in dataclasses.fields(RunConfig)}
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items() if name in names}
    scheme = None if stored["scheme"] is None else Scheme.from_dict(stored["scheme"])
    return RunConfig(**{**values, "scheme": scheme, "seeds": (stored["seed"],)})


def _stand_in(content: dict, path: Path) -> data.Dataset:
    """A data set without samples: the shape that the net is built for, and the transform of its input."""
    known = content["input"]
    transform = _TRANSFORMS.get(known["transform"])
    if transform is None:
        raise ValueError(
            f"load_checkpoint: expected config with {path}, whose data set has a transform of its own, got None "
            f"({known['transform']})"
        )
    x = torch.zeros(1, *known["shape"], dtype=getattr(torch, known["dtype"]))
    y = torch.zeros(1, dtype=torch.int64)
    names = tuple(content["config"]["class_names"])
    return data.Dataset(content["config"]["dataset"], x, y, x, y, names, None, None, transform, None, {})
