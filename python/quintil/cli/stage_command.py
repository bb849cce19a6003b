"""What the commands that train stages share: options of a run, --smoke, and seeds one after the other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tqdm import tqdm


def add_folder_options(group: argparse._ArgumentGroup, exp_name: str) -> None:
    """Options of every run: where it starts, what it is bounded by, where it is left."""
    group.add_argument("--data_root", metavar="DIR", help="folder of the publishers' files")
    group.add_argument("--start", metavar="RUN", help="folder or checkpoint of an earlier stage")
    group.add_argument("--seed", type=int, nargs="+", default=[0], help="one run each (default: 0)")
    group.add_argument("--threads", type=int, help="torch threads (default: as set)")
    group.add_argument("--limit_batches", type=int, default=0, help="first ones of epoch and test (default: all)")
    group.add_argument("--test_every", type=int, default=1, help="epochs from one test to the next (default: 1)")
    group.add_argument("--results_dir", default="runs", help="default: runs")
    group.add_argument("--exp_name", default=exp_name, help=f"default: {exp_name}")
    group.add_argument("--force", action="store_true", help="train a run again that is there already")


FOLDER_FIELDS = ("data_root", "threads", "limit_batches", "test_every", "results_dir", "exp_name")  # as they are


def parsed(
    made: argparse.ArgumentParser, arguments: Sequence[str] | None, smoke: Mapping[str, Any]
) -> argparse.Namespace:
    """The options, with those of `smoke` under --smoke in the place of options that were not given."""
    args = made.parse_args(arguments)
    if args.smoke:
        defaults = made.parse_args([])
        for name, value in smoke.items():
            if getattr(args, name) == getattr(defaults, name):
                setattr(args, name, value)
    return args


def train_seeds(
    args: argparse.Namespace,
    run_from: Callable[[argparse.Namespace, int], Any],
    train: Callable[..., dict],
    plan: Callable[[Any], Sequence[str]],
) -> int:
    """Train the run of every seed and say how it goes; the exit status: 1 for what cannot be run, 130 after Ctrl-C."""
    try:
        for seed in args.seed:
            _train_one(run_from(args, seed), train, plan, args.force)
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; repeat the command to go on after the last whole epoch", file=sys.stderr)
        return 130
    return 0


def _train_one(run: Any, train: Callable[..., dict], plan: Callable[[Any], Sequence[str]], force: bool) -> None:
    first, *more = plan(run)
    print(f"plan  {run.dataset}, {run.model}, {first}")
    for line in (*more, f"results {run.folder}"):
        print(f"  {line}")
    with tqdm(total=run.training.epochs, desc=f"seed {run.seed}", unit="epoch", leave=False, disable=None) as bar:

        def told(row: dict) -> None:
            bar.update(row["epoch"] - bar.n)
            text = _accuracies(row.get("accuracy", {}))
            tqdm.write(f"epoch {row['epoch']:<4} loss {sum(row['loss'].values()) / len(row['loss']):.3f}  {text}")

        summary = train(run, force=force, on_epoch=told)
    print(f"seed {run.seed}  accuracy  {_accuracies(summary['accuracy'])}")


def _accuracies(by_width: Mapping[str, float]) -> str:
    return "  ".join(f"w{width} {accuracy:.2f}" for width, accuracy in by_width.items())
