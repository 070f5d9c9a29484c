"""The columns that all rows of a run share, of one that is done as of one that failed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shiftbench.core.provenance import collect, device_name
from shiftbench.leaderboard.schema import ELSEWHERE, Parent, RunInfo, shifts_of, task_digest
from shiftbench.methods.base import EnsembleMethod, TrainedMethod
from shiftbench.methods.registry import METHODS, plugin_origin
from shiftbench.suite.plan import Run

if TYPE_CHECKING:
    import torch

    from shiftbench.leaderboard.runfolder import Fit, Found
    from shiftbench.methods.base import Method
    from shiftbench.methods.config import MethodConfig


def run_info(
    suite: str,
    run: Run,
    device: torch.device | None = None,
    fit: Fit | None = None,
    found: Found | None = None,
    train_fingerprint: str | None = None,
    leakage: str | None = None,
    runs: Mapping[str, Run] | None = None,
) -> RunInfo:
    """The shared columns of a run's rows.

    Args:
        suite: its name.
        run: what was asked for.
        device: that computed it, if anything was computed.
        fit: the record of its training; ``None`` for a run that trains nothing, or has failed.
        found: by its search.
        train_fingerprint: of the training set, where it is known.
        leakage: test images that the method has seen.
        runs: all that it builds on, by id.
    """
    now = datetime.now(UTC)
    settings = run.config.model_dump(mode="json")
    method = run.create()
    known = fit if not method.elsewhere else None
    untrained = None if device is None or method.elsewhere else 0
    return RunInfo(
        run_id=run.id,
        suite=suite,
        task=run.task.name,
        task_digest=task_digest(run.task),
        shifts=shifts_of(run.task),
        data_kind=run.data_kind,
        backbone=run.backbone,
        method=run.method,
        label=run.label,
        also_called=run.also_called or None,
        origin=_origin(method),
        config=settings,
        budget=run.budget.model_dump(mode="json"),
        parents=tuple(Parent(parent.label, run_id) for parent, run_id in run.parents),
        seed=run.seed,
        seeded=method.seeded,
        reference=method.reference,
        transductive=(isinstance(method, EnsembleMethod) and method.transductive) or None,
        shots=run.shots,
        held_out=run.held_out,
        trains_on_id_val=None if run.elsewhere else run.whole,
        started=now if fit is None else datetime.fromisoformat(fit.started),
        finished=now,
        **vars(collect()),
        device=None if device is None else device_name(device),
        trainings=None if runs is None else trainings(run, runs),
        train_seconds=untrained if known is None else known.seconds,
        train_images=untrained if known is None else known.images,
        train_steps=untrained if known is None else len(known.losses),
        world_size=None if fit is None else fit.world_size,
        precision=settings.get("precision", "fp32"),
        batch_size=settings.get("batch_size"),
        peak_memory_bytes=None if fit is None else fit.peak_memory_bytes,
        train_fingerprint=train_fingerprint,
        distance=None if fit is None else fit.distance,
        details={} if fit is None else _details(fit),
        search_id=None if run.search is None else run.search.id,
        searched=None if found is None else dict(found.values),
        search_trials=None if found is None else found.n_trials,
        search_steps=None if found is None else found.steps,
        search_images=None if found is None else found.images,
        search_seconds=None if found is None else found.seconds,
        leakage=leakage,
    )


def trainings(run: Run, runs: Mapping[str, Run]) -> int | None:
    """Trainings of a run and all that it builds on, with the trials of their searches.

    ``None`` where weights were trained elsewhere.

    Args:
        run: of a plan.
        runs: of the plan, by id.
    """
    if run.elsewhere:
        return None
    family = {run.id: run}
    todo = [run]
    while todo:
        above = [runs[run_id] for _, run_id in todo.pop().parents if run_id not in family]
        family |= {parent.id: parent for parent in above}
        todo += above
    trials = {}
    for member in family.values():
        search = member.create().search()
        if member.search is not None and member.searched_by_training and search is not None:
            settings = search.config
            trials[member.search.id] = settings.n_trials + settings.finalists * settings.repeats
    trained = sum(isinstance(member.create(), TrainedMethod) for member in family.values())
    return trained + sum(trials.values())


def _origin(method: Method[MethodConfig]) -> str:
    """The ``origin`` of a method's rows."""
    if method.elsewhere:
        return ELSEWHERE
    return plugin_origin(method) or METHODS.entry(method.name).origin


def _details(fit: Fit) -> dict[str, Any]:
    """What the method says of its training, the step of its weights, and how it was fed."""
    return fit.details | {"step": fit.step, "share_waited": round(fit.share_waited, 4)}
