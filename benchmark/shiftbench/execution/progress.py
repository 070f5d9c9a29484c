"""How far runs are that are under way, as their workers write it into the results folder.

Whoever sees the folder can read it, from any machine. No torch, no ray.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from shiftbench.core.files import written_atomically
from shiftbench.core.mirror import refresh
from shiftbench.execution.spent import Kind, Spent, spent_on
from shiftbench.leaderboard import store
from shiftbench.leaderboard.leases import held_now, search_key
from shiftbench.leaderboard.runfolder import RunFolder, SearchFolder
from shiftbench.leaderboard.schema import failures
from shiftbench.suite.plan import Plan, Run, evaluation_metrics

WRITE_EVERY_S = 5.0
STALE_S = 120.0
"""Seconds after which a training that has written nothing is taken to have been interrupted."""

State = Literal["done", "training", "evaluating", "searching", "preparing", "failed", "waiting"]
STATES: tuple[State, ...] = get_args(State)
"""Of several results that have a run, the one where it is first in this order counts."""


@dataclass(frozen=True)
class Training:
    """The progress of a training.

    Attributes:
        step: steps done.
        steps: steps in all.
        batch_size: images of a step, of all workers together.
        steps_per_second: since this process began with its steps; ``None`` before the second.
    """

    step: int
    steps: int
    batch_size: int
    steps_per_second: float | None


class TrainingWriter:
    """Writes the progress of a training to a small file, seldom enough to cost nothing.

    Args:
        file: of ``RunFolder.progress``.
        batch_size: images of a step, of all workers together.
        clock: gives seconds.
        held: false once another process has taken the run over; nothing is written then.
    """

    def __init__(
        self,
        file: Path,
        batch_size: int,
        clock: Callable[[], float] = time.monotonic,
        held: Callable[[], bool] = lambda: True,
    ) -> None:
        self._file = file
        self._held = held
        self._batch_size = batch_size
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._written = -WRITE_EVERY_S

    def __call__(self, step: int, steps: int) -> None:
        """Note the steps done; 0 is before the first, while the training is prepared."""
        now = self._clock()
        if self._first is None and step:
            self._first = step, now
        if step and now - self._written < WRITE_EVERY_S:
            return
        self._written = now
        speed = None
        if self._first is not None and now > self._first[1]:
            speed = (step - self._first[0]) / (now - self._first[1])
        progress = Training(step, steps, self._batch_size, speed or None)
        # A training does not fail because nobody can watch it.
        with suppress(OSError):
            if self._held():
                with written_atomically(self._file) as temporary:
                    temporary.write_text(json.dumps(asdict(progress)))


@dataclass(frozen=True)
class RunProgress:
    """A run of a plan, and how far it is; ``None`` is unknown or does not apply.

    Attributes:
        run: of the plan.
        state: ``waiting`` is also a run that was interrupted; ``preparing`` one that somebody holds
            and that shows nothing yet.
        step: optimizer steps done.
        steps: optimizer steps in all.
        images_per_second: of the training.
        seconds_left: until the training ends, at the speed so far.
        predicted: pairs of a variant and an evaluation set that are predicted.
        to_predict: such pairs in all.
        reason: why the run failed.
        holder: the process that does it.
        spent: time of workers so far: what was recorded; of a training, what its speed tells.
        results: name of the results that it is in, where there are several.
    """

    run: Run
    state: State
    step: int | None = None
    steps: int | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None
    predicted: int | None = None
    to_predict: int | None = None
    reason: str | None = None
    holder: str | None = None
    spent: Spent | None = None
    results: str | None = None

    @property
    def under_way(self) -> bool:
        """True while somebody is at it."""
        return self.state not in ("done", "failed", "waiting")


def progress_in(
    plan: Plan, results: Mapping[str, Path], now: Callable[[], float] = time.time
) -> list[RunProgress]:
    """Every run of a plan in its order, and how far it is where it is furthest.

    Args:
        plan: the runs.
        results: one or more results folders, by a name for people.
        now: seconds since 1970, on the clock of the storage.

    Raises:
        InputError: a leaderboard cannot be read.
    """
    every = [
        [replace(found, results=name) for found in progress_of(plan, folder, now)]
        for name, folder in results.items()
    ]
    if len(every) == 1:
        return [replace(found, results=None) for found in every[0]]
    return [
        min(of_run, key=lambda found: STATES.index(found.state))
        for of_run in zip(*every, strict=True)
    ]


def progress_of(
    plan: Plan, results: Path, now: Callable[[], float] = time.time
) -> list[RunProgress]:
    """Every run of a plan in its order, and how far it is.

    Args:
        plan: the runs.
        results: the results folder; all runs wait if there is none.
        now: seconds since 1970, on the clock of the storage.

    Raises:
        InputError: the leaderboard cannot be read.
    """
    refresh(results)
    statuses = store.statuses(results, plan.runs)
    failed = [run_id for run_id, status in statuses.items() if status == "failed"]
    reasons = {run.run_id: run.reason for run in failures(store.read(results, failed))}
    begun = set(_names(results / "runs"))
    spent = spent_on(results, [run_id for run_id, status in statuses.items() if status == "done"])
    holders = {key: lease.holder for key, lease in held_now(results).items()}
    kind: Kind = "GPU" if plan.suite.resources.gpus_per_worker else "processor"
    found = []
    for run in plan.runs.values():
        status = statuses.get(run.id)
        holder = holders.get(run.id)
        under_way = (
            None if status == "done" or run.id not in begun else _under_way(run, results, now())
        )
        if status == "done":
            found.append(RunProgress(run, "done", spent=spent.get(run.id)))
            continue
        again = holder is not None or (under_way is not None and under_way.state == "training")
        if status == "failed" and not again:
            found.append(RunProgress(run, "failed", reason=reasons.get(run.id)))
            continue
        at = under_way or RunProgress(run, _before(run, results, now()))
        if at.state == "searching" and run.search is not None:
            holder = holders.get(search_key(run.search.id))
        elif at.state == "waiting" and holder is not None:
            at = replace(at, state="preparing")
        found.append(replace(at, holder=holder, spent=_spent(at, plan, kind)))
    return found


def _spent(at: RunProgress, plan: Plan, kind: Kind) -> Spent | None:
    """What a training has taken of its workers, at its speed."""
    if at.seconds_left is None or not at.step or not at.steps or at.step == at.steps:
        return None
    seconds = at.seconds_left * at.step / (at.steps - at.step)
    return Spent(seconds * plan.resources_of(at.run).workers, kind)


def _names(folder: Path) -> Iterator[str]:
    if folder.is_dir():
        yield from (path.name for path in folder.iterdir())


def _under_way(run: Run, results: Path, now: float) -> RunProgress:
    """How far a run is that has a folder."""
    folder = RunFolder.of(results, run.id)
    parts = len(folder.parts())
    if parts:
        pairs = len(run.create().variants()) * len(evaluation_metrics(run.task))
        return RunProgress(run, "evaluating", predicted=parts, to_predict=pairs)
    try:
        age = now - folder.progress.stat().st_mtime
        at = Training(**json.loads(folder.progress.read_text()))
    except FileNotFoundError:  # it has not begun, or has just ended
        return RunProgress(run, _before(run, results, now))
    speed = at.steps_per_second if age < STALE_S else None
    return RunProgress(
        run,
        "training" if age < STALE_S else "waiting",
        step=at.step,
        steps=at.steps,
        images_per_second=None if speed is None else speed * at.batch_size,
        seconds_left=None if speed is None else (at.steps - at.step) / speed,
    )


def _before(run: Run, results: Path, now: float) -> State:
    """The state of a run that has not begun: its search may have."""
    if run.search is not None:
        folder = SearchFolder.of(results, run.search.id)
        with suppress(FileNotFoundError):
            if not folder.finished and now - folder.journal.stat().st_mtime < STALE_S:
                return "searching"
    return "waiting"
