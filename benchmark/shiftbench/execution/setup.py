"""The input of a process that works on a suite's runs. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from shiftbench.core.errors import RunFailedError
from shiftbench.core.mirror import address, local
from shiftbench.execution.remarks import Remarks
from shiftbench.leaderboard.leases import holds

if TYPE_CHECKING:
    from shiftbench.suite.file import Resources
    from shiftbench.suite.plan import Run


@dataclass(frozen=True)
class Setup:
    """Everything a process needs for work on a suite's runs; picklable, so it can be sent anywhere.

    Attributes:
        suite: its name, for the rows.
        runs: the plan's runs by id.
        results: the results folder.
        data: the data root, as the suite or ``--data`` names it.
        resources: that a run may use.
        remarks: on the data, for the rows.
        token: of the ``Leases`` that the runs are done under; "" where nobody else can be at them.
        loggers: names of those that show trainings.
        own_resources: by id, of runs whose method has resources of its own.
    """

    suite: str
    runs: Mapping[str, Run]
    results: Path
    data: str
    resources: Resources
    remarks: Remarks
    token: str = ""
    loggers: tuple[str, ...] = ()
    own_resources: Mapping[str, Resources] = field(default_factory=dict)

    def resources_of(self, run_id: str) -> Resources:
        """The hardware for a run's training."""
        return self.own_resources.get(run_id, self.resources)

    def __getstate__(self) -> dict[str, object]:
        """What is sent: where the results are, wherever this machine has its copy of a store."""
        return {**self.__dict__, "results": address(self.results)}

    def __setstate__(self, state: dict[str, object]) -> None:
        """What is received, on a machine that may have its copy elsewhere."""
        self.__dict__.update(state, results=local(str(state["results"])))

    def holds(self, key: str) -> bool:
        """True while a run's or search's files are for the process to write that made this.

        Args:
            key: of its lease, which for a run is its id.
        """
        return not self.token or holds(self.results, key, self.token)

    def check_held(self, key: str) -> None:
        """See that they are still for that process to write.

        Raises:
            RunFailedError: another process has taken the run or search over.
        """
        if not self.holds(key):
            raise RunFailedError(f"{key} has been taken over by another process")
