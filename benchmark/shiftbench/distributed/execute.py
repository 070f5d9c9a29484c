"""Executes the runs of a plan on Ray, and records each the moment it is finished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.tune import TuneError

from shiftbench.core.errors import InputError, RunFailedError, first_line
from shiftbench.distributed.search import search
from shiftbench.distributed.session import pool_size
from shiftbench.distributed.workers import Board, WarmWorker, fit_group
from shiftbench.execution.display import name_of
from shiftbench.execution.jobs import Agenda, Job
from shiftbench.leaderboard.runfolder import RunFolder

if TYPE_CHECKING:
    from shiftbench.execution.display import Display
    from shiftbench.execution.setup import Setup

POLL_S = 0.5
RETRIES = 1  # of a job whose worker died


class WorkerLostError(RuntimeError):
    """A job ended because its worker did; it may well succeed on another one."""


@dataclass
class Pool:
    """Warm workers, and the jobs they are at."""

    setup: Setup
    board: Any
    size: int
    idle: list[Any] = field(default_factory=list)
    busy: dict[Any, tuple[Job, Any]] = field(default_factory=dict)

    def free(self) -> bool:
        """Whether a worker could take a job now."""
        return len(self.busy) < self.size

    def start(self, job: Job) -> None:
        """Give a job to a worker; one is started if none is idle."""
        worker = self.idle.pop() if self.idle else self._worker()
        method = getattr(worker, job.stage)
        arguments = job[1:] if job.stage == "predict" else (job.run_id,)
        self.busy[method.remote(*arguments)] = (job, worker)

    def finished(self) -> list[tuple[Job, BaseException | None]]:
        """Jobs that have ended since the last call, with what they raised."""
        references, _ = ray.wait(list(self.busy), num_returns=len(self.busy), timeout=0)
        if not references:
            references, _ = ray.wait(list(self.busy), timeout=POLL_S)
        ended: list[tuple[Job, BaseException | None]] = []
        for reference in references:
            job, worker = self.busy.pop(reference)
            try:
                ray.get(reference)
            except RayTaskError as error:  # what the job raised
                ended.append((job, error.cause or error))
            except RayError as error:  # the worker or its node is gone
                ended.append((job, WorkerLostError(first_line(error))))
                continue
            else:
                ended.append((job, None))
            self.idle.append(worker)
        return ended

    def close(self) -> None:
        """End the workers, which gives their CPUs and GPUs back."""
        for worker in self.idle:
            ray.kill(worker)
        self.idle.clear()

    def _worker(self) -> Any:
        resources = self.setup.resources
        actor = ray.remote(num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker)(
            WarmWorker
        )
        return actor.remote(self.setup, self.board)


def execute(
    setup: Setup,
    agenda: Agenda,
    in_group: Callable[[str], bool],
    on_done: Callable[[str], None],
    on_failure: Callable[[str, str], None],
    display: Display,
) -> None:
    """Do all jobs of an agenda; what fails is in ``agenda.failed`` at the end.

    Args:
        setup: what workers are told.
        agenda: the jobs.
        in_group: whether a run is trained by a group of workers rather than by one.
        on_done: called with the id of each run that was recorded.
        on_failure: called once with the id of each run that failed, and why.
        display: shows what happens.
    """
    board = ray.remote(num_cpus=0)(Board).remote()
    pool = Pool(setup, board, pool_size(ray.cluster_resources(), setup.resources))
    queue = Queue(setup.runs)
    for_group: list[Job] = []
    searches: list[Job] = []
    deaths: Counter[Job] = Counter()

    def settle(job: Job, error: BaseException | None) -> None:
        if error is None:
            agenda.done(job)
            display.done(job)
            if job.stage == "score":
                on_done(job.run_id)
        elif isinstance(error, WorkerLostError) and deaths[job] < RETRIES:
            deaths[job] += 1
            queue.add(job)
        else:
            for run_id in agenda.fail(job.run_id, first_line(error)):
                on_failure(run_id, agenda.failed[run_id])
                display.failed(run_id, agenda.failed[run_id])

    while True:
        for job in agenda.ready():
            if job.stage == "fit" and in_group(job.run_id):
                for_group.append(job)
            elif job.stage == "search":
                searches.append(job)
            else:
                queue.add(job)
        while queue and pool.free():
            job = queue.take()
            if job.run_id not in agenda.failed:
                pool.start(job)
        if pool.busy:
            for job, error in pool.finished():
                settle(job, error)
            display.steps(ray.get(board.get.remote()))
        elif searches:
            pool.close()
            for job in searches:
                if job.run_id not in agenda.failed:
                    settle(job, _search(setup, job.run_id, display))
            searches = []
        elif for_group:
            pool.close()
            for_group = _fit_in_group(setup, for_group, board, settle, display)
        elif not queue:
            break
    pool.close()


class Queue:
    """Jobs that wait for a worker, in the order of the plan: runs finish one after the other.

    Args:
        runs: ids in the order of the plan.
    """

    def __init__(self, runs: Iterable[str]) -> None:
        self._position = {run_id: position for position, run_id in enumerate(runs)}
        self._heap: list[tuple[int, int, Job]] = []
        self._counter = count()

    def __bool__(self) -> bool:
        return bool(self._heap)

    def add(self, job: Job) -> None:
        """Put a job in line."""
        heappush(self._heap, (self._position[job.run_id], next(self._counter), job))

    def take(self) -> Job:
        """The next job."""
        return heappop(self._heap)[-1]


def _search(setup: Setup, run_id: str, display: Display) -> BaseException | None:
    """Search for the settings of a run on all workers; what went wrong, if anything."""
    run = setup.runs[run_id]

    def report(study: str, ended: int, wanted: int, best: float) -> None:
        display.busy(f"{name_of(run)}: {study} {ended}/{wanted}, best {best:.3f}")

    display.note(f"searching on OOD validation data for {name_of(run)}")
    try:
        search(setup, run, report)
    except (RunFailedError, InputError, RayError, TuneError) as error:
        return error
    return None


def _fit_in_group(
    setup: Setup,
    jobs: list[Job],
    board: Any,
    settle: Callable[[Job, BaseException | None], None],
    display: Display,
) -> list[Job]:
    """Fit runs in one group of workers; the jobs that are left after a run broke the group."""
    display.note(f"starting {setup.resources.workers} training workers for {len(jobs)} runs")
    with ThreadPoolExecutor(1) as thread:
        group = thread.submit(fit_group, setup, [job.run_id for job in jobs], board)
        while not wait([group], timeout=POLL_S).done:
            display.steps(ray.get(board.get.remote()))
    failures = group.result()
    left = []
    for job in jobs:
        if job.run_id in failures:
            settle(job, RunFailedError(failures[job.run_id]))
        elif RunFolder.of(setup.results, job.run_id).fitted:
            settle(job, None)
        else:
            left.append(job)
    return left
