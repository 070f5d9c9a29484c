"""The trials of a search on Ray Tune: the sampler proposes, ASHA stops, a journal remembers.

One trial of Tune is one configuration. Its actors are used again, so backbone, data and decoded
images are loaded once for each of them. Tune keeps nothing itself: after a crash the journal gives
ASHA its rungs back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from optuna.trial import FrozenTrial, TrialState
from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from shiftbench.core.errors import disk_full, last_line, sendable
from shiftbench.core.files import remove
from shiftbench.distributed.storage import shared_storage
from shiftbench.distributed.trainable import RESOURCE, SCORE, Given, SearchTrial
from shiftbench.execution.group_rules import bundle
from shiftbench.execution.search.record import FACTS
from shiftbench.execution.search.space import sampler
from shiftbench.leaderboard.runfolder import SearchFolder

if TYPE_CHECKING:
    from shiftbench.evaluation.metrics.base import Metric
    from shiftbench.execution.search.study import Study
    from shiftbench.execution.setup import Setup
    from shiftbench.methods.search import SearchConfig
    from shiftbench.suite.plan import Run

OnTrial = Callable[[str, int, int, float], None]


class AbandonedError(RuntimeError):
    """A search was ended from outside; its journal says where it goes on."""


@dataclass(frozen=True)
class Slots:
    """The part of the cluster that a search may use, which changes as it runs.

    Tune pickles all it is given, for a way to resume that is not ours: this becomes no slots.

    Attributes:
        granted: the trials that may run at once now.
        taken: told how many do, whenever that changes.
        begun: told of each trial that is to begin.
        ended: told of each trial that has ended.
        over: whether the search is to end at once.
        lost_a_node: whether the cluster has lost one since a moment of the monotonic clock.
    """

    granted: Callable[[], int] = int
    taken: Callable[[int], object] = int
    begun: Callable[[str], object] = str
    ended: Callable[[str], object] = str
    over: Callable[[], bool] = bool
    lost_a_node: Callable[[float], bool] = lambda since: False

    def __reduce__(self) -> tuple[type[Slots], tuple[()]]:
        return Slots, ()


def run_trials(
    setup: Setup, run: Run, study: Study, slots: Slots, on_trial: OnTrial, progress: Any = None
) -> None:
    """Run what is left of a study's trials, those again whose processes or nodes died.

    Args:
        setup: for the processes that run trials.
        run: one of those that share the search.
        study: which trials, and where they are kept.
        slots: for the trials.
        on_trial: called with the study's name, the trials ended, the trials in all and the best
            score, whenever a trial has ended.
        progress: handle of the ``ProgressActor``, which is told what trials print.
    """
    study.propose_interrupted()
    while len(study.trials()) < study.wanted:
        _run_round(setup, run, study, slots, on_trial, progress)


def _run_round(
    setup: Setup, run: Run, study: Study, slots: Slots, on_trial: OnTrial, progress: Any
) -> None:
    """Run as many trials as are left; of those that die, none ends."""
    asked = run.create().search()
    if asked is None or run.search is None:
        raise ValueError(f"{run.label} has no search")
    config, resources = asked.config, setup.resources
    ended = study.trials()
    scheduler: TrialScheduler = FIFOScheduler()
    if study.points is None and len(config.milestones()) > 1:
        scheduler = asha(config, ended, study.measured)
    given = [ray.put(Given(setup, run, study.points))]
    trainable = tune.with_parameters(SearchTrial, run_id=run.id, given=given, progress=progress)
    mode = "max" if study.measured.higher_is_better else "min"
    proposals = Proposals(
        study,
        slots,
        retries=resources.limits.job_retries,
        metric=SCORE,
        mode=mode,
        # A resumed search must not repeat the draws that it began with.
        sampler=sampler(config, study.seed + study.asked),
    )
    folder = SearchFolder.of(setup.results, run.search.id).path
    for left_behind in folder.glob("tune-*"):  # by an attempt that was killed
        remove(left_behind)
    with shared_storage(folder, "tune-") as storage:
        tune.Tuner(
            tune.with_resources(trainable, bundle(resources)),
            tune_config=tune.TuneConfig(
                metric=SCORE,
                mode=mode,
                num_samples=study.wanted - len(ended),
                reuse_actors=True,
                search_alg=proposals,
                scheduler=scheduler,
            ),
            run_config=tune.RunConfig(
                name=study.name,
                **storage,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[_Watch(study, proposals, slots, on_trial)],
            ),
        ).fit()


def asha(config: SearchConfig, ended: Sequence[FrozenTrial], measured: Metric) -> ASHAScheduler:
    """ASHA (arXiv 1810.05934) with the rungs that ended trials have filled.

    Each rung keeps the top 1/η of its trials, and the next one trains η times longer. Tune itself
    does not keep the rungs.
    """
    top = config.reduction_factor ** (len(config.milestones()) - 1)
    scheduler = ASHAScheduler(
        time_attr=RESOURCE, max_t=top, grace_period=1, reduction_factor=config.reduction_factor
    )
    for milestone, recorded in scheduler._brackets[0]._rungs:
        for i, trial in enumerate(ended):
            if milestone in trial.intermediate_values:
                # Tune's rungs hold the negatives of what is to be minimized.
                recorded[f"ended-{i}"] = measured.merit(trial.intermediate_values[milestone])
    return scheduler


class Proposals(OptunaSearch):  # type: ignore[misc]
    """Tune's Optuna search, which also writes what each trial did and cost.

    A trial that ASHA stopped is told as pruned, since its score is of fewer steps; one that failed
    has the worst score, so that the sampler avoids what is like it. One whose process or node died
    has no score and is proposed again.

    Args:
        study: whose space is searched, and which keeps the trials.
        slots: for the trials.
        retries: deaths after which the same values are tried again; any number, if a node went.
        options: those of ``OptunaSearch``.
    """

    def __init__(self, study: Study, slots: Slots, *, retries: int, **options: Any) -> None:
        super().__init__(study.space, study_name=study.name, storage=study.storage, **options)
        self._kept, self._slots, self._retries = study, slots, retries
        self._began: dict[str, float] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial; ``None``, which makes Tune ask again later, while no slot is free."""
        if self._running >= self._slots.granted():
            return None
        suggested: dict[str, Any] | None = super().suggest(trial_id)
        self._slots.begun(trial_id)
        self._began[trial_id] = time.monotonic()
        self._slots.taken(self._running)
        return suggested

    @property
    def _running(self) -> int:
        return len(self._ot_trials) - len(self._completed_trials)

    def _completed(self, trial_id: str) -> None:
        self._completed_trials.add(trial_id)
        self._slots.ended(trial_id)
        self._slots.taken(self._running)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Note the score at a rung."""
        trial = self._ot_trials[trial_id]
        trial.report(result[SCORE], result[RESOURCE])
        for name in FACTS:
            trial.set_user_attr(name, result[name])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the sampler how a trial with a result ended; see ``without_result`` for others."""
        if error or not result or trial_id in self._completed_trials:
            return
        self._completed(trial_id)
        trial = self._ot_trials[trial_id]
        self.on_trial_result(trial_id, result)
        if result["error"] or result["last"]:
            self._ot_study.tell(trial, result[SCORE], state=TrialState.COMPLETE)
        else:
            self._ot_study.tell(trial, state=TrialState.PRUNED)

    def without_result(self, trial_id: str, error: Exception | None) -> None:
        """Tell the sampler that a trial raised an error, or that its process or node died.

        Raises:
            RunFailedError: there was no space, of which the trial's values are not the cause.
        """
        if trial_id in self._completed_trials:
            return
        if error is not None and disk_full(error):
            raise sendable(error)
        self._completed(trial_id)
        trial = self._ot_trials[trial_id]
        if isinstance(error, RayTaskError):
            trial.set_user_attr("error", last_line(error.cause or error))
            self._ot_study.tell(trial, self._kept.measured.worst, state=TrialState.COMPLETE)
        else:
            preempted = self._slots.lost_a_node(self._began[trial_id])
            self._kept.died(trial, self._retries, preempted=preempted)


class _Watch(tune.Callback):  # type: ignore[misc]
    """Reports every trial that ends, tells ``Proposals`` why one had to, and ends the search.

    Tune pickles all it is given, for a way to resume that is not ours: this becomes one that
    reports nothing.
    """

    def __init__(self, study: Study, proposals: Proposals, slots: Slots, on_trial: OnTrial) -> None:
        self._study, self._proposals, self._slots = study, proposals, slots
        self._on_trial = on_trial

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        return tune.Callback, ()

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        if self._slots.over():
            raise AbandonedError("the launch ends before the search does")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._proposals.without_result(trial.trial_id, trial.get_pickled_error())

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        ended = self._study.trials()
        measured = self._study.measured
        scores = (trial.value for trial in ended if trial.value is not None)
        best = max(scores, key=measured.merit, default=measured.worst)
        self._on_trial(self._study.name, len(ended), self._study.wanted, best)
