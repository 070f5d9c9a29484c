"""The slots that each job of a launch on a cluster can use. No ray, no torch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

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
        resources: of the suite.
    """

    def __init__(self, runs: Mapping[str, Run], resources: Resources) -> None:
        self._runs = runs
        self._resources = resources

    def __call__(self, job: Job) -> Room:
        """The slots that a job can use."""
        if job.stage in ("predict", "score"):
            return Room(brief=True)
        if self.by_trials(job):
            return Room(most=self._resources.max_trials or sys.maxsize)
        workers = self._resources.workers if self.shared(job) else 1
        return Room(workers, workers)

    def shared(self, job: Job) -> bool:
        """True if a group of workers trains the job's run rather than one."""
        if job.stage != "fit" or self._resources.workers == 1:
            return False
        method = self._runs[job.run_id].create()
        return isinstance(method, TrainedMethod) and method.inputs == "images"

    def by_trials(self, job: Job) -> bool:
        """True if a job is a search by trials that train, which get slots of their own."""
        return job.stage == "search" and self._runs[job.run_id].searched_by_training
