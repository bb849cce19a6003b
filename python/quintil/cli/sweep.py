"""Many runs side by side: every data set with every learner, every scheme and every seed, and one report at the end.

The options are those of `quintil train`; --dataset, --method and --quant take several values each:

  quintil sweep --dataset digits --method icarl bic --quant none hdqt --epochs 5       # a first look, no data needed
  quintil sweep --dataset dsads hapt --data_root DIR --method icarl wa bic --quant none hdqt hdqt-paper --seed 1 2 3
  quintil sweep --preset pycil-b0-inc10 --data_root DIR --method finetune icarl bic --workers 4 --dry-run
  quintil sweep --config sweep.yaml                           # dataset: [dsads, hapt], method: [icarl, bic], ...
  quintil sweep --dataset dsads --method icarl --quant none hdqt --ray-address auto    # on a Ray cluster

Every data set starts from the preset that fits it unless --preset names one for all. Options of a scheme (--bits 5)
concern the runs that have one, everything else concerns all runs. A learner in two variants is two sweeps with two
--exp_name: runs of one data set, learner and scheme share a folder.

Everything is checked before the first job: options, files, tasks, folders. Then each seed is a job in a process of its
own. A job that fails stops no other. Repeat the command to go on: finished seeds are kept, begun ones go on after
their last finished task. Results do not depend on --workers; where they must be comparable to the last bit with
those of `quintil train`, give both the same --threads.

Results: as `quintil train` leaves them, in <results_dir>/<exp_name>; report.md and report.html there hold every
finished run of the experiment. Exit status: 0, 1 if a job failed, 2 for options or data that cannot be used, 130
after Ctrl-C.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from quintil import report
from quintil.continual import Job, RunConfig, SweepError, scheme_label, sweep
from quintil.continual.arguments import config_from, notes
from quintil.continual.console import summary_line
from quintil.continual.rundir import SeedDirectory
from quintil.continual.sweep import default_workers
from quintil.continual.sweep_plan import plan_sweep
from quintil.continual.train import USER_ERRORS, finished_runs, run_options

from .options import RunParser
from .train import base_config, preset_parser

Plan = Mapping[Job, SeedDirectory]


def parser() -> RunParser:
    made = preset_parser("quintil sweep", __doc__)
    group = made.add_argument_group("sweep")
    group.add_argument(
        "--workers", type=_positive, metavar="N",
        help="processes side by side (default: processor cores / --threads; on Ray: as many as fit its processors)",
    )  # fmt: skip
    group.add_argument(
        "--ray-address", "--ray_address", metavar="ADDRESS",
        help="run on Ray: local starts it on this machine, auto or an address joins a cluster, whose nodes must see "
        "the same folders (give --data_root and --results_dir as absolute paths)",
    )  # fmt: skip
    group.add_argument("--dry-run", "--dry_run", action="store_true", help="check everything, list the jobs, and end")
    made.add_run_arguments(several=("dataset", "method", "quant"))
    made.set_defaults(dataset=[None], method=[None], quant=["none"], threads=1)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    options = run_options(args)
    try:
        configs = configs_of(args)
        plan = plan_sweep(configs, **{name: value for name, value in options.items() if name != "resume"})
        again = args.force or args.start_from is not None
        todo = [job for job, folder in plan.items() if again or not folder.finished]
        print("\n".join([*notes(args), *_plan_lines(args, plan, todo)]), flush=True)
        if args.dry_run:
            print("\n".join(_job_lines(plan, todo)))
            return 0
        failed = _run(args, configs, todo, options)
        _report(next(iter(plan.values())).path.parents[1])
    except KeyboardInterrupt:
        print("\nstopped; finished seeds and tasks are kept, the same command goes on from here", file=sys.stderr)
        return 130
    except USER_ERRORS as error:
        where = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        print(f"error: {error}{where}", file=sys.stderr)
        return 2
    if failed is not None:
        print(f"error: {failed}", file=sys.stderr)
        return 1
    return 0


def configs_of(args: argparse.Namespace) -> list[RunConfig]:
    """One configuration for every data set, learner and scheme, in this order; ValueError for unfit options."""
    all_float = {"none", "noq"}.issuperset(args.quant)
    configs = []
    for dataset, method, quant in itertools.product(args.dataset, args.method, args.quant):
        one = argparse.Namespace(**{**vars(args), "dataset": dataset, "method": method, "quant": quant})
        if quant == "none" and not all_float:
            one.quant = "noq"  # which leaves the options of a scheme to the runs that have one
        configs.append(config_from(one, base_config(dataset, name=args.preset, method=method)))
    return configs


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


# What is shown ------------------------------------------------------------------------------------------------------


def _plan_lines(args: argparse.Namespace, plan: Plan, todo: Sequence[Job]) -> list[str]:
    configs = list(dict.fromkeys(job.config for job in plan))
    done = len(plan) - len(todo)
    finished = f", {done} finished already" if done else ""
    axes = {
        "data sets": (config.dataset for config in configs),
        "learners": (config.method for config in configs),
        "schemes": (scheme_label(config.scheme) for config in configs),
        "seeds": (str(job.seed) for job in plan),
    }
    lines = [f"sweep  {_counted(len(configs), 'configuration')}, {_counted(len(plan), 'job')}{finished}"]
    lines += [f"  {name:<10}{', '.join(dict.fromkeys(values))}" for name, values in axes.items()]
    threads, cores = args.threads, os.cpu_count() or 1
    each = f"{_counted(threads, 'thread')} each"
    if args.ray_address:
        lines.append(f"  workers   Ray at {args.ray_address}, {each}")
    else:
        workers = args.workers or default_workers(threads)
        lines.append(f"  workers   {workers}, {each}, on {cores} cores")
        if workers * threads > cores:
            lines.append(
                f"  note: {workers} x {threads} threads on {cores} cores wait for each other; fewer are likely faster"
            )
    return [*lines, f"  results   {next(iter(plan.values())).path.parents[1]}"]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _job_lines(plan: Plan, todo: Sequence[Job]) -> list[str]:
    states = {job: "begun" if folder.path.is_dir() else "new" for job, folder in plan.items()}
    states |= {job: "again" for job in todo if plan[job].finished}
    states |= {job: "finished" for job in plan.keys() - set(todo)}
    return [f"  {states[job]:<10}{job}" for job in plan]


class _Progress:
    """A bar over the jobs that had something to do, and a line for each when it ended."""

    def __init__(self, todo: Sequence[Job]):
        self.todo, self.ended = set(todo), 0
        self.bar = tqdm(total=len(todo), unit="job", dynamic_ncols=True, leave=False, disable=None)

    def __call__(self, job: Job, result: Path | BaseException) -> None:
        if job not in self.todo:
            return
        self.ended += 1
        self.bar.update()
        if isinstance(result, BaseException):
            said = f"failed: {type(result).__name__}: {result}"
        elif SeedDirectory(result).finished:
            said = summary_line(json.loads((result / "summary.json").read_text(encoding="utf-8")))
        else:
            said = "stopped as asked; without --stop_after the command goes on"
        tqdm.write(f"{self.ended}/{len(self.todo)}  {job}  {said}", file=sys.stdout)
        sys.stdout.flush()  # a log file shows how far it is


def _run(
    args: argparse.Namespace, configs: Sequence[RunConfig], todo: Sequence[Job], options: dict
) -> SweepError | None:
    """Run the jobs; returns what failed."""
    progress = _Progress(todo)
    where = {"workers": args.workers, "threads": args.threads, "ray_address": args.ray_address}
    try:
        sweep(configs, **where, on_job=progress, **options)
    except SweepError as error:
        return error
    finally:
        progress.bar.close()
    return None


def _report(experiment: Path) -> None:
    runs = finished_runs(experiment) if experiment.is_dir() else []
    if runs:
        page = report.write_report([run.path for run in runs], experiment)
        print(f"\n{report.plain_table(runs)}\n\nreport: {page.with_suffix('.html')}, {page}")
