"""The contract of an executor, which does the jobs of a launch. No ray, no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from shiftbench.execution.work import Work
    from shiftbench.suite.plan import Plan


class Executor(Protocol):
    """Does the jobs of a launch, in any order that their graph allows and anywhere.

    Each job is one of the stages (``execution.stages``) or a search, done with a ``Workspace`` of
    the process that does it. An executor that is killed loses only what was under way.
    """

    @property
    def most(self) -> int | None:
        """Most workers at once; ``None`` as many as fit this machine, 0 where nobody knows yet."""

    def check(self, plan: Plan) -> None:
        """See that this executor can do a plan, before anything is spent.

        Raises:
            InputError: it never could.
        """

    def prepare(self, plan: Plan) -> None:
        """Begin what takes long to start, since some runs of a plan are not done; do not wait."""

    def release(self) -> None:
        """Let go of what was prepared; called in any case after ``prepare``."""

    def execute(self, work: Work) -> None:
        """Do all jobs, and settle each as soon as it has ended.

        Raises:
            InputError: what the suite asks for is not there.
        """
