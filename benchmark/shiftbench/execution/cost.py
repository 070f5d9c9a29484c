"""The state of a plan: what of it is done, and what the rest will cost. No torch, no ray."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow.compute as pc
from pydantic import ValidationError

from shiftbench.core.errors import InputError
from shiftbench.data.tasks.classes import task_classes
from shiftbench.data.tasks.definition import MOST_VALIDATION_SHOTS, Holdout, Task
from shiftbench.execution.schedule import make_schedule
from shiftbench.leaderboard.schema import COLUMNS, FailedRun, RunInfo, runs
from shiftbench.methods.base import TrainedMethod
from shiftbench.methods.registry import METHODS
from shiftbench.suite.plan import Plan, Run

if TYPE_CHECKING:
    import pyarrow as pa

    from shiftbench.suite.file import Resources

State = Literal["done", "failed", "left"]
STATES: tuple[State, ...] = ("done", "failed", "left")
NOWHERE = "data root not given"  # sizes that are documented need no data


@dataclass(frozen=True)
class Cost:
    """The cost of some runs; ``None`` is unknown.

    Attributes:
        steps: optimizer steps.
        images: images trained on, repetitions included.
        predictions: images predicted, over all variants and evaluation sets.
        seconds: estimated time, one run after the other.
    """

    steps: int | None = 0
    images: int | None = 0
    predictions: int | None = 0
    seconds: float | None = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            _sum(self.steps, other.steps),
            _sum(self.images, other.images),
            _sum(self.predictions, other.predictions),
            None if self.seconds is None or other.seconds is None else self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Speeds:
    """Measured throughput.

    Attributes:
        training: images per second and worker, by backbone and what the method trains on.
        prediction: images per second, by backbone and method.
    """

    training: Mapping[tuple[str, str], float] = field(default_factory=dict)
    prediction: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedGroup:
    """The runs of one task, backbone and label, with the cost of those that are not done."""

    task: str
    backbone: str
    label: str
    done: int
    failed: int
    left: int
    cost: Cost

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
    """The groups of a plan in its order, and the runs of it that failed."""

    groups: tuple[PlannedGroup, ...]
    failures: tuple[RunFailure, ...]

    def count(self, state: State) -> int:
        """Number of runs in a state."""
        return sum(getattr(group, state) for group in self.groups)

    @property
    def cost(self) -> Cost:
        """Of all runs that are not done."""
        return sum((group.cost for group in self.groups), Cost())


def plan_state(plan: Plan, results: Path, root: str | None) -> PlanState:
    """Compare a plan with the leaderboard of a results folder.

    Args:
        plan: the runs.
        results: the results folder; nothing is done if there is none.
        root: the data root; without it only documented sizes are known.

    Raises:
        InputError: the leaderboard cannot be read.
    """
    from shiftbench.leaderboard.store import read

    table = read(results)
    ended = {run.run_id: run for run in runs(table)}
    speeds = measured_speeds(table)
    sizes = Sizes(root)
    groups = []
    searches: set[str] = set()
    for (task, backbone, label), of_group in plan.groups():
        states = [ended[run.id].status if run.id in ended else "left" for run in of_group]
        todo = [run for run, state in zip(of_group, states, strict=True) if state != "done"]
        # Runs of a group differ in seed and shots, and no seed changes what a run costs.
        of_shots = {run.shots: run for run in todo}
        each = {
            shots: cost_of(run, sizes, speeds, plan.suite.resources)
            for shots, run in of_shots.items()
        }
        costs = [each[run.shots] for run in todo]
        for run in todo:
            if run.search is not None and run.search.id not in searches:
                searches.add(run.search.id)
                costs.append(search_cost(run, sizes, speeds))
        done, failed, left = (states.count(state) for state in STATES)
        groups.append(PlannedGroup(task, backbone, label, done, failed, left, sum(costs, Cost())))
    failures = tuple(
        RunFailure(run, found.reason)
        for run in plan.runs.values()
        if isinstance(found := ended.get(run.id), FailedRun)
    )
    return PlanState(tuple(groups), failures)


def cost_of(run: Run, sizes: Sizes, speeds: Speeds, resources: Resources) -> Cost:
    """The cost of one run, its parents not included."""
    method = run.create()
    steps, images = _training(run, sizes)
    predictions = sizes.predictions(run, len(method.variants()))
    seconds: float | None = 0.0
    if isinstance(method, TrainedMethod):
        speed = speeds.training.get((run.backbone, method.inputs))
        seconds = _ratio(images, speed and speed * resources.workers)
    evaluation = _ratio(predictions, speeds.prediction.get((run.backbone, run.method)))
    total = None if seconds is None or evaluation is None else seconds + evaluation
    return Cost(steps, images, predictions, total)


def search_cost(run: Run, sizes: Sizes, speeds: Speeds) -> Cost:
    """The most that the search of a run can cost: every trial trained to the end, none stopped.

    The time does not count the scoring on OOD validation.
    """
    method = run.create()
    search, n = method.search(), sizes.training(run.task, run.shots, run.whole)
    if search is None or not isinstance(method, TrainedMethod):
        return Cost()
    trials = search.config.n_trials
    if trials:
        trials += search.config.finalists * search.config.repeats
    steps = trials * search.config.inner_steps
    images = None if n is None else steps * min(method.training.batch_size, n)
    speed = speeds.training.get((run.backbone, method.inputs))
    return Cost(steps, images, 0, _ratio(images, speed))


def measured_speeds(table: pa.Table) -> Speeds:
    """Throughput over all runs of a leaderboard that are done.

    Args:
        table: rows of ``shiftbench.leaderboard.store.read``.
    """
    trained = []
    for run in runs(table):
        inputs = _inputs(run) if run.status == "done" else None
        if inputs is not None and run.train_images and run.train_seconds:
            worker_seconds = run.train_seconds * (run.world_size or 1)
            trained.append(((run.backbone, inputs), run.train_images, worker_seconds))
    done = table.filter(pc.equal(table["status"], "done"))
    predicted = {
        (item.run_id, item.variant, item.evaluation_set): (
            (item.backbone, item.method),
            item.n,
            item.evaluation_seconds,
        )
        for item in COLUMNS.read(_Predicted, done)
        if item.n and item.evaluation_seconds
    }
    return Speeds(_rates(trained), _rates(predicted.values()))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Predicted:
    """The columns of a row that tell how fast a set was predicted."""

    run_id: str
    backbone: str
    method: str
    variant: str
    evaluation_set: str
    n: int
    evaluation_seconds: float | None


class Sizes:
    """Numbers of images of sets, each counted once; ``None`` where nobody knows without the data.

    Args:
        root: the data root, or ``None``.
    """

    def __init__(self, root: str | None) -> None:
        self._root = NOWHERE if root is None else root
        self._known: dict[str, int | None] = {}

    def training(self, task: Task, shots: int | None, whole: bool = False) -> int | None:
        """Training images, up to rounding in classes; ``whole``: with those held out for others."""
        total = self._of(task.train.model_dump_json(), lambda: task.train.size(self._root))
        if total is None:
            return None
        if isinstance(task.id_val, Holdout) and not whole:
            total -= round(task.id_val.holdout * total)
        if shots is None:
            return total
        classes = self._classes(task)
        return None if classes is None else min(total, shots * classes)

    def predictions(self, run: Run, variants: int) -> int | None:
        """Images that a run's variants predict on all evaluation sets."""
        limit = run.budget.evaluation_images
        sizes = [self._validation(run.task, run.shots)]
        for item in run.task.evaluation_sets().values():
            source = item.source
            sizes.append(self._of(source.model_dump_json(), lambda s=source: s.size(self._root)))  # type: ignore[misc]
        total = 0
        for size in sizes:
            if size is None:
                return None
            total += size if limit is None else min(size, limit)
        return total * variants

    def _validation(self, task: Task, shots: int | None) -> int | None:
        if isinstance(task.id_val, Holdout):
            whole = self._of(task.train.model_dump_json(), lambda: task.train.size(self._root))
            size = None if whole is None else round(task.id_val.holdout * whole)
        else:
            source = task.id_val
            size = self._of(source.model_dump_json(), lambda: source.size(self._root))
        if shots is None or size is None:
            return size
        classes = self._classes(task)
        return None if classes is None else min(size, min(shots, MOST_VALIDATION_SHOTS) * classes)

    def _classes(self, task: Task) -> int | None:
        key = f"classes {task.model_dump_json(include={'classes', 'train', 'class_split'})}"
        return self._of(key, lambda: len(task_classes(task, self._root)))

    def _of(self, key: str, count: Callable[[], int]) -> int | None:
        if key not in self._known:
            try:
                self._known[key] = count()
            except InputError:  # absent or broken data: `run` and `data verify` say so
                self._known[key] = None
        return self._known[key]


def _training(run: Run, sizes: Sizes) -> tuple[int | None, int | None]:
    """Steps and images of a run's training."""
    method = run.create()
    if not isinstance(method, TrainedMethod):
        return 0, 0
    n = sizes.training(run.task, run.shots, run.whole)
    if n is None:
        return None, None
    schedule = make_schedule(n, method.training, max_steps=run.budget.steps)
    return schedule.steps, schedule.steps * schedule.batch_size


def _inputs(run: RunInfo) -> str | None:
    """Inputs that a run of the leaderboard trained on; ``None`` if none or if unknown here."""
    try:
        kind = METHODS.load(run.method)
        method = kind(kind.Config.model_validate(run.config))
    except (InputError, ValidationError):
        return None
    return method.inputs if isinstance(method, TrainedMethod) else None


def _rates(
    measured: Iterable[tuple[tuple[str, str], float, float]],
) -> dict[tuple[str, str], float]:
    images: dict[tuple[str, str], float] = defaultdict(float)
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    for kind, count, duration in measured:
        images[kind] += count
        seconds[kind] += duration
    return {kind: count / seconds[kind] for kind, count in images.items()}


def _ratio(count: int | None, speed: float | None) -> float | None:
    return None if count is None or not speed else count / speed


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second
