"""Groups of Ray Train workers that share the training of a run.

Starting a group takes over ten seconds, so a group trains one run after the other, each when the
scheduler says so. Between two trainings its workers are lent: each predicts and scores on its own,
which no process has to be started for.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

import ray
import ray.train
import torch
from ray.exceptions import RayError
from ray.train import ControllerError, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)

from shiftbench.core.errors import RunFailedError, disk_full, last_line, sendable, whole_text
from shiftbench.data.batches import WorkerPlace
from shiftbench.distributed.cluster import LEADER, beside_the_driver, own_actors
from shiftbench.distributed.feed import Feed, Outcome
from shiftbench.distributed.notices import HeedingConfig, Recall, leaving
from shiftbench.distributed.place import home, stop_at
from shiftbench.distributed.pool import WorkerLostError
from shiftbench.distributed.storage import shared_storage
from shiftbench.distributed.workers import Speaker, reporter, signs
from shiftbench.execution.doing import do
from shiftbench.execution.group_rules import bundle
from shiftbench.execution.jobs import Job
from shiftbench.execution.saving import RecalledError, Signals
from shiftbench.execution.setup import Setup
from shiftbench.execution.stages.fit import fit
from shiftbench.execution.workspace import Workspace

if TYPE_CHECKING:
    from shiftbench.distributed.pool import Ended, Events
    from shiftbench.suite.file import Resources


class NotPlacedError(RuntimeError):
    """The cluster had no place for a group, since others hold it: the run of that can wait."""


class Group:
    """A group of workers, started at once.

    All methods are for the thread that makes the calls of ``events``.

    Args:
        setup: for the workers.
        resources: of these workers, and their number.
        slots: of the cluster that they take.
        progress: handle of the ``ProgressActor``.
        events: gets a call for whatever happens to the group.
        ended: called with each job that has ended and what it raised.
        over: called when the group has ended.
        lost_a_node: whether the cluster has lost one since a moment of the monotonic clock.

    Attributes:
        resources: as given.
        slots: as given.
        recalled: whether the training that it is at is for others.
        thread: uses Ray until the group has ended.
    """

    def __init__(
        self,
        setup: Setup,
        resources: Resources,
        slots: int,
        progress: Any,
        events: Events,
        ended: Ended,
        over: Callable[[Group], None],
        lost_a_node: Callable[[float], bool],
    ) -> None:
        self.resources = resources
        self.slots = slots
        self.recalled = False
        self._events = events
        self._settle = ended
        self._over = over
        self._lost_a_node = lost_a_node
        self._begun: float | None = time.monotonic()
        self._feed = ray.remote(**beside_the_driver())(Feed).remote()
        self._job: Job | None = None
        self._last = ""
        self._lent: dict[int, Job] = {}
        self._closing = self._feed_gone = False
        self._since = time.monotonic()
        # A thread that is no daemon would keep an interrupted driver alive.
        self.thread = Thread(target=self._train, args=(setup, progress), daemon=True)
        self.thread.start()

    @property
    def idle(self) -> bool:
        """True while the group has no run to train and could take one."""
        return self._job is None and not self._closing

    @property
    def training(self) -> Job | None:
        """The training that the group is at, unless it is the last."""
        return None if self._closing else self._job

    @property
    def jobs(self) -> list[Job]:
        """The training that the group is at, and the jobs that its workers were lent for."""
        return [*([] if self._job is None else [self._job]), *self._lent.values()]

    @property
    def lent(self) -> int:
        """Workers that are lent."""
        return len(self._lent)

    @property
    def to_lend(self) -> int:
        """Workers that are there and have nothing to do."""
        there = self.idle and self._begun is None
        return self.resources.workers - self.lent if there else 0

    @property
    def spare(self) -> int:
        """Slots that no job has and that are not free, since its workers are there.

        Fewer than none while a training waits for workers that are lent: both have their slots.
        """
        if self.idle:
            return self.slots - self.lent
        return 0 if self._job is None else -self.lent

    @property
    def last(self) -> str:
        """Id of the run whose weights its workers used last."""
        return self._last

    @property
    def unplaced_s(self) -> float:
        """Seconds for which the cluster has had no place for the workers."""
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    def placed(self) -> None:
        """The workers have begun with a run."""
        self._begun = None

    @property
    def idle_s(self) -> float:
        """Seconds for which none of the workers has had anything to do."""
        return time.monotonic() - self._since if self.idle and not self._lent else 0.0

    def submit(self, job: Job) -> None:
        """Train a run, as soon as lent workers are back; only while ``idle``."""
        self._job = job
        self._last = job.run_id
        self._since = time.monotonic()
        reference = self._feed.put.remote(job.run_id)
        reference.future().add_done_callback(
            lambda future: self._events.put(partial(self._trained, future))
        )

    def lend(self, job: Job) -> None:
        """Have a prediction or a scoring done by one of the workers ``to_lend``."""
        rank = next(rank for rank in range(self.resources.workers) if rank not in self._lent)
        self._lent[rank] = job
        self._last = job.run_id
        reference = self._feed.lend.remote(rank, tuple(job))
        reference.future().add_done_callback(
            lambda future: self._events.put(partial(self._returned, rank, future))
        )

    def stop(self, job: Job) -> str | None:
        """Kill the workers that are at a job, on which Train starts all again.

        Returns:
            the stacks of their threads; ``None`` if none is there, since the group is being
            started.
        """
        try:
            homes = ray.get(self._feed.homes.remote())
        except RayError:  # the group has just ended
            return None
        alone = [rank for rank, its in self._lent.items() if its == job]
        return stop_at(homes[rank] for rank in alone or homes if rank in homes)

    def close(self) -> None:
        """Let the workers go when they have trained what they were given."""
        self._closing = True
        self._feed.close.remote()

    def recall(self) -> None:
        """Have the training saved that the group is at, and let the workers go."""
        self._closing = self.recalled = True
        self._feed.recall.remote()

    def _train(self, setup: Setup, progress: Any) -> None:
        """The life of the group, in a thread of its own."""
        error: Exception | None = None
        try:
            _trainer_fit(setup, self.resources, self._feed, progress)
        except Exception as caught:  # recorded with the run that the group was at
            error = caught
        self._events.put(partial(self._ended, error))

    def _trained(self, future: Future[RunFailedError | None]) -> None:
        """The workers are done with a run; or the feed is gone, and the group's end says why."""
        if self._without_feed(future) or self._job is None:
            return
        job, self._job = self._job, None
        self._begun, self._since = None, time.monotonic()
        self._settle(job, future.result())

    def _returned(self, rank: int, future: Future[Outcome]) -> None:
        """A lent worker is back, or was lost; or the feed is gone: ``_ended`` says so."""
        if self._without_feed(future) or rank not in self._lent:
            return
        job, outcome = self._lent.pop(rank), future.result()
        self._since = time.monotonic()
        if outcome.lost_at is None:
            self._settle(job, outcome.error)
            return
        self.close()  # starting again has used up a part of its trainings' tries
        self._settle(job, WorkerLostError("its worker was started again", outcome.lost_at))

    def _without_feed(self, future: Future[Any]) -> bool:
        """True if there is no answer, since who gives it is gone: so the group will be."""
        self._feed_gone |= isinstance(future.exception(), RayError)
        return self._feed_gone

    def _ended(self, error: Exception | None) -> None:
        nodes = self._nodes()
        ray.kill(self._feed)
        self._over(self)
        for rank, job in self._lent.items():
            what = last_line(error) if error else "the group of workers ended before its job did"
            self._settle(job, WorkerLostError(what, nodes.get(rank, "")))
        self._lent = {}
        if self._job is not None:
            job, self._job = self._job, None
            self._settle(job, self._why(error))

    def _nodes(self) -> dict[int, str]:
        """Ids of the nodes of the lent workers, by rank."""
        if not self._lent:
            return {}
        try:
            return {rank: home.node for rank, home in ray.get(self._feed.homes.remote()).items()}
        except RayError:
            return {}

    def _why(self, error: Exception | None) -> Exception:
        """Why the run did not end that the group was at."""
        if error is None and self.recalled:
            return RecalledError()
        if error is None:
            return RunFailedError("the group of workers ended before its run did")
        if _found_no_place(error):
            return NotPlacedError()
        # A node went more often than Train starts a group again.
        if self._lost_a_node(self._since) and not _of_the_run(error):
            return WorkerLostError(last_line(error), node="")
        if _of_the_group(error) or self._feed_gone:
            lost = WorkerLostError(last_line(error), ray.get_runtime_context().get_node_id())
            lost.add_note(whole_text(error).rstrip())
            return lost
        return sendable(error)


def _of_the_run(error: Exception) -> bool:
    """True if the workers of a group raised errors of their own, and none of them has died."""
    failures = [*getattr(error, "worker_failures", {}).values()]
    return bool(failures) and not any(
        isinstance(failure, RayError | WorkerHealthCheckFailedError) for failure in failures
    )


def _of_the_group(error: Exception) -> bool:
    """True if a group ended by what is none of its workers' doing, of which Train tries no more.

    What leads it has died, or one of its workers before Train watched it.
    """
    return isinstance(error, RayError | ControllerError) and not disk_full(error)


def end_all() -> None:
    """Kill what leads the groups of this driver: they end at once, with an error.

    Train has it on the driver's node.
    """
    for facts in own_actors("ALIVE", LEADER).values():
        with suppress(ProcessLookupError):
            os.kill(facts["Pid"], signal.SIGKILL)


def _found_no_place(error: Exception) -> bool:
    """True if Train has given up to wait for a group's place."""
    return isinstance(error, ControllerError) and isinstance(
        error.controller_failure, WorkerGroupStartupTimeoutError
    )


def _trainer_fit(setup: Setup, resources: Resources, feed: Any, progress: Any) -> None:
    """Have a group of workers train what the feed gives, until it is closed."""
    limits = setup.resources.limits
    config = {"setup": setup, "feed": feed, "progress": progress}
    with shared_storage(setup.results, "train-") as storage:
        TorchTrainer(
            _group_loop,
            train_loop_config=config | {"threads": max(1, int(resources.cpus_per_worker))},
            torch_config=HeedingConfig(timeout_s=limits.collective_timeout_s),
            scaling_config=ScalingConfig(
                num_workers=resources.workers,
                use_gpu=bool(resources.gpus_per_worker),
                resources_per_worker=bundle(resources),
            ),
            run_config=RunConfig(
                name="group",
                **storage,
                failure_config=FailureConfig(
                    max_failures=limits.group_restarts,
                    controller_failure_limit=limits.group_restarts,
                ),
                logging_config=LoggingConfig(log_level="WARNING"),
            ),
        ).fit()


def _group_loop(config: dict[str, Any]) -> None:
    """The loop of each worker of a group."""
    setup: Setup = config["setup"]
    feed, speaker = config["feed"], Speaker(config["progress"])
    context = ray.train.get_context()
    place = WorkerPlace(context.get_world_rank(), context.get_world_size())
    torch.set_num_threads(config["threads"])
    workspace = Workspace(setup, get_device())
    config["progress"].here.remote(home())
    ray.get(feed.join.remote(place.rank, home()))
    signals = Signals(leaving, Recall(feed) if place.rank == 0 else lambda: False)
    index = ray.get(feed.first.remote())
    while (given := ray.get(feed.get.remote(place.rank, index))) is not None:
        error, job = None, Job(*given)
        if job.stage != "fit":
            with signs(config["progress"], job), speaker.at(job.run_id):
                error = _error_of(partial(do, job, workspace, lambda step, steps: None))
            ray.get(feed.returned.remote(place.rank, error))
            continue
        first = signs(config["progress"], job) if place.rank == 0 else nullcontext()
        try:
            with first, speaker.at(job.run_id, place):
                tell = reporter(config["progress"], job.run_id)
                fit(workspace, job.run_id, place, tell, signals)
        except RecalledError:
            return
        except RunFailedError as caught:  # gradients are averaged, so all workers get here at once
            error = sendable(caught)
        except Exception as caught:
            if not disk_full(caught):  # that would be met again, and ends the launch
                raise
            error = sendable(caught)
        if place.rank == 0 or error is not None:
            ray.get(feed.ended.remote(index, error))
        index += 1


def _error_of(work: Callable[[], None]) -> RunFailedError | None:
    """What a job of one worker raises; the others go on, and so does this one."""
    try:
        work()
    except Exception as caught:  # recorded with the run
        return sendable(caught)
    return None
