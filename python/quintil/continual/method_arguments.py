"""Command-line options that belong to single learners, a group each [CIL 2.8, 2.9]."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Flag = Callable[..., None]


def add_method_arguments(parser: argparse.ArgumentParser, flag: Flag) -> None:
    """Add the groups; flag(group, *names, help=...) adds an option that takes true or false."""
    _add_growing_arguments(parser.add_argument_group("der and memo"), flag)
    _add_lucir_arguments(parser.add_argument_group("lucir"), flag)
    _add_eeil_arguments(parser.add_argument_group("eeil"), flag)


def _add_growing_arguments(group: Any, flag: Flag) -> None:
    group.add_argument(
        "--alpha_aux", type=float,
        help="weight of the auxiliary head, which makes the newest features tell new classes from each other and from "
        "all old ones (1)",
    )  # fmt: skip
    flag(
        group,
        "--train_base",
        help="memo: train the shared base after the first task too (false, as HDQT's authors; PyCIL: true)",
    )


def _add_lucir_arguments(group: Any, flag: Flag) -> None:
    flag(group, "--imprint_weights", help="start new head rows at the mean feature of their class (true)")
    flag(group, "--less_forget", help="keep the direction of the previous net's features, weight --lamda, 5 (true)")
    flag(group, "--mr_loss", help="keep exemplars a margin away from the nearest new classes (true)")
    group.add_argument("--lw_mr", type=float, help="weight of the margin ranking (1)")
    group.add_argument("--mr_margin", "--dist", type=float, help="margin between cosines (0.5)")
    group.add_argument("--mr_nearest", "--K", type=int, help="how many nearest new classes count (2)")
    group.add_argument(
        "--rs_ratio", type=float,
        help="least share of exemplars in an epoch, reached by drawing them repeatedly (0: every sample once)",
    )  # fmt: skip


def _add_eeil_arguments(group: Any, flag: Flag) -> None:
    group.add_argument(
        "--finetune_epochs", "--nepochs-finetuning", type=int,
        help="epochs on equally many samples of every class after the others; 0 leaves that phase out (40)",
    )  # fmt: skip
    group.add_argument(
        "--finetune_lr_factor", "--lr-finetuning-factor", type=float, help="their learning rate as a share of lr (0.01)"
    )
    flag(group, "--noise_grad", "--noise-grad", help="add noise N(0, 0.3 / (1 + step)^0.55) to the gradients")
