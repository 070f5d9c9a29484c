"""The search of a run on Ray Tune: TPE proposes, ASHA stops, a journal remembers.

Tune's actors are used again from trial to trial, so backbone, data and decoded images are loaded
once for each of them. Every finished trial is in Optuna's journal before the next one
begins; after a crash the journal gives the sampler its history and ASHA its rungs back, and trials
that were under way are proposed again. The best are then tried on fresh seeds, in a second study of
the same journal: the best of many noisy scores is partly luck.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import product
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from shiftbench.core.errors import RunFailedError
from shiftbench.core.files import written_atomically
from shiftbench.distributed.session import pool_size
from shiftbench.execution.trial import Trials
from shiftbench.execution.workspace import Workspace
from shiftbench.leaderboard.runfolder import Found, SearchFolder
from shiftbench.methods.search import Choice, Integer, LogUniform, Uniform

if TYPE_CHECKING:
    from shiftbench.execution.setup import Setup
    from shiftbench.methods.base import TrainedMethod
    from shiftbench.methods.config import TrainingConfig
    from shiftbench.methods.search import Domain, Search, SearchConfig, Values
    from shiftbench.suite.plan import Run

SCORE = "score"
RESOURCE = "resource"
"""What ASHA counts: the reduction factor to the power of the rung."""
SEARCH, FINALISTS = "search", "finalists"
FRESH_SEEDS = 1000
"""Seeds of the finalists start here, above all that a space may hold."""
STALE_LOCK_S = 5
"""Writing the journal takes milliseconds: who holds its lock longer was killed."""
FACTS = ("steps", "images", "seconds", "seed", "error", "milestones")
Report = Callable[[str, int, int, float], None]

TRIALS = pa.schema(
    [
        pa.field("search_id", pa.string(), nullable=False),
        pa.field("study", pa.string(), nullable=False),
        pa.field("number", pa.int32(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("values", pa.string(), nullable=False),
        pa.field("seed", pa.int64()),
        pa.field("score", pa.float64()),
        pa.field(
            "rungs",
            pa.list_(pa.struct([pa.field("steps", pa.int32()), pa.field("score", pa.float64())])),
            nullable=False,
        ),
        pa.field("steps", pa.int64(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("started", pa.timestamp("ms")),
    ]
)


def search(setup: Setup, run: Run, report: Report) -> None:
    """Search for a run's settings, or go on with it, and leave what was found.

    Args:
        setup: what workers are told.
        run: one of those that share the search.
        report: called with the study, the trials ended, the trials in all and the best score.

    Raises:
        RunFailedError: no trial got to its end.
    """
    asked = run.create().search()
    if asked is None or run.search is None:
        raise ValueError(f"{run.label} has no search")
    folder = SearchFolder.of(setup.results, run.search.id)
    if folder.finished:
        return
    folder.path.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    journal = str(folder.journal)
    lock = JournalFileSymlinkLock(journal, grace_period=STALE_LOCK_S)
    storage = JournalStorage(JournalFileBackend(journal, lock))
    config = asked.config
    seed = config.seed + 1_000_003 * run.search.seed
    if not config.n_trials:
        _leave(folder, asked, run.search.id, [], draw(asked, seed), None)
        return

    first = Study(storage, SEARCH, space_of(asked), config.n_trials, seed)
    first.run(setup, run, report)
    best = finalists(first.trials(), config)
    chosen = _chosen(best)
    studies = [first]
    if len(best) > 1:
        grid = {
            "finalist": CategoricalDistribution(list(range(len(best)))),
            "repeat": CategoricalDistribution(list(range(config.repeats))),
        }
        second = Study(
            storage, FINALISTS, grid, len(best) * config.repeats, seed, [t.params for t in best]
        )
        for finalist, repeat in product(*(d.choices for d in grid.values())):
            second.propose({"finalist": finalist, "repeat": repeat})
        second.run(setup, run, report)
        studies.append(second)
        chosen = _best_finalist(best, second.trials())
    _leave(folder, asked, run.search.id, studies, *chosen)


def _leave(
    folder: SearchFolder,
    asked: Search[TrainedMethod[TrainingConfig]],
    search_id: str,
    studies: list[Study],
    values: Values,
    score: float | None,
) -> None:
    """Write down what was tried and what was found."""
    ended = [trial for study in studies for trial in study.trials()]
    with written_atomically(folder.trials) as temporary:
        pq.write_table(_table(search_id, studies), temporary)
    with written_atomically(folder.exported) as temporary:
        temporary.write_text(asked.export(values))
    folder.write_found(
        Found(
            values=dict(values),
            score=score,
            n_trials=len(studies[0].trials()) if studies else 0,
            steps=sum(_fact(trial, "steps", 0) for trial in ended),
            images=sum(_fact(trial, "images", 0) for trial in ended),
            seconds=sum(_fact(trial, "seconds", 0.0) for trial in ended),
        )
    )


def draw(asked: Search[TrainedMethod[TrainingConfig]], seed: int) -> Values:
    """A random point of a search's space."""
    study = optuna.create_study(sampler=RandomSampler(seed=seed))
    return study.ask(fixed_distributions=space_of(asked)).params


class Study:
    """A number of trials that Tune runs and the journal keeps.

    Args:
        storage: the journal.
        name: of the study in it.
        space: what is proposed.
        trials: how many must end.
        seed: of what is proposed.
        points: for finalists, the values of each.
    """

    def __init__(
        self,
        storage: JournalStorage,
        name: str,
        space: Mapping[str, BaseDistribution],
        trials: int,
        seed: int,
        points: list[dict[str, Any]] | None = None,
    ) -> None:
        self._storage = storage
        self.name = name
        self._space = dict(space)
        self._wanted = trials
        self._seed = seed
        self.points = points
        self._study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", load_if_exists=True
        )

    def trials(self) -> list[FrozenTrial]:
        """The trials that have ended, failed ones included, interrupted ones not."""
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state in ended]

    def propose(self, values: dict[str, Any]) -> None:
        """Have these values tried, unless they were or are already going to be."""
        self._study.enqueue_trial(values, skip_if_exists=True)

    def run(
        self,
        setup: Setup,
        run: Run,
        report: Report,
    ) -> None:
        """Run what is left of the trials."""
        config = cast("Search[TrainedMethod[TrainingConfig]]", run.create().search()).config
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING:  # when an earlier attempt was killed
                self._study.tell(trial.number, state=TrialState.FAIL)
                self._study.enqueue_trial(trial.params)
        ended = self.trials()
        left = self._wanted - len(ended)
        if left <= 0:
            return
        scheduler: TrialScheduler = FIFOScheduler()
        milestones = config.milestones()
        if self.points is None and config.scheduler == "asha" and len(milestones) > 1:
            scheduler = _asha(config, ended)
        resources = setup.resources
        concurrent = pool_size(ray.cluster_resources(), resources)
        trainable = tune.with_parameters(SearchTrial, setup=setup, run=run, points=self.points)
        bundle = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
        proposals = Proposals(
            self._space,
            metric=SCORE,
            mode="max",
            # A resumed search must not repeat the draws that it began with.
            sampler=_sampler(config, self._seed + len(ended)),
            study_name=self.name,
            storage=self._storage,
        )
        if run.search is None:
            raise ValueError(f"{run.label} has no search")
        folder = SearchFolder.of(setup.results, run.search.id).path
        for left_behind in folder.glob("tune-*"):  # by an attempt that was killed
            shutil.rmtree(left_behind, ignore_errors=True)
        with TemporaryDirectory(prefix="tune-", dir=folder, ignore_cleanup_errors=True) as d:
            tune.Tuner(
                tune.with_resources(trainable, {k: v for k, v in bundle.items() if v}),
                tune_config=tune.TuneConfig(
                    metric=SCORE,
                    mode="max",
                    num_samples=left,
                    max_concurrent_trials=min(concurrent, resources.max_trials or concurrent),
                    reuse_actors=True,
                    search_alg=proposals,
                    scheduler=scheduler,
                ),
                run_config=tune.RunConfig(
                    name=self.name,
                    storage_path=d,
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=1),
                    callbacks=[_Watch(self, self._wanted, report)],
                ),
            ).fit()


class Proposals(OptunaSearch):  # type: ignore[misc]
    """Tune's Optuna search, which also writes what each trial did and cost.

    A trial that ASHA stopped is told as pruned, since its score is of fewer steps; one that failed
    has the lowest score, so that the sampler avoids what is like it.
    """

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Note the score at a rung."""
        trial = self._ot_trials[trial_id]
        trial.report(result[SCORE], result[RESOURCE])
        for name in FACTS:
            trial.set_user_attr(name, result[name])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the sampler how a trial ended."""
        if trial_id in self._completed_trials:
            return
        self._completed_trials.add(trial_id)
        trial = self._ot_trials[trial_id]
        if error or not result or SCORE not in result:  # its process died, twice
            trial.set_user_attr("error", "the process of the trial died")
            self._ot_study.tell(trial, 0.0, state=TrialState.COMPLETE)
            return
        self.on_trial_result(trial_id, result)
        if result["error"] or result["last"]:
            self._ot_study.tell(trial, result[SCORE], state=TrialState.COMPLETE)
        else:
            self._ot_study.tell(trial, state=TrialState.PRUNED)


class SearchTrial(tune.Trainable):  # type: ignore[misc]
    """A process that runs one trial after another; each step of Tune is a rung."""

    def setup(
        self,
        config: dict[str, Any],
        setup: Setup | None = None,
        run: Run | None = None,
        points: list[dict[str, Any]] | None = None,
    ) -> None:
        """Load what all trials share, and start the first."""
        if setup is None or run is None:
            raise ValueError("a trial needs the setup and the run")
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU")
        torch.set_num_threads(max(1, int(setup.resources.cpus_per_worker)))
        self._points = points
        workspace = Workspace(setup, torch.device("cuda" if gpus else "cpu"))
        self._trials = Trials(workspace, run)
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        search = self._trials.search.config
        values, self._seed = dict(config), int(config.get("seed", search.seed))
        self._milestones = search.milestones()
        if self._points is not None:
            values = self._points[config["finalist"]]
            self._seed = FRESH_SEEDS + config["repeat"]
            self._milestones = (search.inner_steps,)
        self._rung = 0
        self._reduction = search.reduction_factor
        self._trials.start(values, self._seed)

    def step(self) -> dict[str, Any]:
        """Train to the next rung and score."""
        progress = self._trials.advance(self._milestones[self._rung])
        resource = self._reduction**self._rung
        self._rung += 1
        last = self._rung == len(self._milestones)
        return {
            SCORE: progress.score,
            RESOURCE: resource,
            "steps": progress.steps,
            "images": progress.images,
            "seconds": progress.seconds,
            "error": progress.error,
            "seed": self._seed,
            "milestones": list(self._milestones),
            "last": last,
            "done": last or bool(progress.error),
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in the same process."""
        self._begin(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: a trial is short, and one that was interrupted starts again."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing."""


class _Watch(tune.Callback):  # type: ignore[misc]
    """Reports every trial that ends.

    Tune pickles all it is given, for a way to resume that is not ours: this becomes one that
    reports nothing.
    """

    def __init__(self, study: Study, wanted: int, report: Report) -> None:
        self._study, self._wanted, self._report = study, wanted, report

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        return tune.Callback, ()

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        ended = self._study.trials()
        best = max((t.value for t in ended if t.value is not None), default=0.0)
        self._report(self._study.name, len(ended), self._wanted, best)


def space_of(asked: Search[TrainedMethod[TrainingConfig]]) -> dict[str, BaseDistribution]:
    """A search's space in Optuna's terms."""
    return {name: _distribution(domain) for name, domain in asked.space.items()}


def _distribution(domain: Domain) -> BaseDistribution:
    match domain:
        case Uniform():
            return FloatDistribution(domain.low, domain.high)
        case LogUniform():
            return FloatDistribution(domain.low, domain.high, log=True)
        case Integer():
            return IntDistribution(domain.low, domain.high)
        case Choice():
            return CategoricalDistribution(domain.values)


def _sampler(config: SearchConfig, seed: int) -> BaseSampler:
    if config.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(
        seed=seed, n_startup_trials=config.n_startup_trials, multivariate=True, constant_liar=True
    )


def _asha(config: SearchConfig, ended: list[FrozenTrial]) -> ASHAScheduler:
    """ASHA with the rungs that ended trials have filled; Tune itself does not keep them."""
    top = config.reduction_factor ** (len(config.milestones()) - 1)
    scheduler = ASHAScheduler(
        time_attr=RESOURCE, max_t=top, grace_period=1, reduction_factor=config.reduction_factor
    )
    for milestone, recorded in scheduler._brackets[0]._rungs:
        for i, trial in enumerate(ended):
            if milestone in trial.intermediate_values:
                recorded[f"ended-{i}"] = trial.intermediate_values[milestone]
    return scheduler


def finalists(trials: list[FrozenTrial], config: SearchConfig) -> list[FrozenTrial]:
    """The best trials that trained to the end, best first; of equal ones the earlier first.

    Raises:
        RunFailedError: there is none.
    """
    whole = [t for t in trials if t.state == TrialState.COMPLETE and not _fact(t, "error", "")]
    if not whole:
        reasons = {_fact(trial, "error", "") for trial in trials} - {""}
        why = f": {min(reasons)}" if reasons else ""
        raise RunFailedError(f"no trial of the search got to its end{why}")
    whole.sort(key=lambda trial: (-cast("float", trial.value), trial.number))
    return whole[: max(1, config.finalists)]


def _chosen(best: list[FrozenTrial]) -> tuple[Values, float]:
    return best[0].params, cast("float", best[0].value)


def _best_finalist(best: list[FrozenTrial], repeats: list[FrozenTrial]) -> tuple[Values, float]:
    """The finalist with the highest mean over fresh seeds; of equal ones the better before."""
    scores: dict[int, list[float]] = defaultdict(list)
    for trial in repeats:
        scores[trial.params["finalist"]].append(cast("float", trial.value))
    means = {finalist: fmean(of) for finalist, of in sorted(scores.items())}
    winner = max(means, key=lambda finalist: means[finalist])
    return best[winner].params, means[winner]


def _fact(trial: FrozenTrial, name: str, default: Any) -> Any:
    return trial.user_attrs.get(name, default)


def _table(search_id: str, studies: list[Study]) -> pa.Table:
    """Every ended trial, in the order of their numbers."""
    rows = []
    for study in studies:
        for trial in study.trials():
            values = trial.params
            if study.points is not None:
                values = study.points[values["finalist"]]
            rungs = zip(
                _fact(trial, "milestones", []),
                [score for _, score in sorted(trial.intermediate_values.items())],
                strict=False,
            )
            error = _fact(trial, "error", "")
            whole = trial.state == TrialState.COMPLETE
            last = max(trial.intermediate_values, default=None)
            rows.append(
                {
                    "search_id": search_id,
                    "study": study.name,
                    "number": trial.number,
                    "state": "failed" if error else "complete" if whole else "stopped",
                    "values": json.dumps(values),
                    "seed": _fact(trial, "seed", None),
                    "score": None if last is None else trial.intermediate_values[last],
                    "rungs": [{"steps": steps, "score": score} for steps, score in rungs],
                    "steps": _fact(trial, "steps", 0),
                    "images": _fact(trial, "images", 0),
                    "seconds": _fact(trial, "seconds", 0.0),
                    "error": error,
                    "started": trial.datetime_start,
                }
            )
    return pa.Table.from_pylist(rows, schema=TRIALS)
