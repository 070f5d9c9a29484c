"""A process of Ray Tune that runs one trial of a search after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from ray import tune

from shiftbench.distributed.place import home, workspace_here
from shiftbench.distributed.workers import Speaker, signs
from shiftbench.execution.jobs import Job
from shiftbench.execution.search.trial import Trials, TrialSettings

if TYPE_CHECKING:
    from shiftbench.execution.setup import Setup
    from shiftbench.suite.plan import Run

SCORE = "score"
RESOURCE = "resource"
"""The resource of ASHA: the reduction factor to the power of the rung."""


class Given(NamedTuple):
    """What trials are given beside their values.

    Attributes:
        setup: for their processes.
        run: one of those that share the search.
        points: the only values that there are; ``None``: all of the space.
    """

    setup: Setup
    run: Run
    points: Sequence[Mapping[str, Any]] | None


class SearchTrial(tune.Trainable):  # type: ignore[misc]
    """Trains trials on warm data and models; each step of Tune is a rung."""

    def setup(
        self,
        config: dict[str, Any],
        run_id: str = "",
        given: Sequence[Any] = (),
        progress: Any = None,
    ) -> None:
        """Load what all trials share, and start the first.

        Args:
            config: the first trial's values.
            run_id: of the run.
            given: the reference of a ``Given``, whose classes take seconds to load.
            progress: handle of the ``ProgressActor``.
        """
        self._progress, self._run_id = progress, run_id
        self._enter()
        self._speaker = progress and Speaker(progress)
        with self._signs():
            setup, run, self._points = ray.get(given[0])
            self._trials = Trials(workspace_here(setup), run)
        self._begin(config)

    def _begin(self, proposed: dict[str, Any]) -> None:
        self._settings = TrialSettings.of(self._trials.search.config, proposed, self._points)
        self._rung = 0
        with self._heard(), self._signs():
            self._trials.start(self._settings.values, self._settings.seed)

    def step(self) -> dict[str, Any]:
        """Train to the next rung and score."""
        milestones = self._settings.milestones
        with self._heard(), self._signs():
            report = self._trials.advance(milestones[self._rung])
        resource = self._trials.search.config.reduction_factor**self._rung
        self._rung += 1
        last = self._rung == len(milestones)
        return {
            SCORE: report.score,
            RESOURCE: resource,
            "steps": report.steps,
            "images": report.images,
            "seconds": report.seconds,
            "waited": report.waited,
            "computed": report.computed,
            "error": report.error,
            "seed": self._settings.seed,
            "milestones": list(milestones),
            "last": last,
            "done": last or bool(report.error),
        }

    def _heard(self) -> AbstractContextManager[None]:
        """Tell what is printed in the block, if anybody wants to know."""
        return self._speaker.at(self._run_id) if self._speaker else nullcontext()

    def _enter(self) -> None:
        """Tell where the trial is, if anybody wants to know: it has work from now to its end."""
        if self._progress:
            self._progress.enter.remote(tuple(self._job), home())

    def _signs(self) -> AbstractContextManager[None]:
        """Tell that the trial goes on in the block, if anybody wants to know."""
        return signs(self._progress, self._job) if self._progress else nullcontext()

    @property
    def _job(self) -> Job:
        """The trial as a job that can hang."""
        return Job("search", self._run_id, self.trial_id)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in the same process."""
        self._enter()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """The search ends, or this process is not needed any more."""
        self._trials.close()
