"""How long a launch still takes, from how long what is done of it took. No torch, no ray."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from shiftbench.execution.jobs import Job

if TYPE_CHECKING:
    from shiftbench.execution.cost import Estimator
    from shiftbench.suite.plan import Run

ENOUGH = 0.03
"""Part of the work after which its own speed tells more than any estimate."""
BRIEF_S = 0.05
"""Weight of a job beyond its arithmetic: loading, scoring, writing."""


class Remaining:
    """The work of a launch's jobs, in any unit, and how much of it is done.

    Estimates only weigh the jobs against each other: their sum is measured as they are done.

    Args:
        weights: of each job; more than 0.
    """

    def __init__(self, weights: Mapping[Job, float]) -> None:
        self._left: dict[str, dict[Job, float]] = defaultdict(dict)
        for job, weight in weights.items():
            self._left[job.run_id][job] = weight
        self._all = sum(weights.values())
        self._done = 0.0
        self._part: dict[str, float] = {}

    def done(self, job: Job) -> None:
        """A job is done."""
        self._done += self._left[job.run_id].pop(job, 0.0)
        if job.stage == "fit":
            self._part.pop(job.run_id, None)

    def failed(self, run_id: str) -> None:
        """A run has failed: what was left of it is no work any more."""
        self._all -= sum(self._left.pop(run_id, {}).values())
        self._part.pop(run_id, None)

    def steps(self, steps: Mapping[str, tuple[int, int]]) -> None:
        """Some trainings under way are so far: steps done and in all, by run."""
        self._part |= {run_id: done / max(1, total) for run_id, (done, total) in steps.items()}

    def seconds(self, elapsed: float) -> float | None:
        """Seconds until the end, at the speed so far; ``None`` before that says anything."""
        done = self._done + sum(
            part * self._left[run_id].get(Job("fit", run_id), 0.0)
            for run_id, part in self._part.items()
        )
        if self._all <= 0 or done < ENOUGH * self._all:
            return None
        return elapsed * (self._all - done) / done


def weights_of_jobs(
    jobs: Iterable[Job], runs: Mapping[str, Run], estimator: Estimator
) -> dict[Job, float]:
    """Estimated seconds of each job.

    Args:
        jobs: of a launch.
        runs: by id.
        estimator: of what is left of them.
    """
    return {job: seconds_of(job, runs[job.run_id], estimator) + BRIEF_S for job in jobs}


def seconds_of(job: Job, run: Run, estimator: Estimator) -> float:
    """Estimated seconds of what is left of a job's arithmetic."""
    match job.stage:
        case "search":
            return estimator.search_cost(run).seconds.known
        case "fit":
            return estimator.stages(run)[0].seconds.known
        case "predict":
            return estimator.predicting(run, job.variant, job.evaluation_set)
        case "score":
            return 0.0
