"""Trials of a search, one after the other in one process that keeps all they share. No ray."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shiftbench.core.errors import RunFailedError
from shiftbench.core.locations import cache_dir
from shiftbench.core.pulse import beat
from shiftbench.data.shared import SharedBatches
from shiftbench.execution.feeding import batches, fresh_model, memory_of, prepared, schedule_of
from shiftbench.execution.training import Trainer
from shiftbench.execution.validation import score_in_training
from shiftbench.methods.base import TrainedMethod

if TYPE_CHECKING:
    from torch import nn

    from shiftbench.execution.workspace import Workspace
    from shiftbench.methods.config import TrainingConfig
    from shiftbench.methods.search import Search, SearchConfig, Values
    from shiftbench.models.classifier import ImageClassifier
    from shiftbench.suite.plan import Run


_FRESH_SEEDS = 1000  # of finalists: above all seeds that a space may hold


@dataclass(frozen=True)
class TrialReport:
    """A trial after some of its steps.

    Attributes:
        score: headline metric on OOD validation; its worst value when training failed.
        steps: optimizer steps done.
        images: examples trained on.
        seconds: training and scoring, since the trial began.
        waited: of those, seconds without a batch to compute on.
        computed: of those, seconds of training steps and of scoring: its arithmetic.
        error: why it failed; empty when it did not.
    """

    score: float
    steps: int
    images: int
    seconds: float
    waited: float
    computed: float
    error: str = ""


@dataclass(frozen=True)
class TrialSettings:
    """The settings of a trial.

    Attributes:
        values: the settings that are tried.
        seed: of the order of its data.
        milestones: steps after which it is scored; after the last it has ended.
    """

    values: Values
    seed: int
    milestones: tuple[int, ...]

    @classmethod
    def of(
        cls,
        config: SearchConfig,
        proposed: Mapping[str, Any],
        points: Sequence[Mapping[str, Any]] | None,
    ) -> TrialSettings:
        """The trial that a proposal means.

        Args:
            config: of the search.
            proposed: a point of the space; for finalists, the number of one and of its repetition.
            points: for finalists, the values of each.
        """
        if points is None:
            seed = int(proposed.get("seed", config.seed))
            return cls(dict(proposed), seed, config.milestones())
        values = dict(points[proposed["finalist"]])
        return cls(values, _FRESH_SEEDS + proposed["repeat"], (config.inner_steps,))


class Trials:
    """Trains candidates from the same start and scores them on OOD validation.

    Backbone, data and decoded images are loaded once; batches of a seed that comes again are shared
    with the trials of other processes (``data.shared``). The model is reset in place: a new one is
    made only when a method has changed the model's structure, or watches its modules by hooks. The
    learning rate of a trial is constant: a warm-up or decay made for the whole training would say
    little of a few steps of it.

    Args:
        workspace: of the process.
        run: one whose method has a search.
    """

    def __init__(self, workspace: Workspace, run: Run) -> None:
        method = run.create()
        search = method.search() if isinstance(method, TrainedMethod) else None
        if search is None or run.search is None or run.search.ood_val is None:
            raise ValueError(f"{run.label} has no search")
        self.search: Search[TrainedMethod[TrainingConfig]] = search
        self._workspace = workspace
        self._run = replace(run, seed=run.search.seed)
        self._metric, self._images = workspace.ood_val(run, run.search.ood_val)
        self._model: ImageClassifier | None = None
        self._shared = _shared_batches(workspace, run)
        self._memory = memory_of(workspace, run)  # what a trial finds out holds for the next

    def start(self, values: Values, seed: int) -> None:
        """Begin a trial of some values, with the data order of a seed."""
        workspace, run = self._workspace, self._run
        self._begun = time.monotonic()
        self._scoring = 0.0
        self._method: TrainedMethod[TrainingConfig] = self.search.candidate(values)
        before = self._model
        steps = self.search.config.inner_steps
        schedule = schedule_of(workspace, run, self._method)
        schedule = replace(schedule, steps=steps, save_every=steps, constant=True)
        model = prepared(workspace, run, self._method, schedule, self._memory, self._reset)
        if model is not before:
            images = steps * schedule.batch_size * self.search.config.n_trials
            workspace.compile(run, model, images, passes=3)
        self._model = model
        stream = batches(
            workspace, run, self._method, schedule, order_seed=seed, shared=self._shared
        )
        self._trainer = Trainer(
            model,
            self._method,
            schedule,
            stream,
            seed=seed,
            on_step=lambda step: beat(),
            memory=self._memory,
        )
        self._batch_size = schedule.batch_size

    def advance(self, steps: int) -> TrialReport:
        """Train up to a number of steps in all, and score."""
        if self._model is None:
            raise ValueError("no trial has been started")
        error, score = "", self._metric.worst
        try:
            self._trainer.run(until=steps)
            trained = time.monotonic()
            score = score_in_training(
                self._workspace, self._run, self._method, self._model, self._metric, self._images
            )
            self._scoring += time.monotonic() - trained
        except RunFailedError as failure:
            error = str(failure)
        done = self._trainer.done
        steps = len(done.losses)
        return TrialReport(
            score=score,
            steps=steps,
            images=steps * self._batch_size,
            seconds=time.monotonic() - self._begun,
            waited=done.waited,
            computed=done.seconds - done.waited + self._scoring,
            error=error,
        )

    def close(self) -> None:
        """Delete what only trials wanted, unless others are still at it."""
        if self._shared is not None:
            self._shared.close()

    def _reset(self) -> ImageClassifier:
        """A model as it was before any trial."""
        run, model = self._run, self._model
        fresh: Mapping[str, object] = self._workspace.pretrained(run).state_dict()
        if model is None or model.state_dict().keys() != fresh.keys() or _hooked(model):
            return fresh_model(self._workspace, run)
        model.load_state_dict(dict(fresh))
        model.requires_grad_(True).zero_grad()
        model.head.requires_grad_(self._workspace.architecture(run).head == "linear")
        return model.eval()


def _hooked(model: nn.Module) -> bool:
    """Whether a method has left hooks, which would be called beside those of the next trial."""
    return any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
        for module in model.modules()
    )


def shared_folder() -> Path:
    """Where batches are that the trials on this machine share."""
    return cache_dir() / "batches"


def _shared_batches(workspace: Workspace, run: Run) -> SharedBatches | None:
    limit = workspace.resources.limits.shared_batches_bytes
    if not limit:
        return None
    images, preprocessing = workspace.data(run).train, workspace.backbone(run).preprocessing
    return SharedBatches(shared_folder(), images, preprocessing, limit)
