"""Warm workers, each a process that is given one job after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError

from shiftbench.core.errors import first_line
from shiftbench.distributed.workers import WarmWorker

if TYPE_CHECKING:
    from shiftbench.execution.jobs import Job
    from shiftbench.execution.setup import Setup

_POLL_S = 0.5


class WorkerLostError(RuntimeError):
    """A job ended because its worker did; it may well succeed on another one."""


class Pool:
    """Warm workers, and the jobs they are at.

    Args:
        setup: for the workers.
        progress: handle of the ``ProgressActor``.
        size: how many workers there may be.
    """

    def __init__(self, setup: Setup, progress: Any, size: int) -> None:
        self._setup = setup
        self._progress = progress
        self._size = size
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Job, Any]] = {}

    @property
    def busy(self) -> bool:
        """True while a worker is at a job."""
        return bool(self._busy)

    def free(self) -> bool:
        """True if a worker could take a job now."""
        return len(self._busy) < self._size

    def start(self, job: Job) -> None:
        """Give a job to a worker; one is started if none is idle."""
        worker = self._idle.pop() if self._idle else self._worker()
        method = getattr(worker, job.stage)
        arguments = job[1:] if job.stage == "predict" else (job.run_id,)
        self._busy[method.remote(*arguments)] = (job, worker)

    def finished(self) -> list[tuple[Job, BaseException | None]]:
        """Jobs that have ended since the last call, with what they raised."""
        references, _ = ray.wait(list(self._busy), num_returns=len(self._busy), timeout=0)
        if not references:
            references, _ = ray.wait(list(self._busy), timeout=_POLL_S)
        ended: list[tuple[Job, BaseException | None]] = []
        for reference in references:
            job, worker = self._busy.pop(reference)
            try:
                ray.get(reference)
            except RayTaskError as error:  # what the job raised
                ended.append((job, _of_the_job(error)))
            except RayError as error:  # the worker or its node is gone
                ended.append((job, WorkerLostError(first_line(error))))
                continue
            else:
                ended.append((job, None))
            self._idle.append(worker)
        return ended

    def close(self) -> None:
        """End the idle workers, which gives their CPUs and GPUs back."""
        for worker in self._idle:
            ray.kill(worker)
        self._idle.clear()

    def _worker(self) -> Any:
        resources = self._setup.resources
        actor = ray.remote(num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker)(
            WarmWorker
        )
        return actor.remote(self._setup, self._progress)


def _of_the_job(error: RayTaskError) -> BaseException:
    """The error that a job raised, with the worker's traceback as what led to it."""
    raised: BaseException = error.cause or error
    if raised is not error:
        raised.__cause__ = error
    return raised
