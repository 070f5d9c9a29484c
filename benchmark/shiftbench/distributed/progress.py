"""The progress of all workers, in an actor. Imports little, so that the actor is small."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from shiftbench.distributed.place import Home
    from shiftbench.execution.jobs import Stage

JobFields = tuple["Stage", str, str, str]
"""A ``Job`` as its fields."""


class News(NamedTuple):
    """What the driver has not heard yet.

    Attributes:
        steps: done and in all, of the runs that went on.
        signs: the jobs that go on.
        said: run and line of what was printed.
        came: where processes are that have said so since.
        begun: trials that have begun since.
        trials: where the trials are that have not ended: their process, or those that have nothing
            to do, of which one is to begin with it.
    """

    steps: dict[str, tuple[int, int]]
    signs: set[JobFields]
    said: list[tuple[str, str]]
    came: set[Home]
    begun: set[JobFields]
    trials: dict[JobFields, list[Home]]


class ProgressActor:
    """Steps done and in all by run, the jobs that go on, what runs print, and trials under way."""

    def __init__(self) -> None:
        self._news = News({}, set(), [], set(), set(), {})
        self._trials: dict[JobFields, Home] = {}
        self._expected: set[JobFields] = set()
        self._homes: dict[str, set[Home]] = {}  # of all trials, by run

    def sign(self, job: JobFields) -> None:
        """Note that a job goes on."""
        self._news.signs.add(job)

    def here(self, home: Home) -> None:
        """Note where a process is."""
        self._news.came.add(home)

    def expect(self, trial: JobFields) -> None:
        """Note that a process is to begin with a trial."""
        self._expected.add(trial)

    def enter(self, trial: JobFields, home: Home) -> None:
        """Note that a trial has begun, and where its process is."""
        self.here(home)
        self._news.begun.add(trial)
        self._expected.discard(trial)
        self._trials[trial] = home
        self._homes.setdefault(trial[1], set()).add(home)

    def leave(self, trial: JobFields) -> None:
        """Note that a trial is no more."""
        self._expected.discard(trial)
        self._trials.pop(trial, None)

    def forget(self, run_id: str) -> None:
        """Note that a search has ended, with all its processes."""
        self._homes.pop(run_id, None)
        for trial in [one for one in (*self._trials, *self._expected) if one[1] == run_id]:
            self.leave(trial)

    def put(self, run_id: str, step: int, steps: int) -> None:
        """Note the steps that a run has done."""
        self._news.steps[run_id] = (step, steps)

    def say(self, run_id: str, line: str) -> None:
        """Note a line that was printed at a run."""
        self._news.said.append((run_id, line))

    def news(self) -> News:
        """What came since the last call."""
        news, self._news = self._news, News({}, set(), [], set(), set(), {})
        busy = {*self._trials.values()}
        idle = {run_id: [*homes - busy] for run_id, homes in self._homes.items()}
        expected = {trial: idle.get(trial[1], []) for trial in self._expected}
        return news._replace(trials={t: [home] for t, home in self._trials.items()} | expected)
