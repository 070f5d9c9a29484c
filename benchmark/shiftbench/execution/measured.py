"""How many images a second runs of a results folder trained on and predicted. No torch, no ray."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from shiftbench.core.errors import InputError
from shiftbench.execution.throughput import Device, Kind, Speeds
from shiftbench.leaderboard.schema import COLUMNS, RunInfo, runs
from shiftbench.methods.base import TrainedMethod
from shiftbench.methods.registry import METHODS
from shiftbench.suite.file import Budget

PRECISION = Budget().evaluation_precision
"""Of evaluations whose rows do not say."""


def measured_speeds(table: pa.Table, device: Device) -> Speeds:
    """Throughput over all runs of a leaderboard that are done, on one kind of device.

    Args:
        table: rows of ``shiftbench.leaderboard.store.read``.
        device: that is meant.
    """
    gpus = _gpus(table)
    models = [name for name in table["device"].unique().to_pylist() if device.is_kind_of(name)]
    same = [name for name in models if device.kind == "gpu" or name not in gpus]
    table = table.filter(pc.is_in(table["device"], pa.array(same, pa.string())))
    trained = []
    for run in runs(table):
        kind = _kind_of_training(run) if run.status == "done" else None
        if kind is not None and run.train_images and run.train_seconds:
            worker_seconds = run.train_seconds * (run.world_size or 1)
            trained.append((kind, run.train_images, worker_seconds))
    done = table.filter(pc.equal(table["status"], "done"))
    predicted = {
        (item.run_id, item.variant, item.evaluation_set): (
            (item.backbone, item.method, item.budget.get("evaluation_precision", PRECISION)),
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
    budget: Mapping[str, Any]
    variant: str
    evaluation_set: str
    n: int
    evaluation_seconds: float | None


def _gpus(table: pa.Table) -> set[str]:
    """The models of all GPUs that rows name, whether the table of devices has them or not."""
    texts = table["hardware"].unique().to_pylist()
    listed = (json.loads(text).get("gpus") for text in texts if text is not None)
    return {str(name) for names in listed if isinstance(names, list) for name in names}


def _kind_of_training(run: RunInfo) -> Kind | None:
    """What a run of the leaderboard trained on, and how; ``None`` if nothing or if unknown here."""
    try:
        kind = METHODS.load(run.method)
        method = kind(kind.Config.model_validate(run.config))
    except (InputError, ValidationError):
        return None
    if not isinstance(method, TrainedMethod):
        return None
    return run.backbone, method.inputs, method.training.precision


def _rates(measured: Iterable[tuple[Kind, float, float]]) -> dict[Kind, float]:
    images: dict[Kind, float] = defaultdict(float)
    seconds: dict[Kind, float] = defaultdict(float)
    for kind, count, duration in measured:
        images[kind] += count
        seconds[kind] += duration
    return {kind: count / seconds[kind] for kind, count in images.items()}
