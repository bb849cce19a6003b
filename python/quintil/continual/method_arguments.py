"""Command-line options that belong to single learners, a group each [CIL 2.8]."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Flag = Callable[..., None]


def add_method_arguments(parser: argparse.ArgumentParser, flag: Flag) -> None:
    """Add the groups; flag(group, *names, help=...) adds an option that takes true or false."""
    _add_growing_arguments(parser.add_argument_group("der and memo"), flag)


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
