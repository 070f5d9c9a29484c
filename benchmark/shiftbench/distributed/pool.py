"""Warm workers, each a process that is given one job after another."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from threading import Timer
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorUnavailableError, RayTaskError

from shiftbench.core.errors import last_line
from shiftbench.distributed.place import stop_at
from shiftbench.distributed.workers import WarmWorker
from shiftbench.execution.scheduler import closest, weights_of

if TYPE_CHECKING:
    from shiftbench.distributed.place import Home
    from shiftbench.execution.jobs import Job
    from shiftbench.execution.scheduler import Weights
    from shiftbench.execution.setup import Setup

Events = SimpleQueue[Callable[[], None]]
"""What has happened, as calls for the driver's one loop to make."""

_ASK_AGAIN_S = 0.5

Ended = Callable[["Job", BaseException | None], None]


class WorkerLostError(RuntimeError):
    """A job ended because its worker did; it may well succeed on another one.

    Args:
        message: what Ray said.
        node: id of the node that the worker was on.
    """

    def __init__(self, message: str, node: str) -> None:
        super().__init__(message)
        self.node = node


@dataclass(eq=False)
class _Worker:
    """A process; it has a ``home`` once it is ready."""

    actor: Any
    home: Home | None = None
    last: Weights | None = None
    since: float = field(default_factory=time.monotonic)


class Pool:
    """Warm workers, and the jobs they are at.

    A job is bound to a worker that is ready, never to one that Ray may not be able to place. All
    methods are for the thread that makes the calls of ``events``.

    Args:
        setup: for the workers.
        progress: handle of the ``ProgressActor``.
        events: gets a call for whatever happens to a worker.
        ended: called with each job that has ended and what it raised.
        lost_a_node: whether the cluster has lost one since a moment of the monotonic clock.
    """

    def __init__(
        self,
        setup: Setup,
        progress: Any,
        events: Events,
        ended: Ended,
        lost_a_node: Callable[[float], bool],
    ) -> None:
        self._setup = setup
        self._progress = progress
        self._events = events
        self._settle = ended
        self._lost_a_node = lost_a_node
        self._most = 0
        self._queue: deque[Job] = deque()
        self._starting: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._busy: dict[_Worker, Job] = {}
        self._lost_starts = 0
        self._lost_at = float("-inf")

    @property
    def size(self) -> int:
        """Number of workers, those that are starting included."""
        return len(self._starting) + len(self._idle) + len(self._busy)

    @property
    def idle(self) -> int:
        """Number of workers that are ready and have no job."""
        return len(self._idle)

    @property
    def running(self) -> list[Job]:
        """The jobs that workers are at."""
        return list(self._busy.values())

    def stop(self, job: Job) -> str | None:
        """Kill the worker that is at a job, which is lost then; the stacks of its threads."""
        worker = next(worker for worker, its in self._busy.items() if its == job)
        stack = stop_at([worker.home] if worker.home else [])
        ray.kill(worker.actor)
        return stack

    def unplaced(self, seconds: float) -> int:
        """Workers that jobs wait for and that have not been ready for so long."""
        before = time.monotonic() - seconds
        return sum(worker.since < before for worker in self._starting) if self._queue else 0

    def submit(self, job: Job) -> None:
        """Have a job done by the next worker that is ready."""
        self._queue.append(job)
        self._fill()

    def resize(self, most: int) -> None:
        """From now on have at most so many workers; those at a job leave when it is done."""
        self._most = most
        for spare in (self._idle, self._starting):
            while spare and self.size > most:
                ray.kill(spare.pop(0).actor)
        self._fill()

    def release_idle(self, seconds: float) -> None:
        """End workers that have had nothing to do for so long: others may need their place."""
        before = time.monotonic() - seconds
        for worker in [worker for worker in self._idle if worker.since < before]:
            self._idle.remove(worker)
            ray.kill(worker.actor)

    def close(self) -> None:
        """End the workers that are at no job, which gives their CPUs and GPUs back."""
        self._queue.clear()
        self.resize(0)

    def _fill(self) -> None:
        """Give waiting jobs to idle workers, and start workers for the rest."""
        while self._queue and self._idle:
            self._give(self._queue.popleft())
        wanted = min(len(self._queue) - len(self._starting), self._most - self.size)
        for _ in range(wanted):
            self._start()

    def _give(self, job: Job) -> None:
        """Give a job to the idle worker that is closest to having its weights."""
        worker = self._idle.pop(closest(job, [worker.last for worker in self._idle]))
        self._busy[worker] = job
        worker.last = weights_of(job)
        arguments = job[1:] if job.stage == "predict" else (job.run_id,)
        reference = getattr(worker.actor, job.stage).remote(*arguments)
        self._when_done(reference, partial(self._ended, worker))

    def _start(self) -> None:
        resources = self._setup.resources
        actor = ray.remote(
            num_cpus=resources.cpus_per_worker,
            num_gpus=resources.gpus_per_worker,
            memory=resources.memory_per_worker,
        )(WarmWorker).remote(self._setup, self._progress)
        worker = _Worker(actor)
        self._starting.append(worker)
        self._await_ready(worker)

    def _await_ready(self, worker: _Worker) -> None:
        self._when_done(worker.actor.home.remote(), partial(self._ready, worker))

    def _ready(self, worker: _Worker, future: Future[Home]) -> None:
        """A worker is ready for jobs, or could not be started."""
        if worker not in self._starting:  # it was not wanted any more
            return
        error = future.exception()
        if isinstance(error, ActorUnavailableError):  # Ray does not know yet if it is dead
            Timer(_ASK_AGAIN_S, self._events.put, [partial(self._await_ready, worker)]).start()
            return
        self._starting.remove(worker)
        if error is not None:
            # Of those that started side by side, one counts; of those whose node went, none.
            if worker.since > self._lost_at and not self._lost_a_node(worker.since):
                self._lost_starts += 1
                self._lost_at = time.monotonic()
            if self._lost_starts > self._setup.resources.limits.job_retries and self._queue:
                self._settle(self._queue.popleft(), error)
        else:
            self._lost_starts = 0
            worker.home = future.result()
            self._rest(worker)
        self._fill()

    def _ended(self, worker: _Worker, future: Future[Any], *, lost: bool = False) -> None:
        """A worker's job has ended, or the worker cannot be reached.

        Args:
            worker: that had the job.
            future: of the job; of a question, if the job's own answer is ``lost``.
            lost: true if nobody knows how the job ended.
        """
        error: BaseException | None = future.exception()
        if isinstance(error, ActorUnavailableError):  # Ray does not know yet if it is dead
            again = partial(self._ask_again, worker)
            Timer(_ASK_AGAIN_S, self._events.put, [again]).start()
            return
        job = self._busy.pop(worker)
        if error is None:
            self._rest(worker)
            if lost:
                error = WorkerLostError("the connection to its worker broke", _node(worker))
        elif isinstance(error, RayTaskError):  # what the job raised
            error = _of_the_job(error)
            self._rest(worker)
        else:  # the worker or its node is gone
            error = WorkerLostError(last_line(error), _node(worker))
        self._settle(job, error)
        self._fill()

    def _ask_again(self, worker: _Worker) -> None:
        """See whether a worker that could not be reached is there; it answers after its job."""
        self._when_done(worker.actor.home.remote(), partial(self._ended, worker, lost=True))

    def _rest(self, worker: _Worker) -> None:
        """A worker has nothing to do."""
        if self.size >= self._most:
            ray.kill(worker.actor)
            return
        worker.since = time.monotonic()
        self._idle.append(worker)

    def _when_done(self, reference: Any, then: Callable[[Future[Any]], None]) -> None:
        reference.future().add_done_callback(lambda future: self._events.put(partial(then, future)))


def _node(worker: _Worker) -> str:
    """Id of the node that a worker is on."""
    return worker.home.node if worker.home else ""


def _of_the_job(error: RayTaskError) -> BaseException:
    """The error that a job raised, with the worker's traceback as what led to it."""
    raised: BaseException = error.cause or error
    if raised is not error:
        raised.__cause__ = error
    return raised
