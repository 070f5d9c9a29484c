"""Warm workers: processes that do the stages of runs, one after the other.

Starting a group of Ray Train workers takes over ten seconds, longer than a small run. So a run that
needs one worker is fitted under Train's local mode inside a warm actor, which costs milliseconds;
only runs that need several workers are given to a group (``groups``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import ray
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from shiftbench.core.notices import heed
from shiftbench.core.pulse import felt
from shiftbench.data.batches import WorkerPlace
from shiftbench.distributed.place import Home, home, workspace_here
from shiftbench.execution.doing import do
from shiftbench.execution.jobs import Job
from shiftbench.execution.setup import Setup
from shiftbench.execution.stages.fit import fit
from shiftbench.execution.stages.predict import predict
from shiftbench.execution.stages.score import score
from shiftbench.execution.voice import Voice

SIGN_EVERY_S = 5.0


class WarmWorker:
    """A process that keeps backbones, data and weights between the jobs it is given."""

    def __init__(self, setup: Setup, progress: Any) -> None:
        heed()
        self._speaker = Speaker(progress)
        self._workspace = workspace_here(setup)
        self._progress = progress

    def home(self) -> Home:
        """Where this process is; it answers once the process is ready."""
        return home()

    def fit(self, run_id: str) -> None:
        """Train a run as Ray Train's only worker."""

        def loop() -> None:
            fit(self._workspace, run_id, on_step=reporter(self._progress, run_id))

        trainer = TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=0))
        with signs(self._progress, Job("fit", run_id)), self._speaker.at(run_id):
            trainer.fit()

    def search(self, run_id: str) -> None:
        """Search for a run's settings without training: by merges, or a draw."""
        job = Job("search", run_id)
        with signs(self._progress, job), self._speaker.at(run_id):
            do(job, self._workspace, lambda step, steps: None)

    def predict(self, run_id: str, variant: str, evaluation_set: str) -> None:
        """Predict one evaluation set with one variant."""
        job = Job("predict", run_id, variant, evaluation_set)
        with signs(self._progress, job), self._speaker.at(run_id):
            predict(self._workspace, run_id, variant, evaluation_set)

    def score(self, run_id: str) -> None:
        """Score a run's predictions and write its rows."""
        with signs(self._progress, Job("score", run_id)), self._speaker.at(run_id):
            score(self._workspace, run_id)


def signs(progress: Any, job: Job) -> AbstractContextManager[None]:
    """Tells the ``ProgressActor`` that a job goes on, while it does."""
    return felt(lambda: progress.sign.remote(tuple(job)), SIGN_EVERY_S)


class Speaker:
    """Tells the ``ProgressActor`` what runs print in this process, whose output it takes over.

    Args:
        progress: handle of the actor.
    """

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._voice = Voice()
        self._voice.take_over()

    @contextmanager
    def at(self, run_id: str, place: WorkerPlace = WorkerPlace()) -> Iterator[None]:
        """Tell what is printed in the block as said at a run; all of it has arrived at its end.

        Args:
            run_id: of the run.
            place: this worker among those that share the run.
        """
        told: list[Any] = []
        who = f"worker {place.rank}: " if place.size > 1 else ""

        def tell(line: str) -> None:
            told[:] = [self._progress.say.remote(run_id, f"{who}{line}")]

        try:
            with self._voice.heard(tell):
                yield
        finally:
            ray.get(told)


def reporter(progress: Any, run_id: str) -> Callable[[int, int], None]:
    """Tells the ``ProgressActor`` of the start of a run, its first, every tenth and last step."""

    def report(step: int, steps: int) -> None:
        if step % 10 == 0 or step in (1, steps):
            progress.put.remote(run_id, step, steps)

    return report
