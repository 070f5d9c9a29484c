"""Studies: trials that a journal keeps, from which an interrupted search goes on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, Trial, TrialState

from shiftbench.core.mirror import publish
from shiftbench.evaluation.metrics.base import Metric
from shiftbench.execution.begun import TRIAL_ENDED

SEARCH, FINALISTS = "search", "finalists"
"""Names of the two studies of a search."""
_DEATHS = "deaths"
"""Those of earlier trials of the same values, too."""
_REPEATS = "repeats"
"""Number of the trial whose values are tried again."""
_GIVEN_UP = "given_up"


def open_journal(
    file: Path, lock_s: int, tell: Callable[[str], None] = lambda line: None
) -> JournalStorage:
    """The journal in a file, made if there is none, and repaired if its last line is cut short.

    Args:
        file: of the journal.
        lock_s: seconds after which whoever holds its lock is taken for dead.
        tell: shows a line that says what was repaired.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileSymlinkLock(str(file), grace_period=lock_s)
    if file.exists():
        lock.acquire()
        try:
            _repair(file, tell)
        finally:
            lock.release()
    return JournalStorage(_Journal(str(file), lock))


class _Journal(JournalFileBackend):
    """The journal's file, which everybody sees again whenever a trial has begun or ended."""

    def __init__(self, file: str, lock: JournalFileSymlinkLock) -> None:
        super().__init__(file, lock)
        self._path = Path(file)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries."""
        super().append_logs(logs)
        if any(entry.get("op_code") == TRIAL_ENDED for entry in logs):
            publish(self._path)


def _repair(file: Path, tell: Callable[[str], None]) -> None:
    """Cut a journal off behind its last whole line: a process was killed while it wrote the next.

    The trial that the next line was of has then not ended, and is proposed again.
    """
    with file.open("r+b") as journal:
        whole = 0
        for line in journal:
            if not _is_whole(line):
                break
            whole += len(line)
        cut = file.stat().st_size - whole
        if cut:
            journal.truncate(whole)
            tell(
                f"{file}: its end was cut short; {cut} bytes of no use removed, the search goes on"
            )


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return line.endswith(b"\n")


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
        """The trials that have ended, failed ones included, and those that were given up.

        Interrupted ones are not among them, nor deaths after which a trial was proposed again.
        """
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        return [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state in ended or trial.user_attrs.get(_GIVEN_UP)
        ]

    def deaths(self) -> list[FrozenTrial]:
        """The trials whose process or node died; their values were proposed again."""
        return [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if has_died(trial) and not trial.user_attrs[_GIVEN_UP]
        ]

    @property
    def asked(self) -> int:
        """How many trials there are, ended or not."""
        return len(self._study.get_trials(deepcopy=False))

    def propose(self, values: dict[str, Any]) -> None:
        """Have these values tried, unless they were or are already going to be."""
        self._study.enqueue_trial(values, skip_if_exists=True)

    def propose_interrupted(self) -> None:
        """Have those tried again that were under way when an earlier attempt was killed."""
        trials = self._study.get_trials(deepcopy=False)
        repeated = {trial.user_attrs.get(_REPEATS) for trial in trials}
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                if trial.number not in repeated and not trial.user_attrs.get(_GIVEN_UP):
                    self._repeat(trial)
                self._study.tell(trial.number, state=TrialState.FAIL)

    def died(self, trial: Trial, retries: int, *, preempted: bool = False) -> None:
        """The process or node of a trial died, which says nothing of its values: try them again.

        Args:
            trial: that was under way. It gets no score, and no sampler learns of it.
            retries: deaths after which the same values are tried again; then they are given up.
            preempted: true if a node went, which does not count as a death.
        """
        deaths = trial.user_attrs.get(_DEATHS, 0) + (not preempted)
        trial.set_user_attr(_DEATHS, deaths)
        trial.set_user_attr(_GIVEN_UP, deaths > retries)
        trial.set_user_attr("error", "its process or node died")
        if deaths <= retries:
            self._repeat(self._study.get_trials(deepcopy=False)[trial.number])
        self._study.tell(trial, state=TrialState.FAIL)

    def _repeat(self, trial: FrozenTrial) -> None:
        """Have the values of a trial tried again, which has not been told to have ended yet.

        Whoever is killed in between leaves both, of which ``propose_interrupted`` makes one.
        """
        # Of one that was proposed, not all values need have been noted as its own yet.
        values = trial.system_attrs.get("fixed_params", {}) | trial.params
        deaths = {key: value for key, value in trial.user_attrs.items() if key == _DEATHS}
        self._study.enqueue_trial(values, {_REPEATS: trial.number, **deaths})

    def ask(self, sampler: BaseSampler) -> Trial:
        """The next trial: one that is to be repeated, or what a sampler proposes."""
        self._study.sampler = sampler
        return self._study.ask(self.space)

    def tell(self, trial: Trial, score: float, facts: Mapping[str, Any]) -> None:
        """A trial has ended at its only rung, with a score and what ``record.FACTS`` names."""
        for name, fact in facts.items():
            trial.set_user_attr(name, fact)
        trial.report(score, 1)
        self._study.tell(trial, score)

    def values_of(self, trial: FrozenTrial) -> Mapping[str, Any]:
        """The settings that a trial tried."""
        return trial.params if self.points is None else self.points[trial.params["finalist"]]


def has_died(trial: FrozenTrial) -> bool:
    """True if the process or node of a trial died."""
    return trial.state == TrialState.FAIL and _GIVEN_UP in trial.user_attrs
