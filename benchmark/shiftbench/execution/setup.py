"""The input of a process that works on a suite's runs. No torch."""

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
    """Everything a process needs for work on a suite's runs; picklable, so it can be sent anywhere.

    Attributes:
        suite: its name, for the rows.
        runs: the plan's runs by id.
        results: the results folder.
        data: the data root, as the suite or ``--data`` names it.
        resources: that a run may use.
        remarks: on the data, for the rows.
    """

    suite: str
    runs: Mapping[str, Run]
    results: Path
    data: str
    resources: Resources
    remarks: Remarks
