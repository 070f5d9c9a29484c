"""All jobs of a launch on a Ray cluster, or on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING

from shiftbench.execution.processes import Processes

if TYPE_CHECKING:
    from shiftbench.execution.work import Work
    from shiftbench.suite.file import Resources
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
        searched = any(run.searched_by_training for run in plan.runs.values())
        every = {plan.suite.resources, *map(plan.resources_of, plan.runs.values())}
        if not searched and self._here(every):
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
        setup = work.setup
        every = {setup.resources, *setup.own_resources.values()}
        if not work.searches and self._here(every):
            self._processes.execute(work)
            return
        from shiftbench.distributed.session import session

        with session(self.address, setup.resources, every):
            # These import ray, which reads the environment that the session has set.
            from shiftbench.distributed.nodes import Nodes

            with Nodes(setup) as nodes:
                nodes.check()  # they have their seconds to answer while torch is imported here
                from shiftbench.distributed.dispatch import dispatch

                dispatch(work, nodes)

    def _here(self, every: Collection[Resources]) -> bool:
        """True if trainings by single workers, all alike, on this machine's processors are meant.

        Args:
            every: the resources of the suite and of the methods that have their own.
        """
        forks = sys.platform == "linux"  # elsewhere, libraries may not survive it
        alike = len({(one.cpus_per_worker, one.memory_per_worker) for one in every}) == 1
        single = all(one.workers == 1 and not one.gpus_per_worker for one in every)
        return forks and not self._on_cluster and single and alike

    @property
    def _on_cluster(self) -> bool:
        return self.address is not None or "RAY_ADDRESS" in os.environ
