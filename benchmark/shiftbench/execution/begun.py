"""What of the runs and searches that were begun need not be done again. No torch, no optuna."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from shiftbench.execution.progress import STALE_S
from shiftbench.leaderboard.runfolder import RunFolder, SearchFolder

if TYPE_CHECKING:
    from shiftbench.execution.schedule import Schedule
    from shiftbench.suite.plan import Run

TRIAL_ENDED = 6
_ENDED_STATES = (1, 2)
"""Optuna's journal: the operation that sets a trial's state, and the states complete and pruned."""


class Begun:
    """The work under way in a results folder, read from the files that workers leave.

    Args:
        results: the results folder; nothing is begun if there is none.
        now: seconds since 1970, on the clock of the storage.

    Attributes:
        runs: ids of the runs that have a folder.
    """

    def __init__(self, results: Path, now: Callable[[], float] = time.time) -> None:
        self._results = results
        self._now = now
        self.runs = _names(results / "runs")
        self._searches = _names(results / "searches")

    def fitted(self, run: Run) -> bool:
        """True if a run's first stage is done."""
        return run.id in self.runs and RunFolder.of(self._results, run.id).fitted

    def steps(self, run: Run, schedule: Schedule) -> int:
        """Steps of a training that are done: those so far, or those of the last state saved."""
        if run.id not in self.runs:
            return 0
        folder = RunFolder.of(self._results, run.id)
        if folder.fitted:
            return schedule.steps
        try:
            written = folder.progress.stat().st_mtime
            step = int(json.loads(folder.progress.read_text())["step"])
        except (OSError, ValueError, KeyError):  # it has not begun, or is written right now
            return 0
        if self._now() - written >= STALE_S:  # interrupted: it goes on from what was saved
            step = _saved_steps(folder) if folder.saved else 0
        return min(step, schedule.steps)

    def predicted(
        self, run: Run, variants: Collection[str], sets: Collection[str]
    ) -> set[tuple[str, str]]:
        """The pairs of a variant and a set that a run has predicted."""
        if run.id not in self.runs:
            return set()
        folder = RunFolder.of(self._results, run.id)
        there = {*folder.parts()}
        return {
            (variant, name)
            for variant in variants
            for name in sets
            if folder.part(variant, name) in there
        }

    def trials(self, search_id: str) -> int | None:
        """Trials of a search that have ended; ``None`` if it has finished."""
        if search_id not in self._searches:
            return 0
        folder = SearchFolder.of(self._results, search_id)
        return None if folder.finished else ended_trials(folder.journal)


def ended_trials(journal: Path) -> int:
    """Trials in a search's journal that were not interrupted; a line that is cut short is none."""
    ended = set()
    with suppress(OSError), journal.open("rb") as lines:
        for line in lines:
            with suppress(ValueError):
                entry = json.loads(line)
                if entry.get("op_code") == TRIAL_ENDED and entry.get("state") in _ENDED_STATES:
                    ended.add(entry.get("trial_id"))
    return len(ended)


def _saved_steps(folder: RunFolder) -> int:
    """Steps of the last state that a training saved: the curve is written just before it."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowInvalid

    try:
        return int(pq.read_metadata(folder.metrics).num_rows)
    except (OSError, ArrowInvalid):
        return 0


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
