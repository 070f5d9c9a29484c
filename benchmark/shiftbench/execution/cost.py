"""The state of a plan: what of it is done, and what the rest will cost. No torch, no ray."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from shiftbench.execution.amounts import Amount, Cost
from shiftbench.execution.begun import Begun
from shiftbench.execution.beside import to_evaluate
from shiftbench.execution.measured import measured_speeds
from shiftbench.execution.schedule import make_schedule
from shiftbench.execution.sizes import Sizes
from shiftbench.execution.throughput import Device, Rates, calibration_of, device_of
from shiftbench.leaderboard.schema import FailedRun, Row, runs
from shiftbench.methods.base import TrainedMethod
from shiftbench.models.arithmetic import tower_of
from shiftbench.suite.plan import Plan, Run

if TYPE_CHECKING:
    from shiftbench.suite.file import Resources

State = Literal["done", "failed", "left"]
Alike = tuple[str, str, str, int | None]
"""What runs have in common that cost the same: task, backbone, label and shots, and no seed."""
STATES: tuple[State, ...] = ("done", "failed", "left")
WEIGHT_BYTES = 4
"""Of a parameter in a file of weights."""
PREDICTION_BYTES = 60
"""Of a prediction in a file, about: 53 to 64 in the miniature's, compressed."""


@dataclass(frozen=True)
class PlannedGroup:
    """The runs of one task, backbone and label, with the cost of those that are not done.

    Attributes:
        same_as: the label under which these runs are counted; ``None`` for this one.
    """

    task: str
    backbone: str
    label: str
    done: int
    failed: int
    left: int
    cost: Cost
    same_as: str | None = None

    @property
    def runs(self) -> int:
        """Number of runs, in any state."""
        return self.done + self.failed + self.left


@dataclass(frozen=True)
class RunFailure:
    """A run that failed, and why."""

    run: Run
    reason: str


@dataclass(frozen=True)
class PlanState:
    """The groups of a plan in its order, and the runs of it that failed.

    Attributes:
        groups: in the plan's order.
        failures: runs that failed.
        estimator: of what is left.
        longest: seconds of the longest run that is left.
        peak_memory: most bytes that a worker of a run of these backbones has held; ``None`` where
            none has run.
    """

    groups: tuple[PlannedGroup, ...]
    failures: tuple[RunFailure, ...]
    estimator: Estimator
    longest: float = 0.0
    peak_memory: int | None = None

    def count(self, state: State) -> int:
        """Number of runs in a state; one that has two labels counts once."""
        return sum(getattr(group, state) for group in self.groups if group.same_as is None)

    @property
    def device(self) -> Device:
        """The device that times are estimated for, where nothing was measured."""
        return self.estimator.rates.device

    @property
    def cost(self) -> Cost:
        """Of all runs that are not done."""
        return sum((group.cost for group in self.groups if group.same_as is None), Cost())


def plan_state(
    plan: Plan,
    results: Path,
    root: str | None,
    device: Device | None = None,
    elsewhere: Collection[str] = (),
) -> PlanState:
    """Compare a plan with the leaderboard of a results folder.

    Args:
        plan: the runs.
        results: the results folder; nothing is done if there is none.
        root: the data root; without it only documented sizes are known.
        device: that times are estimated for where nothing was measured; by default this machine's.
        elsewhere: ids of runs that are done in other results.

    Raises:
        InputError: the leaderboard cannot be read.
    """
    from shiftbench.leaderboard.store import read

    table = read(results)
    ended = {run.run_id: run for run in runs(table)}
    more = to_evaluate(plan, table)
    estimator = Estimator.of(plan, table, results, root, device)
    groups = []
    searches: set[str] = set()
    longest = 0.0
    for (task, backbone, label), of_label in plan.groups():
        # A label of equal settings may have runs of its own: of seeds that others ask it for.
        for first in dict.fromkeys(run.label for run in of_label):
            of_group = [run for run in of_label if run.label == first]
            states = [_state(run, ended, elsewhere, more) for run in of_group]
            todo = [run for run, state in zip(of_group, states, strict=True) if state != "done"]
            costs = [estimator.cost(run) for run in todo]
            for run in todo:
                if run.search is not None and run.search.id not in searches:
                    searches.add(run.search.id)
                    costs.append(estimator.search_cost(run))
            longest = max([longest, *(cost.seconds.known for cost in costs)])
            done, failed, left = (states.count(state) for state in STATES)
            same_as = None if first == label else first
            cost = sum(costs, Cost())
            groups.append(PlannedGroup(task, backbone, label, done, failed, left, cost, same_as))
    failures = tuple(
        RunFailure(run, found.reason)
        for run in plan.runs.values()
        if isinstance(found := ended.get(run.id), FailedRun)
    )
    backbones = {run.backbone for run in plan.runs.values()}
    peaks = [
        run.peak_memory_bytes
        for run in ended.values()
        if run.backbone in backbones and run.peak_memory_bytes
    ]
    return PlanState(tuple(groups), failures, estimator, longest, max(peaks, default=None))


def _state(
    run: Run,
    ended: Mapping[str, Row | FailedRun],
    elsewhere: Collection[str],
    more: Collection[str],
) -> State:
    if run.id in elsewhere:
        return "done"
    return ended[run.id].status if run.id in ended and run.id not in more else "left"


class Estimator:
    """Estimates what is left of runs.

    Args:
        sizes: of the sets.
        rates: images a second.
        begun: what is under way.
        workers: of a run's training, counted in workers with the suite's resources.
    """

    def __init__(
        self, sizes: Sizes, rates: Rates, begun: Begun, workers: Callable[[Run], float]
    ) -> None:
        self.sizes, self.rates, self.begun, self.workers = sizes, rates, begun, workers
        self._stages: dict[Alike, tuple[Cost, Cost]] = {}
        self._predicting: dict[Alike, dict[str, float]] = {}

    @classmethod
    def of(
        cls,
        plan: Plan,
        table: pa.Table,
        results: Path,
        root: str | None,
        device: Device | None = None,
    ) -> Estimator:
        """The estimator of a plan's runs, with what rows of a leaderboard have measured."""
        resources = plan.suite.resources
        chosen = device or device_of(resources)
        measured = measured_speeds(table, chosen)
        share = _share(resources, chosen)
        rates = Rates(measured, chosen, share, calibration_of(chosen))

        def workers(run: Run) -> float:
            own = plan.resources_of(run)
            return own.workers * _share(own, chosen) / share

        return cls(Sizes(root), rates, Begun(results), workers)

    def cost(self, run: Run) -> Cost:
        """The cost of what is left of one run, its parents not included."""
        training, evaluation = self.stages(run)
        return training + evaluation

    def stages(self, run: Run) -> tuple[Cost, Cost]:
        """What is left of a run's first stage, and of its evaluation."""
        if run.id in self.begun.runs:
            return self._training(run), self._evaluation(run)
        key = _alike(run)
        if key not in self._stages:
            self._stages[key] = self._training(run), self._evaluation(run)
        return self._stages[key]

    def _training(self, run: Run) -> Cost:
        method = run.create()
        fitted = self.begun.fitted(run)
        disk = Amount.of(_weight_bytes(run) if method.kept and not fitted else 0)
        if not isinstance(method, TrainedMethod):
            return Cost(disk=disk)
        n = self.sizes.training(run.task, run.shots, run.whole)
        if n is None:
            steps = 0 if fitted else 1
            unknown = Amount(0, fitted)
            return Cost(Amount(steps, fitted), unknown, Amount(), unknown, unknown, disk)
        schedule = make_schedule(n, method.training, max_steps=run.budget.steps)
        left = schedule.steps - self.begun.steps(run, schedule)
        images = Amount(left * schedule.batch_size)
        rate = self.rates.training(run, method)
        encoded = method.inputs != "images" and not (rate and rate.source == "rows")
        work = Amount(n if left else 0) if encoded else images  # features: each image is seen once
        workers = self.workers(run) if method.inputs == "images" else 1
        return Cost.of(
            rate,
            work.seconds(rate, workers),
            workers=workers,
            steps=Amount(left),
            images=images,
            disk=disk,
        )

    def _evaluation(self, run: Run) -> Cost:
        variants, sizes = run.create().variants(), self.sizes.evaluated(run)
        there = self.begun.predicted(run, variants, sizes)
        predictions = Amount()
        for name, size in sizes.items():
            left = sum((variant, name) not in there for variant in variants)
            predictions += Amount.of(size) * left if left else Amount()
        rate = self.rates.prediction(run)
        disk = predictions * PREDICTION_BYTES
        return Cost.of(rate, predictions.seconds(rate), predictions=predictions, disk=disk)

    def predicting(self, run: Run, variant: str, evaluation_set: str) -> float:
        """Seconds in which a variant of a run is predicted on a set, as far as is known."""
        begun = run.id in self.begun.runs
        if begun and self.begun.predicted(run, [variant], [evaluation_set]):
            return 0.0
        key = _alike(run)
        if key not in self._predicting:
            rate = self.rates.prediction(run)
            self._predicting[key] = {
                name: Amount.of(size).seconds(rate).known
                for name, size in self.sizes.evaluated(run).items()
            }
        return self._predicting[key][evaluation_set]

    def search_cost(self, run: Run) -> Cost:
        """The most that is left of a run's search: every trial trained to the end, none stopped.

        The time does not count the scoring on OOD validation, but for methods that derive weights,
        whose trials are nothing else.
        """
        method = run.create()
        search, n = method.search(), self.sizes.training(run.task, run.shots, run.whole)
        ended = 0 if run.search is None else self.begun.trials(run.search.id)
        if search is None or ended is None:
            return Cost()
        trials = search.config.n_trials
        if not isinstance(method, TrainedMethod):
            return self._merges(run, max(0, trials - ended))
        if trials:
            trials += search.config.finalists * search.config.repeats
        steps = max(0, trials - ended) * search.config.inner_steps
        images = Amount.of(None if n is None else steps * min(method.training.batch_size, n), steps)
        rate = self.rates.training(run, method)
        return Cost.of(rate, images.seconds(rate), steps=Amount(steps), images=images)

    def _merges(self, run: Run, trials: int) -> Cost:
        """The cost of trials that train nothing: each is scored on OOD validation."""
        size = self.sizes.searched(run)
        predictions = Amount.of(None if size is None else trials * size, trials)
        rate = self.rates.prediction(run)
        return Cost.of(rate, predictions.seconds(rate), predictions=predictions)


def _alike(run: Run) -> Alike:
    return run.task.name, run.backbone, run.label, run.shots


def _share(resources: Resources, device: Device) -> float:
    """What of a device a worker has: a part of a GPU, or cores."""
    if device.kind == "gpu":
        return min(1.0, resources.gpus_per_worker or 1.0)
    return resources.cpus_per_worker


def _weight_bytes(run: Run) -> float | None:
    tower = tower_of(run.backbone)
    return None if tower is None else WEIGHT_BYTES * tower.parameters
