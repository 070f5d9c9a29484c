"""Groups of Ray Train workers that share the training of a run.

Starting a group takes over ten seconds, so a group trains one run after the other, each when the
scheduler says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
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

from shiftbench.core.errors import RunFailedError, disk_full, last_line, sendable
from shiftbench.data.batches import WorkerPlace
from shiftbench.distributed.cluster import beside_the_driver
from shiftbench.distributed.feed import Feed
from shiftbench.distributed.notices import HeedingConfig, leaving
from shiftbench.distributed.place import home, stop_at
from shiftbench.distributed.pool import WorkerLostError
from shiftbench.distributed.storage import shared_storage
from shiftbench.distributed.workers import Speaker, reporter, signs
from shiftbench.execution.group_rules import bundle
from shiftbench.execution.jobs import Job
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
        self._events = events
        self._settle = ended
        self._over = over
        self._lost_a_node = lost_a_node
        self._begun: float | None = time.monotonic()
        self._feed = ray.remote(**beside_the_driver())(Feed).remote()
        self._job: Job | None = None
        self._closing = False
        self._since = time.monotonic()
        # A thread that is no daemon would keep an interrupted driver alive.
        Thread(target=self._train, args=(setup, progress), daemon=True).start()

    @property
    def idle(self) -> bool:
        """True while the group has no run to train and could take one."""
        return self._job is None and not self._closing

    @property
    def unplaced_s(self) -> float:
        """Seconds for which the cluster has had no place for the workers."""
        return 0.0 if self._begun is None else time.monotonic() - self._begun

    def placed(self) -> None:
        """The workers have begun with a run."""
        self._begun = None

    @property
    def idle_s(self) -> float:
        """Seconds since the group has been idle."""
        return time.monotonic() - self._since if self.idle else 0.0

    def submit(self, job: Job) -> None:
        """Train a run; only while ``idle``."""
        self._job = job
        self._since = time.monotonic()
        reference = self._feed.put.remote(job.run_id)
        reference.future().add_done_callback(
            lambda future: self._events.put(partial(self._trained, future))
        )

    @property
    def job(self) -> Job | None:
        """The job that the group is at."""
        return self._job

    def stop(self) -> str | None:
        """Kill the workers, which Train starts again; the stacks of their threads.

        Returns:
            the stacks; ``None`` if no worker is there, since the group is being started.
        """
        try:
            return stop_at(ray.get(self._feed.homes.remote()))
        except RayError:  # the group has just ended
            return None

    def close(self) -> None:
        """Let the workers go when they have trained what they were given."""
        self._closing = True
        self._feed.close.remote()

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
        if isinstance(future.exception(), RayError) or self._job is None:
            return
        job, self._job = self._job, None
        self._begun, self._since = None, time.monotonic()
        self._settle(job, future.result())

    def _ended(self, error: Exception | None) -> None:
        ray.kill(self._feed)
        self._over(self)
        if self._job is not None:
            job, self._job = self._job, None
            self._settle(job, self._why(error))

    def _why(self, error: Exception | None) -> Exception:
        """Why the run did not end that the group was at."""
        if error is None:
            return RunFailedError("the group of workers ended before its run did")
        if _found_no_place(error):
            return NotPlacedError()
        # A node went more often than Train starts a group again.
        if self._lost_a_node(self._since) and not _of_the_run(error):
            return WorkerLostError(last_line(error), node="")
        return sendable(error)


def _of_the_run(error: Exception) -> bool:
    """True if the workers of a group raised errors of their own, and none of them has died."""
    failures = [*getattr(error, "worker_failures", {}).values()]
    return bool(failures) and not any(
        isinstance(failure, RayError | WorkerHealthCheckFailedError) for failure in failures
    )


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
    ray.get(feed.join.remote(place.rank, home()))
    index = ray.get(feed.first.remote())
    while (run_id := ray.get(feed.get.remote(index))) is not None:
        error = None
        job = Job("fit", run_id)
        first = signs(config["progress"], job) if place.rank == 0 else nullcontext()
        try:
            with first, speaker.at(run_id, place):
                tell = reporter(config["progress"], run_id)
                fit(workspace, run_id, place, tell, leaving)
        except RunFailedError as caught:  # gradients are averaged, so all workers get here at once
            error = sendable(caught)
        except Exception as caught:
            if not disk_full(caught):  # that would be met again, and ends the launch
                raise
            error = sendable(caught)
        if place.rank == 0 or error is not None:
            ray.get(feed.ended.remote(index, error))
        index += 1
