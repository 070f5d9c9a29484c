"""The first stage of a run: from pretrained weights to its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shiftbench.core.errors import RunFailedError
from shiftbench.core.provenance import peak_memory_bytes, reset_peak_memory
from shiftbench.core.pulse import beat
from shiftbench.data.batches import WorkerPlace
from shiftbench.execution.course import Trained
from shiftbench.execution.curve_keeper import CurveKeeper, logged
from shiftbench.execution.evaluated import scoring_slot
from shiftbench.execution.feeding import (
    batches,
    fresh_model,
    memory_of,
    prepared,
    probe,
    schedule_of,
)
from shiftbench.execution.outputs import fit_ensemble
from shiftbench.execution.progress import TrainingWriter
from shiftbench.execution.saving import Saving, Signals
from shiftbench.execution.stages.looking import looked_at
from shiftbench.execution.training import Trainer
from shiftbench.execution.validation import id_val, id_val_value
from shiftbench.execution.variants import derivation
from shiftbench.execution.watching import all_agree
from shiftbench.leaderboard.runfolder import Fit
from shiftbench.leaderboard.training_curve import ID_VAL
from shiftbench.methods.base import DerivedMethod, EnsembleMethod, TrainedMethod
from shiftbench.methods.config import file_digests
from shiftbench.models.checkpoints import load, save
from shiftbench.models.weights import distance, size_in_bytes, sparse_delta

if TYPE_CHECKING:
    from shiftbench.evaluation.inference import Array
    from shiftbench.execution.workspace import Workspace
    from shiftbench.leaderboard.runfolder import RunFolder
    from shiftbench.methods.base import Weights
    from shiftbench.methods.config import MethodConfig
    from shiftbench.suite.file import Resources
    from shiftbench.suite.plan import Run


def fit(
    workspace: Workspace,
    run_id: str,
    place: WorkerPlace = WorkerPlace(),
    on_step: Callable[[int, int], None] = lambda step, steps: None,
    signals: Signals = Signals(),
) -> None:
    """Make what a run keeps: train it or go on with it, derive its weights, or fit an ensemble.

    Args:
        workspace: of this process.
        run_id: of a run whose method keeps something of its own.
        place: this worker among those that share the training.
        on_step: called with the steps done and the steps in all; with 0 before preparing.
        signals: from outside, which all workers ask for now and then.

    Raises:
        RecalledError: the training was recalled, and its state is saved.
        RunFailedError: a loss is not finite.
    """
    run = workspace.runs[run_id]
    folder = looked_at(workspace, run)
    if folder.fitted:
        return
    reset_peak_memory(workspace.device)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    method = workspace.method(run)
    begun = time.monotonic()
    trained, step = Trained(), 0
    weights: Weights | None = None
    arrays: Mapping[str, Array] | None = None
    details: dict[str, Any] = {}
    match method:
        case TrainedMethod():
            training = _train(workspace, run, method, place, on_step, signals)
            weights, trained, step, details = training
        case DerivedMethod():
            details = _files(run)
            weights = method.derive(method.fixed_variant(), derivation(workspace, run))
            trained.seconds = time.monotonic() - begun
        case EnsembleMethod():
            arrays = fit_ensemble(workspace, run, method)
            trained.seconds = time.monotonic() - begun
    if place.rank > 0:
        return
    workspace.setup.check_held(run.id)
    if weights is not None:
        _save_weights(workspace, run, folder, weights)
    if arrays is not None:
        _save_arrays(folder, run, arrays)
    folder.write_fit(
        Fit(
            losses=trained.losses,
            terms=trained.terms,
            images=trained.images,
            seconds=trained.seconds,
            waited=trained.waited,
            peak_memory_bytes=peak_memory_bytes(workspace.device),
            world_size=place.size,
            started=started,
            step=step,
            distance=None if weights is None else _distance(workspace, run, weights),
            details=details,
        )
    )


@dataclass(frozen=True)
class _Best:
    """The best epoch so far: its score on ID validation, and the steps done by then."""

    score: float
    step: int

    @classmethod
    def read(cls, file: Path) -> _Best | None:
        """The score of the weights in ``file``; ``None`` when there are none."""
        return cls(**load(file)[1]) if file.exists() else None


class _Selection:
    """Keeps the weights of the epoch with the best score on ID validation, in the run's folder."""

    def __init__(self, workspace: Workspace, run: Run) -> None:
        self._workspace, self._run = workspace, run
        self._file = workspace.folder(run).best
        self.best = _Best.read(self._file)

    def score(self, step: int, weights: Weights) -> float:
        """Score the weights of an epoch that ends with a step, and keep them if none are better."""
        headline, _ = id_val(self._workspace, self._run)
        plain = self._workspace.plain(self._run, weights)
        value = id_val_value(self._workspace, self._run, plain)
        self._workspace.setup.check_held(self._run.id)
        if self.best is None or headline.better(value, self.best.score):
            self.best = _Best(value, step)
            save(self._file, plain, asdict(self.best))
        return value

    def weights(self) -> Weights:
        """Those that are kept."""
        return load(self._file)[0]


def _train(
    workspace: Workspace,
    run: Run,
    method: TrainedMethod[MethodConfig],
    place: WorkerPlace,
    on_step: Callable[[int, int], None],
    signals: Signals,
) -> tuple[Weights, Trained, int, dict[str, Any]]:
    """The weights, what the training did, the step that they are of, and the method's details."""
    begun = time.monotonic()
    folder, resources = workspace.folder(run), workspace.setup.resources_of(run.id)
    schedule = schedule_of(workspace, run, method, place.size)
    memory = memory_of(workspace, run)
    written = TrainingWriter(
        folder.progress, schedule.batch_size, held=partial(workspace.setup.holds, run.id)
    )

    def tell(step: int) -> None:
        beat()
        on_step(step, schedule.steps)
        if place.rank == 0:
            written(step, schedule.steps)

    tell(0)
    fresh = partial(fresh_model, workspace, run)
    model = prepared(workspace, run, method, schedule, memory, fresh, place)
    selection = _Selection(workspace, run) if method.training.checkpoint == "id-val" else None
    if selection is not None and place.rank == 0:
        scoring_slot(workspace, run)  # takes its room before the trainer finds out what is left

    def on_epoch(step: int) -> None:
        if selection is None:
            return
        weights = trainer.weights()

        def validate() -> None:
            if place.rank == 0:
                trainer.done.note(ID_VAL, selection.score(step, weights))

        all_agree(validate, place.size, workspace.device)

    def check_held() -> None:
        if place.rank == 0:
            workspace.setup.check_held(run.id)

    def on_save() -> None:
        all_agree(check_held, place.size, workspace.device)

    keeper = CurveKeeper(folder.metrics, schedule.batch_size)

    def on_course(course: Trained) -> None:
        if place.rank == 0 and workspace.setup.holds(run.id):  # a divergence may be told of late
            keeper.take(course)

    trainer = Trainer(
        model,
        method,
        schedule,
        batches(workspace, run, method, schedule, place),
        seed=run.seed,
        place=place,
        state_file=folder.state,
        on_step=tell,
        on_epoch=on_epoch,
        on_save=on_save,
        on_course=on_course,
        probe=probe(workspace, run, method),
        memory=memory,
        sharding=resources.sharding,
        saving=Saving(resources.limits.save_every_s, place, workspace.device, signals),
    )
    # Not before: the probe is a batch of another size.
    images = schedule.steps * schedule.batch_size // place.size
    compiled = workspace.compile(run, model, images, passes=3)
    trainer.done.seconds += time.monotonic() - begun
    loggers = workspace.setup.loggers if place.rank == 0 else ()
    with keeper.shown(loggers, logged(workspace.setup, run, len(trainer.done.losses))):
        trained = trainer.run()
    details = method.details(model) | memory.details() | ({"compiled": True} if compiled else {})
    details |= _circumstances(trainer, place, resources)
    weights = trainer.weights()
    if place.rank > 0:
        return {}, trained, schedule.steps, details
    if selection is not None and selection.best is not None:
        return selection.weights(), trained, selection.best.step, details
    return workspace.plain(run, weights), trained, schedule.steps, details


def _circumstances(trainer: Trainer, place: WorkerPlace, resources: Resources) -> dict[str, Any]:
    """For the row, what of a training's workers and parameters was not as a reader would expect."""
    found: dict[str, Any] = {}
    if trainer.unused:
        found["not_in_the_loss"] = list(trainer.unused)
    if place.size > 1 and resources.sharding != "ddp":
        found["sharding"] = resources.sharding
    if place.size < resources.workers:
        found["workers_asked"] = resources.workers
    return found


def _files(run: Run) -> dict[str, Any]:
    """For the row, the files that a run's settings name, and their SHA-256.

    Raises:
        RunFailedError: one is no longer what it was when the run was planned.
    """
    digests = file_digests(run.config)
    if digests != dict(run.files):
        raise RunFailedError(f"{run.label}: its file has changed since the run was planned")
    names = {name: Path(str(getattr(run.config, name))).name for name in digests}
    return {"files": {names[name]: digests[name] for name in digests}} if digests else {}


def _distance(workspace: Workspace, run: Run, weights: Weights) -> float:
    """The distance of the parameters from their pretrained values."""
    parameters = {name for name, _ in workspace.pretrained(run).named_parameters()}
    return distance(workspace.start(run), weights, parameters)


def _save_weights(workspace: Workspace, run: Run, folder: RunFolder, weights: Weights) -> None:
    """Keep the weights, or what changed of the pretrained ones where that is smaller."""
    facts = {"run": run.id, "backbone": workspace.backbone(run).identity}
    whole = {name: tensor.cpu() for name, tensor in weights.items()}
    changes = sparse_delta(workspace.start(run), whole)
    if size_in_bytes(changes) < size_in_bytes(whole):
        save(folder.weights, changes, {**facts, "form": "changes"})
    else:
        save(folder.weights, whole, {**facts, "form": "whole"})
    workspace.keep(run, whole)


def _save_arrays(folder: RunFolder, run: Run, arrays: Mapping[str, Array]) -> None:
    """Keep what an ensemble fitted."""
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    save(folder.ensemble, tensors, {"run": run.id})
