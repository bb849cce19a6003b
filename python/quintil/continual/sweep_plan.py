"""What a sweep is going to do, checked before its first job: hours later is too late for a wrong option."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quintil import data

from .config import RunConfig
from .run import check, data_options, prepare
from .rundir import SeedDirectory
from .sweep import Job, jobs_of


def plan_sweep(
    configs: Sequence[RunConfig],
    *,
    force: bool = False,
    start_from: int | None = None,
    stop_after: int | None = None,
) -> dict[Job, SeedDirectory]:
    """The jobs of a sweep in the order of `jobs_of`, each with its folder; trains and writes nothing.

    Loads every data set and builds every configuration's learner for its first seed. Whatever `run` would refuse is
    raised here, with a note that names the job: files that are not there, tasks or a memory that do not fit, a folder
    with other settings. ValueError for two configurations that would share a folder.
    """
    owners: dict[Path, Job] = {}
    loaded: tuple[dict, data.Dataset] | None = None  # configurations of one data set stand side by side
    for config in configs:
        job = Job(config, config.seeds[0])
        try:
            options = data_options(config, job.seed)
            if loaded is None or loaded[0] != options:
                loaded = options, data.load(**options)
            setup = prepare(config, job.seed, loaded[1])
            check(setup, force=force, start_from=start_from, stop_after=stop_after)
        except Exception as error:
            error.add_note(f"in {job}")
            raise
        path = config.directory(setup.learner.classes)
        if path in owners:
            raise ValueError(
                f"sweep: expected a folder of its own for every configuration, got {path} for two "
                f"({owners[path]} and {job})"
            )
        owners[path] = job
    folders = {job.config: path for path, job in owners.items()}
    return {job: SeedDirectory(folders[job.config] / f"seed{job.seed}") for job in jobs_of(configs)}
