"""The order of work on a cluster: single jobs on warm workers, then searches, then groups."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError
from ray.tune import TuneError

from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.data.shared import remove_unused
from shiftbench.distributed.groups import fit_group
from shiftbench.distributed.pool import Pool, WorkerLostError
from shiftbench.distributed.progress import ProgressActor
from shiftbench.distributed.session import pool_size
from shiftbench.distributed.tuning import run_trials
from shiftbench.execution.display import name_of
from shiftbench.execution.jobs import Job, Queue
from shiftbench.execution.search.record import account
from shiftbench.execution.search.search import search
from shiftbench.execution.search.trial import shared_folder
from shiftbench.leaderboard.runfolder import RunFolder, SearchFolder
from shiftbench.methods.base import TrainedMethod

if TYPE_CHECKING:
    from shiftbench.execution.setup import Setup
    from shiftbench.execution.work import Work

_POLL_S = 0.5


def dispatch(work: Work) -> None:
    """Do all jobs. Single jobs fill the cluster; searches and groups have it to themselves.

    Needs a connection to Ray (``session``).
    """
    setup = work.setup
    progress = ray.remote(num_cpus=0)(ProgressActor).remote()
    pool = Pool(setup, progress, pool_size(ray.cluster_resources(), setup.resources))
    queue = Queue(setup.runs)
    for_group: list[Job] = []
    searches: list[Job] = []
    losses: Counter[Job] = Counter()
    while True:
        for job in work.ready():
            if job.stage == "fit" and _in_group(setup, job.run_id):
                for_group.append(job)
            elif job.stage == "search":
                searches.append(job)
            else:
                queue.add(job)
        while queue and pool.free():
            job = queue.take()
            if work.needed(job):
                pool.start(job)
        if pool.busy:
            for job, error in pool.finished():
                lost = isinstance(error, WorkerLostError)
                if lost and losses[job] < setup.resources.limits.job_retries:
                    losses[job] += 1
                    queue.add(job)
                else:
                    work.settle(job, error)
            work.display.steps(ray.get(progress.get.remote()))
        elif searches:
            pool.close()
            for job in searches:
                if work.needed(job):
                    work.settle(job, _search(work, job.run_id))
            searches = []
        elif for_group:
            pool.close()
            for_group = _fit_in_group(work, for_group, progress)
        elif not queue:
            break
    pool.close()


def _in_group(setup: Setup, run_id: str) -> bool:
    """True if a run is trained by a group of workers rather than by one."""
    method = setup.runs[run_id].create()
    many = setup.resources.workers > 1
    return many and isinstance(method, TrainedMethod) and method.inputs == "images"


def _search(work: Work, run_id: str) -> BaseException | None:
    """Search for the settings of a run on all workers; what went wrong, if anything."""
    setup, display = work.setup, work.display
    run = setup.runs[run_id]

    def show(study: str, ended: int, wanted: int, best: float) -> None:
        display.busy(f"{name_of(run)}: {study} {ended}/{wanted}, best {best:.3f}")

    display.note(f"searching on OOD validation data for {name_of(run)}")
    try:
        search(setup, run, lambda study: run_trials(setup, run, study, show), display.warn)
    except (RunFailedError, InputError, RayError, TuneError) as error:
        return error
    finally:
        remove_unused(shared_folder())  # where no process of a trial did so
    if run.search is not None and run.searched:
        found = SearchFolder.of(setup.results, run.search.id).read_found()
        display.note(f"{name_of(run)}: {account(found)}")
    return None


def _fit_in_group(work: Work, jobs: list[Job], progress: Any) -> list[Job]:
    """Fit runs in one group of workers; the jobs that are left after a run broke the group."""
    setup, display = work.setup, work.display
    display.note(f"starting {setup.resources.workers} training workers for {len(jobs)} runs")
    with ThreadPoolExecutor(1) as thread:
        group = thread.submit(fit_group, setup, [job.run_id for job in jobs], progress)
        while not wait([group], timeout=_POLL_S).done:
            display.steps(ray.get(progress.get.remote()))
    failures = group.result()
    left = []
    for job in jobs:
        if job.run_id in failures:
            work.settle(job, failures[job.run_id])
        elif RunFolder.of(setup.results, job.run_id).fitted:
            work.settle(job)
        else:
            left.append(job)
    return left
