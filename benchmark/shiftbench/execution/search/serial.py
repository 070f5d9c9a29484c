"""The trials of a search in this process, one after the other. No ray.

They are proposed, scored and kept as on a cluster, where the order in which trials end decides what
the sampler and ASHA know; so does their number here, which is one at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.trial import Trial, TrialState

from shiftbench.core.errors import disk_full, last_line
from shiftbench.execution.search.record import FACTS
from shiftbench.execution.search.space import sampler
from shiftbench.execution.search.trial import Trials, TrialSettings

if TYPE_CHECKING:
    from shiftbench.evaluation.metrics.base import Metric
    from shiftbench.execution.search.study import Study
    from shiftbench.execution.workspace import Workspace
    from shiftbench.methods.search import SearchConfig
    from shiftbench.suite.plan import Run


def run_trials(
    workspace: Workspace,
    run: Run,
    study: Study,
    on_trial: Callable[[str, int, int], None] = lambda study, ended, wanted: None,
    *,
    raising: bool = False,
) -> None:
    """Run what is left of a study's trials.

    Args:
        workspace: of this process.
        run: one of those that share the search.
        study: which trials, and where they are kept.
        on_trial: called with the study's name, the trials ended and the trials in all, whenever a
            trial has ended.
        raising: whether an error of a trial is raised; else the trial has failed.
    """
    trials = Trials(workspace, run)
    config = trials.search.config
    study.propose_interrupted()
    proposals = optuna.load_study(
        study_name=study.name,
        storage=study.storage,
        # A resumed search must not repeat the draws that it began with.
        sampler=sampler(config, study.seed + study.asked),
    )
    rungs = Rungs(config, study.measured)
    if study.points is None:
        for ended in study.trials():
            for resource, score in ended.intermediate_values.items():
                rungs.add(resource, score)
    try:
        while len(study.trials()) < study.wanted:
            trial = proposals.ask(study.space)
            try:
                score, state = _run(trials, trial, study, rungs)
            except Exception as error:
                if raising or disk_full(error):  # of which the trial's values are not the cause
                    raise
                trial.set_user_attr("error", last_line(error))
                score, state = study.measured.worst, TrialState.COMPLETE
            proposals.tell(trial, score if state == TrialState.COMPLETE else None, state)
            on_trial(study.name, len(study.trials()), study.wanted)
    finally:
        trials.close()


def _run(trials: Trials, trial: Trial, study: Study, rungs: Rungs) -> tuple[float, TrialState]:
    """Train one trial from rung to rung; its last score and how it ended."""
    config = trials.search.config
    settings = TrialSettings.of(config, trial.params, study.points)
    trials.start(settings.values, settings.seed)
    for rung, steps in enumerate(settings.milestones):
        report = trials.advance(steps)
        resource = config.reduction_factor**rung
        trial.report(report.score, resource)
        told = vars(report) | {"seed": settings.seed, "milestones": list(settings.milestones)}
        for name in FACTS:
            trial.set_user_attr(name, told[name])
        if report.error or rung + 1 == len(settings.milestones):
            return report.score, TrialState.COMPLETE
        if not rungs.passes(resource, report.score):
            return report.score, TrialState.PRUNED
    raise AssertionError("a trial has at least one milestone")


class Rungs:
    """The rungs of ASHA (arXiv 1810.05934), each of which keeps the best 1/η of its trials.

    A trial is compared with those that were there before it, as in Ray's.
    """

    def __init__(self, config: SearchConfig, measured: Metric) -> None:
        self._share = 1 - 1 / config.reduction_factor
        self._measured = measured
        self._there: dict[int, list[float]] = defaultdict(list)

    def add(self, resource: int, score: float) -> None:
        """A trial has got to a rung."""
        self._there[resource].append(self._measured.merit(score))

    def passes(self, resource: int, score: float) -> bool:
        """Add a trial that got to a rung; whether it goes on."""
        before = [*self._there[resource]]
        self.add(resource, score)
        return not before or bool(self._there[resource][-1] >= np.quantile(before, self._share))
