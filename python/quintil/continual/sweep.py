"""Many runs side by side: configurations x seeds, in local worker processes or on a Ray cluster.

Every (configuration, seed) is a job of its own. Jobs write into their own folders, finished seeds are skipped, so a
sweep that was interrupted goes on where it stopped when it is started again. Results do not depend on where a job ran:
each runs with the same number of threads and its own random streams.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import RunConfig, scheme_label
from .run import aggregate, run_seed


@dataclass(frozen=True)
class Job:
    """One seed of one configuration."""

    config: RunConfig
    seed: int

    def __str__(self) -> str:
        c = self.config
        return f"{c.dataset} {c.method} {scheme_label(c.scheme)} seed {self.seed}"


class SweepError(RuntimeError):
    """Some jobs failed; `failures` maps each to its exception. All other jobs are finished and aggregated."""

    def __init__(self, failures: dict[Job, BaseException]):
        self.failures = failures
        lines = [f"  {job}: {type(error).__name__}: {error}" for job, error in failures.items()]
        super().__init__(f"sweep: expected every job to finish, got {len(failures)} failed\n" + "\n".join(lines))


def jobs_of(configs: Sequence[RunConfig]) -> list[Job]:
    """All seeds of all configurations, seeds outermost: what is finished early are whole comparisons."""
    longest = max((len(config.seeds) for config in configs), default=0)
    return [Job(c, c.seeds[place]) for place in range(longest) for c in configs if place < len(c.seeds)]


def default_workers(threads: int) -> int:
    """How many processes of so many threads this machine has cores for, at least 1."""
    return max(1, (os.cpu_count() or 1) // threads)


def sweep(
    configs: Sequence[RunConfig],
    *,
    workers: int | None = None,
    threads: int = 1,
    ray_address: str | None = None,
    on_job: Callable[[Job, Path | BaseException], None] | None = None,
    force: bool = False,
    resume: bool = True,
    start_from: int | None = None,
    stop_after: int | None = None,
) -> list[Path]:
    """Run every seed of every configuration and return the run directories, in the order of `configs`.

    workers: processes side by side; None = processor cores // threads (on Ray: as the cluster's processors allow).
    threads: torch threads of each job; workers * threads should not exceed the cores.
    ray_address: run on Ray instead of local processes: "local" starts an instance on this machine, "auto" or an
        address joins a cluster, whose nodes must see data_root and results_dir under the same paths.
    on_job: called in this process after each job with its folder, or with the exception that ended it.
    force, resume, start_from, stop_after: as for `run`.

    A job that fails, or whose process dies, does not stop the others; SweepError names all of them at the end.
    KeyboardInterrupt stops the workers; files of finished tasks are whole and finished seeds are kept.
    """
    if threads < 1 or (workers is not None and workers < 1):
        raise ValueError(f"sweep: expected workers and threads of at least 1, got {workers} and {threads}")
    jobs = [Job(job.config.replace(threads=threads), job.seed) for job in jobs_of(configs)]
    finished: dict[Job, Path] = {}
    failures: dict[Job, BaseException] = {}
    options = {"force": force, "resume": resume, "start_from": start_from, "stop_after": stop_after}
    if ray_address:
        results = _on_ray(jobs, options, threads, ray_address)
    else:
        results = _in_processes(jobs, options, workers or default_workers(threads))
    with contextlib.closing(results):
        for job, result in results:
            if isinstance(result, Path):
                finished[job] = result
            else:
                failures[job] = result
            if on_job is not None:
                on_job(job, result)
    folders = dict.fromkeys(finished[job].parent for job in sorted(finished, key=jobs.index))
    for folder in folders:
        if any(folder.glob("seed*/summary.json")):
            aggregate(folder)
    if failures:
        raise SweepError(failures)
    return list(folders)


# Where jobs run ----------------------------------------------------------------------------------------------------

Results = Iterator[tuple[Job, Path | BaseException]]


def _run(job: Job, options: dict) -> Path:
    return run_seed(job.config, job.seed, **options)


def _begin_worker() -> None:
    """Ctrl-C reaches the whole process group; the parent alone decides, and ends its workers.

    A parent that is killed cannot. Its workers would go on in folders that the repeated command works in too, so they
    end with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _in_processes(jobs: Sequence[Job], options: dict, workers: int) -> Results:
    """Jobs in spawned processes. One that dies takes its pool along, so what was broken is tried again one by one."""
    broken: list[Job] = []
    for job, result in _one_pool(jobs, options, min(workers, max(1, len(jobs)))):
        if isinstance(result, BrokenProcessPool):
            broken.append(job)
        else:
            yield job, result
    for job in broken:
        yield from _one_pool([job], options, 1)


def _one_pool(jobs: Sequence[Job], options: dict, workers: int) -> Results:
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin_worker)
    try:
        futures: dict[Future[Path], Job] = {pool.submit(_run, job, options): job for job in jobs}
        for future in as_completed(futures):
            error = future.exception()
            yield futures[future], future.result() if error is None else error
        pool.shutdown()
    except BaseException:  # interrupted: a running job is not waited for
        _end(pool)
        raise


def _end(pool: ProcessPoolExecutor) -> None:
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _on_ray(jobs: Sequence[Job], options: dict, threads: int, address: str) -> Results:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "sweep: expected the package ray for ray_address, got none (pip install ray)"
        ) from error
    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    started = not ray.is_initialized()
    if started:
        ray.init(**({"address": address} if address != "local" else quiet))
    try:
        remote = ray.remote(num_cpus=threads, max_retries=0)(_run)
        waiting = {remote.remote(job, options): job for job in jobs}
        while waiting:
            (ready, *_), _ = ray.wait(list(waiting), num_returns=1)
            job = waiting.pop(ready)
            try:
                yield job, ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                yield job, error.cause
            except ray.exceptions.RayError as error:
                yield job, error
    finally:
        if started:
            ray.shutdown()
