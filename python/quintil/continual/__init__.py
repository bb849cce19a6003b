"""Class-incremental learning: tasks, learners, exemplar memory, and runs that leave a directory of results.

config = quintil.continual.preset("digits").replace(scheme=quintil.HDQT())
path = quintil.continual.run(config)
"""

from .alignment import align_new_rows
from .bias_fit import fit_bias
from .bic import BiC
from .config import RunConfig, scheme_label
from .der import DER
from .eeil import EEIL
from .exemplars import ExemplarMemory, NearestMean, herding, normalise_rows
from .finetune import Finetune
from .gdumb import GDumb, GreedyMemory
from .icarl import ICaRL, ICaRLBCE
from .joint import Joint, Offline
from .learner import Learner
from .load import load_checkpoint
from .losses import (
    auxiliary_labels,
    head_distillation_loss,
    icarl_bce_loss,
    kd_loss,
    less_forget_loss,
    margin_ranking_loss,
    mixed_distillation,
    new_class_loss,
)
from .lucir import LUCIR
from .lwf import LwF, LwFMC
from .memo import MEMO
from .observer import Observer
from .pools import PooledMemory
from .presets import HDQT_SEEDS, PRESETS, preset
from .registry import find_learner, learner, learner_names
from .replay import ExperienceReplay, Replay
from .reservoir import ReservoirMemory
from .run import SeedSetup, aggregate, prepare, run, run_seed
from .streams import Streams, stream_seed
from .sweep import Job, SweepError, sweep
from .tasks import Task, TaskStream, class_order, task_sizes
from .wa import WeightAligning

__all__ = [
    "DER",
    "EEIL",
    "HDQT_SEEDS",
    "LUCIR",
    "MEMO",
    "PRESETS",
    "BiC",
    "ExemplarMemory",
    "ExperienceReplay",
    "Finetune",
    "GDumb",
    "GreedyMemory",
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
    "auxiliary_labels",
    "class_order",
    "find_learner",
    "fit_bias",
    "head_distillation_loss",
    "herding",
    "icarl_bce_loss",
    "kd_loss",
    "learner",
    "learner_names",
    "less_forget_loss",
    "margin_ranking_loss",
    "load_checkpoint",
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
