"""The slots that each job of a launch on a cluster can use. No ray, no torch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from shiftbench.execution.group_rules import bundle, group_sizes, slots_of_worker
from shiftbench.execution.scheduler import Room
from shiftbench.methods.base import TrainedMethod

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shiftbench.execution.jobs import Job
    from shiftbench.suite.file import Resources
    from shiftbench.suite.plan import Run


class Rooms:
    """Says how much of a cluster a job can use; called with a job it gives its ``Room``.

    Args:
        runs: all runs by id.
        resources: of the suite, which a slot is counted in.
        own: by id, of runs whose method has resources of its own.
    """

    def __init__(
        self,
        runs: Mapping[str, Run],
        resources: Resources,
        own: Mapping[str, Resources] | None = None,
    ) -> None:
        self._runs = runs
        self._resources = resources
        self._own = own or {}

    def __call__(self, job: Job) -> Room:
        """The slots that a job can use."""
        if job.stage in ("predict", "score"):
            return Room(brief=True)
        if self.by_trials(job):
            return Room(most=self._resources.max_trials or sys.maxsize)
        shared = self.shared(job)
        if shared is None:
            return Room()
        each = slots_of_worker(shared, self._resources)
        return Room.one_of([each * workers for workers in self._sizes(job, shared)])

    def workers(self, job: Job, own: Resources, slots: int, fit: int) -> int:
        """The workers to train a run with.

        Args:
            job: of a group.
            own: its resources.
            slots: that it was granted.
            fit: workers that the cluster's nodes have room for; where their own size does not
                divide a node's, fewer than the slots hold.
        """
        most = slots // slots_of_worker(own, self._resources)
        fitting = (n for n in self._sizes(job, own) if n <= min(most, fit))
        return max(fitting, default=most)

    def _sizes(self, job: Job, own: Resources) -> tuple[int, ...]:
        """The numbers of workers that may train a run, ascending."""
        method = self._runs[job.run_id].create()
        batch = method.training.batch_size if isinstance(method, TrainedMethod) else 1
        return group_sizes(own, batch)

    def shared(self, job: Job) -> Resources | None:
        """The resources of the group of workers that trains the job's run; ``None``: one does.

        A worker that is not like the others is a group of its own.
        """
        own = self._own.get(job.run_id, self._resources)
        alike = bundle(own) == bundle(self._resources)
        if job.stage != "fit" or (own.workers == 1 and alike):
            return None
        method = self._runs[job.run_id].create()
        trains = isinstance(method, TrainedMethod) and method.inputs == "images"
        return own if trains else None

    def by_trials(self, job: Job) -> bool:
        """True if a job is a search by trials that train, which get slots of their own."""
        return job.stage == "search" and self._runs[job.run_id].searched_by_training
