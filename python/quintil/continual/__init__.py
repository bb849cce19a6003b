"""Class-incremental learning: tasks, learners, exemplar memory, and runs that leave a directory of results.

config = quintil.continual.preset("digits").replace(scheme=quintil.HDQT())
path = quintil.continual.run(config)
"""

from .config import RunConfig, scheme_label
from .exemplars import ExemplarMemory, NearestMean, herding, normalise_rows
from .finetune import Finetune
from .icarl import ICaRL, ICaRLBCE
from .joint import Joint, Offline
from .learner import Learner, find_learner, learner, learner_names
from .load import load_checkpoint
from .losses import icarl_bce_loss, kd_loss, new_class_loss
from .observer import Observer
from .presets import HDQT_SEEDS, PRESETS, preset
from .run import SeedSetup, aggregate, prepare, run, run_seed
from .streams import Streams, stream_seed
from .tasks import Task, TaskStream, class_order, task_sizes

__all__ = [
    "HDQT_SEEDS",
    "PRESETS",
    "ExemplarMemory",
    "Finetune",
    "ICaRL",
    "ICaRLBCE",
    "Joint",
    "Learner",
    "NearestMean",
    "Observer",
    "Offline",
    "RunConfig",
    "SeedSetup",
    "Streams",
    "Task",
    "TaskStream",
    "aggregate",
    "class_order",
    "find_learner",
    "herding",
    "icarl_bce_loss",
    "kd_loss",
    "learner",
    "learner_names",
    "load_checkpoint",
    "new_class_loss",
    "normalise_rows",
    "prepare",
    "preset",
    "run",
    "run_seed",
    "scheme_label",
    "stream_seed",
    "task_sizes",
]
