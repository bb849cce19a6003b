"""Command-line options shared by every script, and their translation into a RunConfig [CIL 6].

Names are those most code bases of the field use; the HDQT authors' spellings are accepted as aliases. An option that
is not given keeps the value of the preset.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from quintil.metrics import FORMULAS

from .config import BIC_LAYERS, HEADS, MODELS, NORMS, SCHEDULERS, RunConfig
from .exemplars import POLICIES, SELECTIONS
from .method_arguments import add_method_arguments
from .registry import find_learner, learner_names
from .samples import BITS
from .scheme_arguments import add_scheme_arguments, scheme_from

_DATASET_ALIASES = {"pamap": "pamap2"}
_MODEL_ALIASES = {"memo_resnet32": "resnet32", "memo_fcnet": "fcnet"}
# An option for every task also replaces what the preset says about the first one.
_FIRST_TASK = {
    "epochs": "init_epoch", "lr": "init_lr", "milestones": "init_milestones", "lr_decay": "init_lr_decay",
    "weight_decay": "init_weight_decay",
}  # fmt: skip
_INACTIVE = (
    ("--quantUpdateP",), ("--quantUpdateLowThr",), ("--quantUpdateHighThr",), ("--quantReplaySize",),
    ("--quantCalibrate",), ("--num_workers", "-j"),
)  # fmt: skip


def parse_bool(text: str) -> bool:
    """true/false/1/0, nothing else: a plain `type=bool` would take the text "False" for true."""
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"expected true, false, 1 or 0, got {text!r}")
    return values[text.lower()]


class _IntegerList(argparse.Action):
    """Integers separated by spaces or commas; leading zeros are allowed, texts are refused."""

    def __call__(self, parser: Any, namespace: Any, values: Sequence[str], option_string: str | None = None) -> None:
        numbers = []
        for text in ",".join(values).replace("[", "").replace("]", "").split(","):
            if text.strip():
                try:
                    numbers.append(int(text))
                except ValueError:
                    parser.error(f"argument {option_string}: expected integers, got {text.strip()!r}")
        setattr(namespace, self.dest, tuple(numbers))


def metric_help() -> str:
    """Names and formulas of all metrics, for the end of a --help text."""
    width = max(map(len, FORMULAS)) + 2
    rows = [f"  {name:<{width}}{formula}" for name, formula in FORMULAS.items()]
    heading = "metrics (a[t,j]: accuracy on task j after task t; cnn = linear head, nme = nearest mean of exemplars):"
    return "\n".join([heading, *rows])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all options of a class-incremental run to a parser."""
    _add_task_arguments(parser.add_argument_group("data and tasks"))
    _add_memory_arguments(parser.add_argument_group("method and exemplar memory"))
    add_method_arguments(parser, _flag)
    _add_training_arguments(parser.add_argument_group("training"))
    _add_network_arguments(parser.add_argument_group("network"))
    add_scheme_arguments(parser.add_argument_group("quantisation"), _flag)
    for names in _INACTIVE:
        parser.add_argument(*names, help=argparse.SUPPRESS)
    _add_run_arguments(parser.add_argument_group("run"))


def _flag(group: Any, *names: str, help: str) -> None:
    group.add_argument(*names, type=parse_bool, nargs="?", const=True, metavar="BOOL", help=help)


def _add_task_arguments(group: Any) -> None:
    group.add_argument("--dataset", "--datasets", help="data set name; `quintil datasets` describes all")
    group.add_argument("--data_root", "--data-root", help="folder with the publisher's files")
    _flag(group, "--download", help="fetch absent files into the data root")
    group.add_argument("--features_file", help="ready feature table (.npz, .csv, .mat) instead of the original files")
    group.add_argument("--split", help="official | hdqt (persons drawn by the seed) | loso[:person] | subjects:JSON")
    _flag(group, "--validation", help="test on a part of the training side instead: for choosing settings")
    group.add_argument("--normalise", "--normalize", help="none | minmax_all | minmax_train | zscore_train")
    group.add_argument("--subjects_drop", nargs="*", action=_IntegerList, help="persons to leave out")
    group.add_argument("--classes_drop", nargs="*", action=_IntegerList, help="original class numbers to leave out")
    group.add_argument(
        "--init_cls", "-init", "--nc-first-task", "--nb_cl_fg", "--initial-increment", type=int,
        help="classes of the first task",
    )  # fmt: skip
    group.add_argument("--increment", "-incre", "--incre", "--nb_cl", type=int, help="classes of every later task")
    group.add_argument(
        "--seed", "-seed", "--random_seed", nargs="+", action=_IntegerList, dest="seeds", metavar="N",
        help="one run per seed; numbers like 01056 are read as 1056",
    )  # fmt: skip
    group.add_argument("--order_seed", type=int, help="seed of the class order (default: the run's seed)")
    group.add_argument("--class_order", help="icarl | identity | comma-separated class indices")
    _flag(group, "--shuffle", help="false: keep the classes in their own order")


def _add_memory_arguments(group: Any) -> None:
    known = ", ".join(learner_names())
    group.add_argument(
        "--method", "--model_name", "-model", "--approach", help=f"{known} (nocl = offline)"
    )  # fmt: skip
    group.add_argument(
        "--memory_size", "-ms", "--buffer_size", "--num-exemplars", "--memory", type=int,
        help="exemplars in total: floor(memory_size / seen classes) per class",
    )  # fmt: skip
    group.add_argument(
        "--memory_per_class", "--num-exemplars-per-class", "--nb_protos", type=int,
        help="exemplars of every class; the memory grows with the classes",
    )  # fmt: skip
    group.add_argument("--memory_policy", choices=POLICIES, help="what memory_size counts")
    _flag(
        group,
        "--fixed_memory",
        help="another name of --memory_policy per_class (fixed per class, growing total)",
    )
    group.add_argument(
        "--exemplar_selection", "--exemplar-selection", choices=SELECTIONS,
        help="herding and random choose per class (herding: their mean stays close to the class mean); reservoir is a "
        "uniform sample of everything seen (er always has one, filled while it trains)",
    )  # fmt: skip
    group.add_argument(
        "--minibatch_size", type=int,
        help="er: memory samples added to the batch of new data at every step (batch_size)",
    )  # fmt: skip
    group.add_argument(
        "--exemplar_bits", type=int, choices=BITS,
        help="store float exemplars as 8- or 4-bit codes with one scale each (images stay bytes)",
    )  # fmt: skip
    group.add_argument("--T", "--temperature", type=float, help="temperature of the distillation (2)")
    group.add_argument(
        "--lamda", "--lambda_kd", "--lamb", type=float,
        help="weight of the distillation (icarl 1, lwf 3; wa and bic: share of old classes, given ones in 0..1)",
    )  # fmt: skip
    _flag(group, "--kd_tau2", help="multiply the distillation by T^2")
    _flag(
        group,
        "--all_outputs",
        help="fine-tuning: cross-entropy over all seen classes instead of the new ones",
    )
    group.add_argument(
        "--split_ratio", type=float,
        help="bic: share of the memory set aside for validation, never trained on (0.1)",
    )  # fmt: skip
    group.add_argument(
        "--bic_layers", choices=BIC_LAYERS,
        help="bic: correct the newest classes only (one, the paper), or keep every task's correction (per_task)",
    )  # fmt: skip
    group.add_argument("--bic_epochs", type=int, help="bic: epochs of the two-parameter fit after each task (200)")
    _flag(
        group,
        "--bic_compat",
        help="bic as in the HDQT authors' code: per_task, softmax taken twice, validation samples drawn anew from the "
        "exemplars, network in training mode; to repeat their tables, otherwise worse",
    )
    _flag(group, "--bic_compat_double_softmax", help="bic: only the softmax taken twice, to see what it does")


def _add_training_arguments(group: Any) -> None:
    both = "; every task unless the init_ option is given"
    group.add_argument("--epochs", "--num-epochs", type=int, help=f"epochs per task{both}")
    group.add_argument("--init_epoch", type=int, help="epochs of the first task")
    group.add_argument("--lr", "--lrate", type=float, help=f"learning rate{both}")
    group.add_argument("--init_lr", type=float, help="learning rate of the first task")
    for name, what in (
        ("--milestones", f"epochs at which the rate falls{both}"),
        ("--init_milestones", "first task"),
    ):
        group.add_argument(name, nargs="*", action=_IntegerList, metavar="N", help=what)
    group.add_argument("--lr_decay", type=float, help=f"factor at each milestone{both}")
    group.add_argument("--init_lr_decay", type=float, help="first task")
    group.add_argument("--weight_decay", type=float, help=f"weight decay{both}")
    group.add_argument("--init_weight_decay", type=float, help="first task")
    group.add_argument("--momentum", type=float, help="momentum of SGD (0.9)")
    group.add_argument("--batch_size", type=int, help="samples per step")
    group.add_argument(
        "--scheduler", choices=SCHEDULERS, help="steplr: fall at the milestones; cosine: to 0 over each task (steplr)"
    )
    _flag(
        group,
        "--hdqt_compat_lr",
        help="constant rate, as the authors' text milestones gave: clears all milestones",
    )


def _add_network_arguments(group: Any) -> None:
    group.add_argument(
        "--model", "--model_type", "-net", "--network", "--convnet_type", "--backbone",
        choices=(*MODELS, *_MODEL_ALIASES), help="default: resnet32 for RGB images, else fcnet",
    )  # fmt: skip
    group.add_argument("--in_dim", type=int, help="values per sample, checked against the data")
    group.add_argument("--fc_hid_dim", type=int, help="hidden width of fcnet (default: its input) or lstm (64)")
    group.add_argument("--fc_nr_hid", type=int, help="further hidden layers of fcnet")
    _flag(group, "--half_dims", help="fcnet with half the widths")
    group.add_argument(
        "--head", choices=HEADS,
        help="linear: w f; cosine: sigma cos(w, f), whose scale cannot favour new classes (linear; lucir: cosine)",
    )  # fmt: skip
    _flag(group, "--bias", help="linear classifier with bias")
    group.add_argument("--norm", choices=NORMS, help="normalisation inside fcnet")


def _add_run_arguments(group: Any) -> None:
    group.add_argument("--results_dir", help="folder for all results (runs)")
    group.add_argument("--exp_name", "--prefix", "-p", help="experiment folder inside it")
    group.add_argument("--threads", type=int, help="torch threads")
    _flag(group, "--fuse", help="convolution, BatchNorm, residual and ReLU in one op, for --quant hdqt: less memory")
    group.add_argument(
        "--bit_widths", nargs="+", action=_IntegerList, metavar="B",
        help="after each task also test a copy of the net at these widths, e.g. 8,6,4,2",
    )  # fmt: skip
    group.add_argument("--width_epochs", type=int, help="epochs that train that copy towards the net's logits (0)")
    group.add_argument("--eval_every", type=int, help="also test every so many epochs (0: after each task only)")
    group.add_argument("--limit_batches", type=int, help="stop each epoch after so many batches (0: whole epochs)")
    _flag(group, "--hdqt_rounding", help="forgetting_class_best rounded to two digits as in the authors' code")
    group.add_argument(
        "--save_checkpoint", "--savecheck", choices=("none", "last", "task"),
        help="last (default): ckpt/last.pt, replaced after every task and on Ctrl-C; task: also ckpt/task<t>.pt of "
        "every task; none: an interrupted seed starts again",
    )  # fmt: skip
    _flag(group, "--self_contained", help="checkpoints hold the exemplars themselves, not only their places")
    _flag(
        group,
        "--resume",
        "--loadcheck",
        help="an unfinished seed goes on after its newest checkpoint, with the bytes of an uninterrupted run "
        "(default true; false: it starts again)",
    )
    group.add_argument(
        "--start_from", type=int, metavar="TASK",
        help="train from this task on (1, 2, ...), from the checkpoint kept of the task before it",
    )  # fmt: skip
    group.add_argument(
        "--stop_after", type=int, metavar="TASK", help="end every seed after this task; the same command goes on"
    )  # fmt: skip
    group.add_argument("--force", action="store_true", help="train again even where a seed is finished")
    group.add_argument("--device", "-d", "--gpu", default="cpu", help="cpu (or -1)")


def config_from(args: argparse.Namespace, preset: RunConfig) -> RunConfig:
    """The configuration of parsed options on top of a preset; ValueError for combinations that make no sense."""
    if args.device not in ("cpu", "-1"):
        raise NotImplementedError(f"config_from: expected device to be cpu, got {args.device!r}")
    names = {field.name for field in dataclasses.fields(RunConfig)} - {"scheme", "skip", "class_order"}
    changes = {name: value for name, value in vars(args).items() if name in names and value is not None}
    for both, first in _FIRST_TASK.items():
        if both in changes:
            changes.setdefault(first, None)
    changes |= _task_changes(args) | _memory_changes(args, preset)
    if args.hdqt_compat_lr:
        changes |= {"milestones": (), "init_milestones": None}
    changes["scheme"] = scheme_from(args)
    return preset.replace(**changes)


def _task_changes(args: argparse.Namespace) -> dict:
    changes: dict[str, Any] = {}
    if args.dataset is not None:
        changes["dataset"] = _DATASET_ALIASES.get(args.dataset, args.dataset)
    if args.method is not None:
        changes["method"] = find_learner(args.method).name
    if args.model is not None:
        changes["model"] = _MODEL_ALIASES.get(args.model, args.model)
    if args.class_order in ("icarl", "identity"):
        changes["class_order"] = args.class_order
    elif args.class_order is not None:
        try:
            changes["class_order"] = tuple(int(text) for text in args.class_order.split(","))
        except ValueError:
            raise ValueError(
                f"config_from: expected class_order to be icarl, identity or integers, got {args.class_order!r}"
            ) from None
    elif args.shuffle is False:
        changes["class_order"] = "identity"
    return changes


def _memory_changes(args: argparse.Namespace, preset: RunConfig) -> dict:
    per_class = args.memory_per_class is not None
    if per_class and (args.memory_size is not None or args.memory_policy == "total"):
        raise ValueError("config_from: expected memory_per_class without memory_size or memory_policy total, got both")
    if per_class:
        return {"memory_size": args.memory_per_class, "memory_policy": "per_class"}
    if args.fixed_memory:
        return {"memory_policy": "per_class"}
    return {}


def notes(args: argparse.Namespace) -> list[str]:
    """Sentences to print before the plan: active compatibility switches and options that do nothing here."""
    lines = []
    if args.fixed_memory:
        lines.append("note: fixed_memory means a fixed number per class, so the total grows with the classes")
    for switch in ("hdqt_compat_lr", "hdqt_rounding", "paper_compat", "bic_compat", "bic_compat_double_softmax"):
        if getattr(args, switch):
            lines.append(f"note: compatibility switch --{switch} is on")
    for option, *_ in _INACTIVE:
        if getattr(args, option.lstrip("-")) is not None:
            lines.append(f"note: {option} is accepted and has no effect")
    return lines
