"""Class-incremental learning: tasks, learners, exemplar memory, and runs that leave a directory of results.

config = quintil.continual.preset("digits").replace(scheme=quintil.HDQT())
path = quintil.continual.run(config)
"""

from .bias_fit import fit_bias
from .bic import BiC
from .config import RunConfig, scheme_label
from .exemplars import ExemplarMemory, NearestMean, herding, normalise_rows
from .finetune import Finetune
from .icarl import ICaRL, ICaRLBCE
from .joint import Joint, Offline
from .learner import Learner, find_learner, learner, learner_names
from .losses import icarl_bce_loss, kd_loss, mixed_distillation, new_class_loss
from .lwf import LwF, LwFMC
from .pools import PooledMemory
from .presets import HDQT_SEEDS, PRESETS, preset
from .replay import ExperienceReplay, Replay
from .reservoir import ReservoirMemory
from .run import Observer, SeedSetup, aggregate, prepare, run, run_seed
from .streams import Streams, stream_seed
from .sweep import Job, SweepError, sweep
from .tasks import Task, TaskStream, class_order, task_sizes
from .wa import WeightAligning, align_new_rows

__all__ = [
    "HDQT_SEEDS",
    "PRESETS",
    "BiC",
    "ExemplarMemory",
    "ExperienceReplay",
    "Finetune",
    "ICaRL",
    "ICaRLBCE",
    "Job",
    "Joint",
    "Learner",
    "LwF",
    "LwFMC",
    "NearestMean",
    "Observer",
    "Offline",
    "PooledMemory",
    "Replay",
    "ReservoirMemory",
    "RunConfig",
    "SeedSetup",
    "Streams",
    "SweepError",
    "Task",
    "TaskStream",
    "WeightAligning",
    "aggregate",
    "align_new_rows",
    "class_order",
    "find_learner",
    "fit_bias",
    "herding",
    "icarl_bce_loss",
    "kd_loss",
    "learner",
    "learner_names",
    "mixed_distillation",
    "new_class_loss",
    "normalise_rows",
    "prepare",
    "preset",
    "run",
    "run_seed",
    "scheme_label",
    "stream_seed",
    "sweep",
    "task_sizes",
]
