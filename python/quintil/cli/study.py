"""Studies of the arithmetic: each asks one question, trains arms that differ in one thing, and ends in a table and a
picture, with mean ± standard deviation over the same seeds.

  quintil study hadamard-ablation --quick --dataset digits         # a minute, no data needed
  quintil study accumulator-sweep --data_root DIR                  # DSADS, iCaRL, 5 seeds, the protocol's 100 epochs
  quintil study accumulator-sweep --data_root DIR --arms "8 bits*" --seeds 20
  quintil study har-table --data_root DIR --dataset hapt --learner icarl bic
  quintil study bit-sweep --data_root DIR --first_seed 5 --seeds 10 --pool docs/results/study_bit-sweep.json

@STUDIES@

Repeat a command after an interruption or a crash: finished seeds are kept, a begun one goes on after its last finished
task. Arms that two studies share are trained once. --quick is for a first look; its numbers mean little.

Results: <out>.md (the page), <out>.json (every number by seed), <out>.png and .svg; the runs lie in <results_dir>.
Exit status: 0, 1 if a run failed, 2 for options or data that cannot be used, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from quintil._library import active_isa
from quintil.continual import Job, RunConfig, SweepError, sweep
from quintil.continual.rundir import SeedDirectory, pretty, processor, quintil_version, write_atomic
from quintil.continual.sweep_plan import plan_sweep
from quintil.continual.train import USER_ERRORS
from quintil.experiments import (
    STUDIES,
    ArmResult,
    Cell,
    Study,
    as_json,
    cells,
    from_json,
    groups,
    markdown,
    pooled,
    result,
    rows,
)
from quintil.experiments import study as study_named
from quintil.experiments.collected import collect, draw_rows, table
from quintil.experiments.figure import draw_study
from quintil.metrics import read_run

_QUICK_EPOCHS, _QUICK_SEEDS = 10, 2


def parser() -> argparse.ArgumentParser:
    names = "\n".join(
        textwrap.fill(f"  {s.name:<22}{s.question}", 118, subsequent_indent=" " * 24) for s in STUDIES.values()
    )
    text = __doc__.replace("@STUDIES@", names)
    made = argparse.ArgumentParser(
        prog="quintil study", description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("name", metavar="NAME", help="one of the studies above")
    made.add_argument("--data_root", metavar="DIR", help="folder with the data sets (`quintil datasets`)")
    made.add_argument("--dataset", nargs="+", default=[], help="instead of the study's own")
    made.add_argument("--learner", "--method", nargs="+", default=[], help="instead of the study's own")
    made.add_argument("--arms", nargs="+", default=[], metavar="PATTERN", help="only arms that match, e.g. '8 bits*'")
    made.add_argument("--seeds", type=int, metavar="N", help="the first N of the protocol's seeds (the study's number)")
    made.add_argument("--first_seed", type=int, default=0, metavar="N", help="leave out the first N of them (0)")
    made.add_argument(
        "--quick", action="store_true", help=f"--epochs {_QUICK_EPOCHS} --seeds {_QUICK_SEEDS}, where not given"
    )
    made.add_argument("--epochs", type=int, metavar="N", help="per task, instead of the protocol's")
    made.add_argument("--validation", action="store_true", help="test on a part of the training side instead")
    made.add_argument("--pool", nargs="+", default=[], metavar="JSON", help="add the seeds of earlier results")
    made.add_argument("--workers", type=int, help="processes side by side (processor cores)")
    made.add_argument("--results_dir", default="runs/studies", help="folder of the runs (%(default)s)")
    made.add_argument("--out", metavar="PATH", help="results without ending (<results_dir>/<name>)")
    made.add_argument("--dry_run", "--dry-run", action="store_true", help="check everything, list the runs, and end")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(arguments)
    try:
        chosen = study_named(options.name).chosen(options.arms)
        earlier = [arm for path in options.pool for arm in from_json(json.loads(Path(path).read_text("utf-8")))]
        asked = _cells(chosen, options)
        plan = plan_sweep([cell.config for cell in asked])
        todo = [job for job, folder in plan.items() if not folder.finished]
        print(f"{chosen.name}: {len(plan)} runs, {len(plan) - len(todo)} finished\n  {chosen.question}", flush=True)
        if options.dry_run:
            names = _names(asked)
            print(
                "\n".join(f"  {_state(folder):<10}{names[job.config]}, seed {job.seed}" for job, folder in plan.items())
            )
            return 0
        failure = _train(asked, todo, options.workers)
        folders = {job.config: folder.path.parent for job, folder in plan.items() if folder.finished}
        if not chosen.measure:
            kept = [cell for cell in asked if cell.config in folders]
            found = [result(chosen, cell, read_run(folders[cell.config])) for cell in kept]
            _write_accuracies(chosen, pooled(found, earlier), failure, options, arguments)
        elif failure is None:
            _write_measures(chosen, asked, folders, options, arguments)
        if failure is not None:
            raise failure
    except KeyboardInterrupt:
        print("\nstopped; finished runs and tasks are kept, the same command goes on from here", file=sys.stderr)
        return 130
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (*USER_ERRORS, json.JSONDecodeError) as error:
        where = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        print(f"error: {error}{where}", file=sys.stderr)
        return 2
    return 0


def _cells(chosen: Study, options: argparse.Namespace) -> list[Cell]:
    own = {"results_dir": options.results_dir, "threads": 1}
    own |= {"validation": True} if options.validation else {}
    own |= {} if options.data_root is None else {"data_root": options.data_root}
    epochs = options.epochs if options.epochs is not None else _QUICK_EPOCHS if options.quick else None
    seeds = options.seeds if options.seeds is not None else _QUICK_SEEDS if options.quick else None
    return cells(
        chosen, datasets=options.dataset, learners=options.learner, seeds=seeds,
        first_seed=options.first_seed, epochs=epochs, **own,
    )  # fmt: skip


def _names(asked: Sequence[Cell]) -> dict[RunConfig, str]:
    return {cell.config: f"{cell.dataset} {cell.learner}, {cell.arm.label}" for cell in asked}


def _state(folder: SeedDirectory) -> str:
    return "finished" if folder.finished else "begun" if folder.path.is_dir() else "new"


def _train(asked: Sequence[Cell], todo: Sequence[Job], workers: int | None) -> SweepError | None:
    """Finish all runs, seeds outermost, so that an interrupted study has whole comparisons; returns what failed."""
    waiting, ended = set(todo), []
    names = _names(asked)
    with tqdm(total=len(todo), unit="run", dynamic_ncols=True, disable=None) as bar:

        def on_job(job: Job, outcome: Path | BaseException) -> None:
            if job in waiting:
                bar.update()
                said = "failed" if isinstance(outcome, BaseException) else _accuracy(outcome)
                ended.append(job)
                tqdm.write(f"{len(ended)}/{len(todo)}  {names[job.config]}, seed {job.seed}: {said}", file=sys.stdout)
                sys.stdout.flush()

        try:
            sweep([cell.config for cell in asked], workers=workers, on_job=on_job)
        except SweepError as error:
            return error
    return None


def _accuracy(folder: Path) -> str:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return f"last {summary['last_acc_cnn']:.2f}"


def _write_accuracies(
    chosen: Study,
    found: Sequence[ArmResult],
    failure: SweepError | None,
    options: argparse.Namespace,
    arguments: Sequence[str],
) -> None:
    """What finished; an arm of which nothing did is left out, and what failed is said at the foot of the page."""
    compared = [chosen.reference in [arm.label for arm in arms] for _, arms in groups(found)]
    if failure is not None and not (compared and all(compared)):
        raise failure
    failed = {} if failure is None else failure.failures
    tables = [(title, rows(chosen, arms)) for title, arms in groups(found)]
    facts = {**_facts(arguments), "failed": [f"{job}: {error}" for job, error in failed.items()]}
    _write(chosen, options, tables, as_json(chosen, found, facts), facts, lambda out: draw_study(chosen, found, out))


def _write_measures(
    chosen: Study,
    asked: Sequence[Cell],
    folders: Mapping[RunConfig, Path],
    options: argparse.Namespace,
    arguments: Sequence[str],
) -> None:
    """Look into the networks of every run; one table, and one set of files, per data set and learner."""
    facts = _facts(arguments)
    measured = {}
    with tqdm(unit="task", dynamic_ncols=True, disable=None) as bar:
        for cell in asked:
            own = collect(chosen, cell, folders[cell.config], bar.update)
            measured[f"{cell.dataset}, {cell.learner}"] = own
    tables = [(title, table(chosen, own)) for title, own in measured.items()]
    content = {"study": chosen.name, "question": chosen.question, "facts": facts, "measured": measured}
    first = next(iter(measured.values()))
    _write(chosen, options, tables, content, facts, lambda out: draw_rows(chosen, first, out))


def _write(
    chosen: Study,
    options: argparse.Namespace,
    tables: Sequence[tuple[str, list[list[str]]]],
    content: dict[str, Any],
    facts: dict[str, Any],
    draw: Callable[[Path], Path],
) -> None:
    """<out>.json, the picture, then the page."""
    out = Path(options.out or Path(options.results_dir) / chosen.name)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out.with_name(f"{out.name}.json"), pretty(content))
    picture = draw(out)
    machine = f"{facts['processor']}, instruction set {facts['isa']}, one thread a run"
    footer = f"`{facts['command']}`, {facts['date']}, {machine}."
    if facts.get("failed"):
        footer += f" Without {len(facts['failed'])} runs that failed: {'; '.join(facts['failed'])}."
    page = out.with_name(f"{out.name}.md")
    text = markdown(chosen, tables, picture=picture.name, footer=footer)
    write_atomic(page, text)
    print(f"\n{text}\nresults {page}, {out.name}.json\npicture {picture}")


def _facts(arguments: Sequence[str]) -> dict[str, Any]:
    words = [word for word in arguments if word]
    for place, word in enumerate(words[:-1]):
        if word == "--data_root":
            words[place + 1] = "DIR"
    return {
        "command": f"quintil study {shlex.join(words)}",
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "isa": active_isa(),
        "torch": torch.__version__,
        "version": quintil_version(),
    }
