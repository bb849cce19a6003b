"""Quantise a network to few bits, with or without training [VecQ].

Three stages; 'vecq' and 'post' start from the folder RUN of a float stage (RUN without seed<k>: that of each seed), a
float stage with --start trains on from there, to compare with:

  python scripts/train_vecq.py --stage float --dataset mnist --data_root DIR --epochs 10
  python scripts/train_vecq.py --stage vecq --start RUN --data_root DIR --weight_bits 2 --activation_bits 8
  python scripts/train_vecq.py --stage post --start RUN --data_root DIR --weight_bits 8     # weights only, no data
  python scripts/train_vecq.py --stage post --start RUN --data_root DIR --weight_bits 8 --activation_bits 8

  python scripts/train_vecq.py --model cnn_lstm --dataset imdb --stage float --epochs 2 --lr 1e-3
  python scripts/train_vecq.py --model vgg_like --dataset cifar100 --data_root DIR --stage float
  python scripts/train_vecq.py --smoke                                        # a minute on generated images

Every weight and bias is quantised, those of the first and last layer too; an LSTM's input, output and final states are
quantised with the activations. In the stage vecq every forward quantises anew, and float32 weights learn
(straight-through). The stage post measures activations on --calibration training samples; there an LSTM's biases, ones
of forget gates among numbers near 0, may cost everything at a few bits, and --float_bias keeps them.

Results: <results_dir>/<exp_name>/<data>_<model>_<stage>_w<bits>a<bits>/seed<k>/ with config.json, log.jsonl and last.pt
(where there are epochs), model.safetensors, summary.json (accuracy, bytes of that file). Other options of VecQ stand
behind the bits: _w2a8_per_channel_ul2q. A finished run is kept when the command is repeated, a stopped one goes on
after its last epoch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from quintil.bits import SwitchConfig
from quintil.schemes import VecQ
from quintil.schemes.vecq import ACTIVATION_PLACES

from . import stage_command
from .stage_command import FOLDER_FIELDS, add_folder_options
from .vecq_config import MODELS, STAGES, VecQRun
from .vecq_run import train_vecq


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage="%(prog)s [options]"
    )
    made.add_argument("--smoke", action="store_true", help="two epochs of the VGG-like net on generated images")
    run = made.add_argument_group("run")
    run.add_argument(
        "--dataset", default="mnist", help="mnist, imdb, cifar100, digits, synthetic:cifar (default: mnist)"
    )
    run.add_argument("--model", default="lenet5", choices=MODELS, help="default: lenet5")
    run.add_argument("--stage", default="vecq", choices=STAGES, help="default: vecq")
    add_folder_options(run, "vecq")
    _add_scheme_options(made.add_argument_group("VecQ"))
    training = made.add_argument_group("training")
    training.add_argument("--epochs", type=int, default=10, help="default: 10")
    training.add_argument("--batch_size", type=int, default=128, help="default: 128")
    training.add_argument("--lr", type=float, help="of Adam, falls to 0 by a cosine (default: float 1e-3, vecq 5e-4)")
    training.add_argument("--weight_decay", type=float, default=0.0, help="of layers' weights (default: 0)")
    training.add_argument("--validation", action="store_true", help="test on a part of the training side instead")
    training.add_argument("--calibration", type=int, default=2048, help="samples of the stage post (default: 2048)")
    return made


def _add_scheme_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--weight_bits", type=int, default=4, help="1 to 16 (default: 4)")
    group.add_argument("--activation_bits", type=int, help="1 to 16 (default: float32)")
    group.add_argument("--activation_place", default="input", choices=ACTIVATION_PLACES, help="default: input")
    group.add_argument("--lambda_mode", default="table", choices=("table", "search"), help="default: table")
    group.add_argument("--levels", default="vecq", choices=("vecq", "ul2q"), help="default: vecq")
    group.add_argument("--per_channel", action="store_true", help="a length per output, not per weight")
    group.add_argument("--float_bias", action="store_true", help="leave biases in float32")
    group.add_argument("--ema_debias", action="store_true", help="correct running averages for their start at 1")


def run_from(args: argparse.Namespace, seed: int) -> VecQRun:
    """The run of one seed that the options describe; ValueError for values that do not fit together."""
    post = args.stage == "post"
    names = ("weight_bits", "activation_bits", "activation_place", "lambda_mode", "levels", "per_channel")
    scheme = VecQ(
        **{name: getattr(args, name) for name in names},
        quantize_bias=not args.float_bias,
        ema_debias=args.ema_debias or post,  # a few batches leave much of the start
    )
    lr = args.lr if args.lr is not None else (1e-3 if args.stage == "float" else 5e-4)
    training = SwitchConfig(epochs=args.epochs, lr=lr, weight_decay=args.weight_decay)
    start = args.start
    if start is not None and (Path(start) / f"seed{seed}").is_dir():
        start = str(Path(start) / f"seed{seed}")
    shared = ("dataset", "model", "stage", "batch_size", "calibration", "validation", *FOLDER_FIELDS)
    fields = {name: getattr(args, name) for name in shared}
    return VecQRun(scheme=scheme, training=training, seed=seed, start=start, **fields)


_SMOKE = {"dataset": "synthetic:cifar", "model": "vgg_like", "epochs": 2, "batch_size": 16, "limit_batches": 2,
          "exp_name": "smoke", "activation_bits": 8}  # fmt: skip


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    return stage_command.parsed(parser(), arguments, _SMOKE)


def main(arguments: Sequence[str] | None = None) -> int:
    return stage_command.train_seeds(parsed(arguments), run_from, train_vecq, _plan)


def _plan(run: VecQRun) -> tuple[str, ...]:
    if run.stage == "post":
        return f"post-training, {run.scheme.summary()}", f"from {run.start}, seed {run.seed}"
    what = run.stage if run.stage == "float" else f"{run.stage}, {run.scheme.summary()}"
    training = run.training
    return what, f"{training.epochs} epochs, batch {run.batch_size}, Adam lr {training.lr:g}, seed {run.seed}"
