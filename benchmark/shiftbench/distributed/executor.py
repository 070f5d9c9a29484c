"""All jobs of a launch on a Ray cluster, or on one started on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shiftbench.execution.work import Work
    from shiftbench.suite.plan import Plan


@dataclass(frozen=True)
class RayExecutor:
    """Does the jobs of a launch on Ray: stages on warm workers, searches on Tune, groups on Train.

    Attributes:
        address: of a running cluster; ``None`` joins the one that a submitted job runs in
            (``RAY_ADDRESS``), or else starts a cluster on this machine.
    """

    address: str | None = None

    def check(self, plan: Plan) -> None:
        """Nothing: what a cluster has is known when it is joined."""

    def execute(self, work: Work) -> None:
        """Join or start a cluster, do all jobs there, and leave it.

        Raises:
            InputError: no cluster answers, or it is too small for the suite's ``resources``.
        """
        from shiftbench.distributed.session import session

        with session(self.address, work.setup.resources):
            # This imports ray, which reads the environment that the session has set.
            from shiftbench.distributed.dispatch import dispatch

            dispatch(work)
