"""Studies: trials that a journal keeps, from which an interrupted search goes on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from shiftbench.evaluation.metrics.base import Metric

SEARCH, FINALISTS = "search", "finalists"
"""Names of the two studies of a search."""


def open_journal(file: Path, lock_s: int) -> JournalStorage:
    """The journal in a file, made if there is none.

    Args:
        file: of the journal.
        lock_s: seconds after which whoever holds its lock is taken for dead.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileSymlinkLock(str(file), grace_period=lock_s)
    return JournalStorage(JournalFileBackend(str(file), lock))


class Study:
    """Trials of one kind: of the search itself, or of its finalists on fresh seeds.

    Args:
        storage: the journal.
        name: ``SEARCH`` or ``FINALISTS``.
        space: what is proposed.
        measured: the metric that trials are scored with.
        wanted: how many trials must end.
        seed: of what is proposed.
        points: for finalists, the values of each.
    """

    def __init__(
        self,
        storage: JournalStorage,
        name: str,
        space: Mapping[str, BaseDistribution],
        measured: Metric,
        wanted: int,
        seed: int,
        points: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self.storage = storage
        self.name = name
        self.space = dict(space)
        self.measured = measured
        self.wanted = wanted
        self.seed = seed
        self.points = points
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize" if measured.higher_is_better else "minimize",
            load_if_exists=True,
        )

    def trials(self) -> list[FrozenTrial]:
        """The trials that have ended, failed ones included, interrupted ones not."""
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state in ended]

    def propose(self, values: dict[str, Any]) -> None:
        """Have these values tried, unless they were or are already going to be."""
        self._study.enqueue_trial(values, skip_if_exists=True)

    def propose_interrupted(self) -> None:
        """Have those tried again that were under way when an earlier attempt was killed."""
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING:
                self._study.tell(trial.number, state=TrialState.FAIL)
                self._study.enqueue_trial(trial.params)

    def values_of(self, trial: FrozenTrial) -> Mapping[str, Any]:
        """The settings that a trial tried."""
        return trial.params if self.points is None else self.points[trial.params["finalist"]]
