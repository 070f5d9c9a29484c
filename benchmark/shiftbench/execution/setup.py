"""Everything that a process must be told before it can work on a suite's runs. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shiftbench.execution.remarks import Remarks

if TYPE_CHECKING:
    from shiftbench.suite.file import Resources
    from shiftbench.suite.plan import Run


@dataclass(frozen=True)
class Setup:
    """What every process that works on a suite is told; it can be sent to other machines.

    Attributes:
        suite: its name, for the rows.
        runs: the plan's runs by id.
        results: the results folder.
        data: the data root, as the suite or ``--data`` names it.
        resources: what a run may use.
        remarks: what the rows must say of the data.
    """

    suite: str
    runs: Mapping[str, Run]
    results: Path
    data: str
    resources: Resources
    remarks: Remarks
