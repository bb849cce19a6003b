"""What every training script does with its parsed options: plan, train, report, exit status."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from quintil import report
from quintil.metrics import RunResult, read_run

from . import distributed
from .arguments import config_from, notes
from .config import RunConfig
from .console import Console
from .run import run

#: What a run raises for options or data that cannot be used; everything else is a bug and keeps its traceback.
USER_ERRORS = (FloatingPointError, ImportError, NotImplementedError, OSError, TypeError, ValueError)


def train(args: argparse.Namespace, base: RunConfig) -> int:
    """Run the options of `arguments.add_arguments` on top of `base`; returns the exit status.

    Beside the run directory it writes report.md and the curves of all finished runs of the experiment. 130 after
    Ctrl-C (finished tasks and seeds are kept), 2 for options or data that cannot be used. Processes that `torchrun`
    started train together.
    """
    with distributed.launched_group():
        return _train(args, base)


def _train(args: argparse.Namespace, base: RunConfig) -> int:
    console = Console(quiet=distributed.rank() > 0)
    try:
        config = config_from(args, base)
        for note in notes(args) if distributed.rank() == 0 else ():
            console.write(note)
        path = run(config, console, **run_options(args))
        console.close()
        if distributed.rank():
            return 0
        runs = finished_runs(path.parent)
        page = report.write_report([run.path for run in runs], path.parent) if runs else None
    except KeyboardInterrupt:
        console.close()
        print("\nstopped; what is finished is kept, the same command goes on from here", file=sys.stderr)
        return 130
    except USER_ERRORS as error:
        console.close()
        process = f"process {distributed.rank()}: " if distributed.rank() else ""
        print(f"{process}error: {error}", file=sys.stderr)
        return 2
    if read_run(path).unfinished:
        console.write(f"\nstopped after task {args.stop_after} as asked; without --stop_after the command goes on")
    if page is None:
        console.write(f"\nresults: {path}")
        return 0
    console.write("\n" + report.plain_table(runs))
    console.write(f"\nresults: {path}\nreport and curves: {page}")
    return 0


def run_options(args: argparse.Namespace) -> dict:
    """What parsed options say about going on, as arguments of `run`."""
    names = ("force", "start_from", "stop_after")
    return {"resume": args.resume is not False, **{name: getattr(args, name) for name in names}}


def finished_runs(experiment: Path) -> list[RunResult]:
    """Runs of an experiment folder that have a finished seed."""
    folders = sorted(folder for folder in experiment.iterdir() if folder.is_dir())
    runs = [read_run(folder) for folder in folders if any(folder.glob("seed*/config.json"))]
    return [run for run in runs if run.seeds]
