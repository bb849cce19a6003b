"""Train one network for several bit widths, to be switched at run time [Double Rounding].

The method has three stages, each starting from the folder RUN of the one before. The first may be left out; the third
is for widths that differ between layers:

  python scripts/train_double_rounding.py --stage float --dataset cifar100 --data_root DIR --epochs 200
  python scripts/train_double_rounding.py --stage multi --start RUN --data_root DIR --bits 8,6,4,2
  python scripts/train_double_rounding.py --stage mixed --start RUN --data_root DIR --bits 8,6,4,2
  python scripts/search_bits.py RUN --mean_bits 3 4 5                         # widths per layer, without training

  python scripts/train_double_rounding.py --smoke                             # a minute on generated images
  python scripts/train_double_rounding.py --dataset photos:DIR --model resnet18    # DIR/{train,val}/<class>/

In the stage multi every batch runs at all widths, from the highest to the lowest, with an optimiser step after each;
the quantiser steps have a learning rate per width. In the stage mixed layers are redrawn at random, more of them from
epoch to epoch, sensitive ones at higher widths (--sampling hasb, from the traces that a float stage leaves behind).
The highest width's integers are all that a trained network needs to keep.

Results: <results_dir>/<exp_name>/<data>_<model>_<stage>_<method>_w<widths>/seed<k>/ with config.json, log.jsonl,
summary.json (accuracy by width) and last.pt. A finished run is kept when the command is repeated, a stopped one goes
on after its last epoch. --method trains other methods in the same harness:
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from quintil.bits import BASELINES, SwitchConfig, baseline
from quintil.schemes import DoubleRounding

from . import stage_command
from .stage_command import FOLDER_FIELDS, add_folder_options
from .width_config import MODELS, STAGES, WidthRun
from .width_run import train_widths

_CHOICES = {
    "update": ("joint", "conventional"),
    "lr_mode": ("multi_lr", "alrs_rel", "alrs_literal", "multi_lr_code", "none"),
    "distillation": ("none", "previous_epoch", "recursive"),
    "sampling": ("same", "hasb", "uniform"),
}


def widths(text: str) -> tuple[int, ...]:
    """'8,6,4,2' as integers."""
    try:
        return tuple(int(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected integers such as 8,6,4,2, got {text!r}") from None


def parser() -> argparse.ArgumentParser:
    methods = "\n".join(f"  {name:<16} {text}" for name, text in BASELINES.items())
    made = argparse.ArgumentParser(
        description=f"{__doc__}\n{methods}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options]",
    )
    made.add_argument("--smoke", action="store_true", help="two epochs of ResNet-20 on generated images, {8,4,2}")
    _add_run_options(made.add_argument_group("run"))
    _add_method_options(made.add_argument_group("method"))
    _add_training_options(made.add_argument_group("training"))
    return made


def _add_run_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dataset", default="cifar100", help="cifar100, digits, custom:DIR, photos:DIR, synthetic:cifar"
    )
    group.add_argument("--model", default="resnet20", choices=MODELS, help="default: resnet20")
    group.add_argument("--stage", default="multi", choices=STAGES, help="default: multi")
    add_folder_options(group, "widths")
    group.add_argument("--workers", type=int, default=0, help="processes that read photographs (default: 0)")
    group.add_argument("--image_size", type=int, default=224, help="of photographs (default: 224)")


def _add_method_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--bits", type=widths, default=(8, 6, 4, 2), metavar="B,B", help="widths (default: 8,6,4,2)")
    group.add_argument("--method", default="double_rounding", choices=BASELINES, help="default: double_rounding")
    group.add_argument("--paper", action="store_true", help="gradients and steps as in the authors' code")
    group.add_argument("--activation_offset", action="store_true", help="a learned offset per input (MobileNetV2)")
    group.add_argument("--per_tensor", action="store_true", help="one weight step per layer, not per channel")
    group.add_argument("--weight_init", default="lsq", choices=("lsq", "vecq"), help="where steps start (default: lsq)")


def _add_training_options(group: argparse._ArgumentGroup) -> None:
    own = "(default: the stage's and method's own)"
    group.add_argument("--epochs", type=int, help="default: 200, photographs 90")
    group.add_argument("--batch_size", type=int, help="default: 128, photographs 256")
    group.add_argument("--lr", type=float, help="default: 5e-4, stage mixed 1e-5")
    group.add_argument("--weight_decay", type=float, help="default: 5e-5, stage mixed 1e-5")
    for name, choices in _CHOICES.items():
        group.add_argument(f"--{name}", choices=choices, help=own)
    group.add_argument("--sigma", type=float, help="largest share of redrawn layers (default: 0.5)")
    group.add_argument("--mix_warmup", type=int, help="first epochs without redrawn layers (default: 10)")
    group.add_argument("--trace_images", type=int, default=1024, help="of a float stage's traces (default: 1024)")
    group.add_argument("--trace_draws", type=int, default=30, help="at most so many random vectors (default: 30)")


def run_from(args: argparse.Namespace, seed: int) -> WidthRun:
    """The run of one seed that the options describe; ValueError for values that do not fit together."""
    photos = args.dataset.startswith("photos:")
    fields = {"activation_offset": args.activation_offset, "per_channel": not args.per_tensor,
              "weight_init": args.weight_init}  # fmt: skip
    scheme = dataclasses.replace(DoubleRounding.paper() if args.paper else DoubleRounding(), bits=args.bits, **fields)
    training = SwitchConfig.paper() if args.paper else SwitchConfig()
    training = dataclasses.replace(training, epochs=90 if photos else 200)
    if args.stage == "mixed":
        scheme = dataclasses.replace(scheme, transitional_norm=True)
        training = dataclasses.replace(training, lr=1e-5, weight_decay=1e-5, sampling="hasb")
    if args.stage != "float":
        scheme, training = baseline(args.method, scheme, training)
    names = ("epochs", "lr", "weight_decay", "sigma", "mix_warmup", *_CHOICES)
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    batch_size = args.batch_size if args.batch_size is not None else (256 if photos else 128)
    shared = ("dataset", "model", "stage", "method", "start", "workers", "image_size", "trace_images", "trace_draws",
              *FOLDER_FIELDS)  # fmt: skip
    return WidthRun(
        scheme=scheme,
        training=dataclasses.replace(training, **given),
        batch_size=batch_size,
        seed=seed,
        **{name: getattr(args, name) for name in shared},
    )


_SMOKE = {"dataset": "synthetic:cifar", "epochs": 2, "batch_size": 40, "limit_batches": 3, "bits": (8, 4, 2),
          "exp_name": "smoke", "mix_warmup": 0, "trace_images": 40, "trace_draws": 2}  # fmt: skip


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    return stage_command.parsed(parser(), arguments, _SMOKE)


def main(arguments: Sequence[str] | None = None) -> int:
    return stage_command.train_seeds(parsed(arguments), run_from, train_widths, _plan)


def _plan(run: WidthRun) -> tuple[str, str]:
    what = run.stage if run.stage == "float" else f"{run.stage}, {run.method}, {run.scheme.summary()}"
    training = run.training
    return what, f"{training.epochs} epochs, batch {run.batch_size}, Adam lr {training.lr:g}, seed {run.seed}"
