"""Counters of a launch for Prometheus, through Ray's metrics: each node's agent exports them.

Names begin with ``ray_shiftbench_`` there. They are of the launch with the tag ``suite``, and end
with it; what has become of runs for good is in the results folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import ray.util.metrics

from shiftbench.methods.config import TrainingConfig

if TYPE_CHECKING:
    from shiftbench.suite.plan import Run

COUNTERS = {
    "runs_done": "Runs whose rows are written.",
    "runs_failed": "Runs that failed, and those that build on them.",
    "jobs": "Jobs that have ended, in whatever way.",
    "images": "Images trained on by runs, repetitions included; trials of searches not.",
    "waiting_seconds": "Seconds that jobs which could start waited for room, of all such jobs.",
}
"""What is counted, and its description."""


class Registry(Protocol):
    """What makes counters: ``ray.util.metrics``."""

    def Counter(  # noqa: N802 - Ray's name
        self, name: str, description: str = "", tag_keys: tuple[str, ...] = ()
    ) -> Any:
        """A counter, with ``inc(value, tags)``."""


class Metrics:
    """Counts what a launch does.

    Args:
        suite: its name.
        runs: all runs by id.
        registry: makes the counters.
    """

    def __init__(
        self, suite: str, runs: Mapping[str, Run], registry: Registry = ray.util.metrics
    ) -> None:
        self._tags = {"suite": suite}
        self._runs = runs
        self._counters = {
            name: registry.Counter(f"shiftbench_{name}", what, ("suite",))
            for name, what in COUNTERS.items()
        }
        self._steps: dict[str, int] = {}
        self._totals: dict[str, int] = {}

    def ended(self, totals: Mapping[str, int]) -> None:
        """So many jobs and runs have ended since the launch began, by the name of the counter."""
        for name, total in totals.items():
            self._count(name, total - self._totals.get(name, 0))
        self._totals = {**totals}

    def steps(self, steps: Mapping[str, tuple[int, int]]) -> None:
        """Trainings are so far: steps done and in all, by run.

        The first that is heard of a run may be of before this launch, and a training that was
        interrupted goes back to what was saved: neither counts.
        """
        for run_id, (step, _) in steps.items():
            before = self._steps.get(run_id, step)
            self._steps[run_id] = step
            config = self._runs[run_id].config
            if step > before and isinstance(config, TrainingConfig):
                self._count("images", (step - before) * config.batch_size)

    def waited(self, seconds: float, jobs: int) -> None:
        """So many jobs waited for so long."""
        self._count("waiting_seconds", seconds * jobs)

    def _count(self, name: str, more: float) -> None:
        if more > 0:  # Ray refuses 0
            self._counters[name].inc(more, self._tags)
