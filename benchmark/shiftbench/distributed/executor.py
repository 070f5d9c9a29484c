"""All jobs of a launch on a Ray cluster, or on this machine."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from shiftbench.execution.processes import Processes

if TYPE_CHECKING:
    from shiftbench.execution.work import Work
    from shiftbench.suite.plan import Plan


class RayExecutor:
    """Does the jobs of a launch on Ray: stages on warm workers, searches on Tune, groups on Train.

    What needs none of that, on the processors of one machine, is done by processes of this machine
    without starting Ray, which would take longer than many a suite.

    Args:
        address: of a running cluster; ``None`` joins the one that a submitted job runs in
            (``RAY_ADDRESS``), or else uses this machine.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address
        self._processes = Processes()

    @property
    def most(self) -> int | None:
        """As many as fit this machine; 0 on a cluster, whose size is known when it is joined."""
        return 0 if self._on_cluster else None

    def check(self, plan: Plan) -> None:
        """Nothing: what a cluster has is known when it is joined."""

    def prepare(self, plan: Plan) -> None:
        """Start the process that workers are forked from, where no cluster is needed."""
        resources = plan.suite.resources
        searched = any(run.searched_by_training for run in plan.runs.values())
        if not searched and self._here(resources.workers, resources.gpus_per_worker):
            self._processes.prepare(plan)

    def release(self) -> None:
        """End that process."""
        self._processes.release()

    def execute(self, work: Work) -> None:
        """Do all jobs, on a cluster that is joined or started for it where one is needed.

        Raises:
            InputError: no cluster answers, or it or this machine is too small for the suite's
                ``resources``.
        """
        resources = work.setup.resources
        if not work.searches and self._here(resources.workers, resources.gpus_per_worker):
            self._processes.execute(work)
            return
        from shiftbench.distributed.session import session

        with session(self.address, resources):
            # This imports ray, which reads the environment that the session has set.
            from shiftbench.distributed.dispatch import dispatch

            dispatch(work)

    def _here(self, workers: int, gpus_per_worker: float) -> bool:
        """True if trainings by single workers on the processors of this machine are meant."""
        forks = sys.platform == "linux"  # elsewhere, libraries may not survive it
        return forks and not self._on_cluster and workers == 1 and not gpus_per_worker

    @property
    def _on_cluster(self) -> bool:
        return self.address is not None or "RAY_ADDRESS" in os.environ
