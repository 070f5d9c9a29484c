"""The leaderboard's table: a row for every run × variant × selection × evaluation set × metric.

A run that failed is one row with the reason, and null where there is no result.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

if TYPE_CHECKING:
    from shiftbench.core.provenance import Provenance
    from shiftbench.evaluation.metrics import Score

VERSION = "2"
VERSION_KEY = b"shiftbench.leaderboard"

Selection = Literal["fixed", "id-val", "ood-val", "oracle"]
Role = Literal["id-val", "id-test", "ood-val", "shift"]

_RUN = [
    pa.field("run_id", pa.string(), nullable=False),
    pa.field("suite", pa.string(), nullable=False),
    pa.field("status", pa.string(), nullable=False),
    pa.field("error", pa.string()),
    pa.field("task", pa.string(), nullable=False),
    pa.field("task_digest", pa.string(), nullable=False),
    pa.field("world", pa.string(), nullable=False),
    pa.field("backbone", pa.string(), nullable=False),
    pa.field("method", pa.string(), nullable=False),
    pa.field("label", pa.string(), nullable=False),
    pa.field("origin", pa.string(), nullable=False),
    pa.field("config", pa.string(), nullable=False),
    pa.field("budget", pa.string(), nullable=False),
    pa.field(
        "parents",
        pa.list_(
            pa.struct(
                [
                    pa.field("label", pa.string(), nullable=False),
                    pa.field("run_id", pa.string(), nullable=False),
                ]
            )
        ),
        nullable=False,
    ),
    pa.field("seed", pa.int64(), nullable=False),
    pa.field("seeded", pa.bool_(), nullable=False),
    pa.field("shots", pa.int32()),
]
_RESULT = [
    pa.field("variant", pa.string()),
    pa.field("selection", pa.string()),
    pa.field("evaluation_set", pa.string()),
    pa.field("role", pa.string()),
    pa.field("metric", pa.string()),
    pa.field("primary", pa.bool_()),
    pa.field("value", pa.float64()),
    pa.field("low", pa.float64()),
    pa.field("high", pa.float64()),
    pa.field("interval", pa.string()),
    pa.field("n", pa.int64()),
    pa.field("complete", pa.bool_()),
    pa.field("incomplete_reason", pa.string()),
    pa.field("evaluation_seconds", pa.float64()),
    pa.field("data_fingerprint", pa.string()),
]
_COST = [
    pa.field("train_seconds", pa.float64()),
    pa.field("train_images", pa.int64()),
    pa.field("train_steps", pa.int64()),
    pa.field("world_size", pa.int32()),
    pa.field("precision", pa.string()),
    pa.field("batch_size", pa.int32()),
    pa.field("device", pa.string()),
    pa.field("peak_memory_bytes", pa.int64()),
    pa.field("train_fingerprint", pa.string()),
    pa.field("distance", pa.float64()),
    pa.field("details", pa.string(), nullable=False),
    pa.field("search_id", pa.string()),
    pa.field("searched", pa.string()),
    pa.field("search_evaluations", pa.int32()),
    pa.field("search_steps", pa.int64()),
    pa.field("search_images", pa.int64()),
    pa.field("search_seconds", pa.float64()),
    pa.field("leakage", pa.string()),
]
_PROVENANCE = [
    pa.field("started", pa.timestamp("ms", tz="UTC"), nullable=False),
    pa.field("finished", pa.timestamp("ms", tz="UTC"), nullable=False),
    pa.field("shiftbench_version", pa.string(), nullable=False),
    pa.field("git_sha", pa.string()),
    pa.field("git_dirty", pa.bool_()),
    pa.field("versions", pa.string(), nullable=False),
    pa.field("hardware", pa.string(), nullable=False),
]
SCHEMA = pa.schema([*_RUN, *_RESULT, *_COST, *_PROVENANCE], metadata={VERSION_KEY: VERSION})


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What all rows of a run share.

    Attributes:
        run_id: the run's identity.
        suite: the suite that asked for it first.
        task: its name.
        task_digest: ``digest`` of the task's full definition, since a name may mean several.
        world: which data the task stands for: ``real`` or ``miniature/<version>``.
        backbone: its name.
        method: registered name.
        label: what the suite calls this configuration of the method.
        origin: distribution and version that provide the method.
        config: the method's settings, defaults included.
        budget: limits that are part of the identity.
        parents: label and run id of each run that this one builds on directly.
        seed: of the run.
        seeded: whether the method itself uses the seed (its parents may).
        shots: training images per class; ``None`` for all.
        started: with a time zone.
        finished: with a time zone.
        provenance: what computed it.
        device: name of the CPU or GPU.
        train_seconds: wall time of the training itself; 0 for a run that only derives weights.
        train_images: images trained on, repetitions included.
        train_steps: optimizer steps.
        world_size: workers that shared the training.
        precision: of the forward pass, such as ``fp32`` or ``bf16``.
        batch_size: global.
        peak_memory_bytes: of the training process, or of the GPU.
        train_fingerprint: of the training data.
        distance: ‖θ - θ0‖₂ between the trained and the pretrained weights.
        details: what else the method says of its training.
        search_id: of the search that the settings come from, which several runs may share.
        searched: the settings that it found.
        search_evaluations: configurations that it tried.
        search_steps: optimizer steps of all its trials.
        search_images: images that they trained on.
        search_seconds: that they took, training and scoring.
        leakage: test images that the method has seen; ``None`` when there are none.
    """

    run_id: str
    suite: str
    task: str
    task_digest: str
    world: str
    backbone: str
    method: str
    label: str
    origin: str
    config: Mapping[str, Any]
    budget: Mapping[str, Any]
    parents: Sequence[tuple[str, str]]
    seed: int
    seeded: bool
    shots: int | None
    started: datetime
    finished: datetime
    provenance: Provenance
    device: str | None = None
    train_seconds: float | None = None
    train_images: int | None = None
    train_steps: int | None = None
    world_size: int | None = None
    precision: str | None = None
    batch_size: int | None = None
    peak_memory_bytes: int | None = None
    train_fingerprint: str | None = None
    distance: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    search_id: str | None = None
    searched: Mapping[str, Any] | None = None
    search_evaluations: int | None = None
    search_steps: int | None = None
    search_images: int | None = None
    search_seconds: float | None = None
    leakage: str | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """One variant scored with one metric on one evaluation set.

    Attributes:
        variant: the name of the weights.
        evaluation_set: its name in the task.
        metric: its name.
        primary: whether this is the set's headline metric.
        score: the value with its interval.
        selection: how the variant was chosen; ``None`` for a point that nobody chose. A variant
            chosen in several ways has a row for each.
        incomplete_reason: what is missing from the data; ``None`` when they are complete.
        evaluation_seconds: to predict this variant on this set.
        data_fingerprint: of the evaluation set.
    """

    variant: str
    evaluation_set: str
    metric: str
    primary: bool
    score: Score
    selection: Selection | None = None
    incomplete_reason: str | None = None
    evaluation_seconds: float | None = None
    data_fingerprint: str | None = None


def role_of(evaluation_set: str) -> Role:
    """What a set of a task is for: those that have no name of their own are its shifts.

    A part of the ID test set (``id-test-on-imagenet-a-classes``) has its role.
    """
    match evaluation_set:
        case "id-val" | "id-test" | "ood-val":
            return evaluation_set
        case _ if evaluation_set.startswith("id-test-on-"):
            return "id-test"
        case _:
            return "shift"


def digest(value: Mapping[str, Any]) -> str:
    """12 hex digits that stand for a JSON value, whatever the order of its keys."""
    return hashlib.sha256(_json(value).encode()).hexdigest()[:12]


def to_table(info: RunInfo, results: Sequence[Result]) -> pa.Table:
    """The rows of a run that is done.

    Raises:
        ValueError: no result, the same result twice, no or several headline metrics of a set, or a
            value that is not in [0, 1] or outside its interval's order.
    """
    _check(results)
    shared = {**_run_columns(info), "status": "done", "error": None}
    rows = [{**shared, **_result_columns(result)} for result in results]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def failed(info: RunInfo, error: str) -> pa.Table:
    """The one row of a run that failed, with the reason on one line."""
    row = {**_run_columns(info), "status": "failed", "error": " ".join(error.split())}
    return pa.Table.from_pylist([row], schema=SCHEMA)


def _run_columns(info: RunInfo) -> dict[str, Any]:
    columns = {name: value for name, value in vars(info).items() if name != "provenance"}
    for moment in (info.started, info.finished):
        if moment.tzinfo is None:
            raise ValueError(f"{moment} needs a time zone")
    return columns | {
        "config": _json(info.config),
        "budget": _json(info.budget),
        "details": _json(info.details),
        "searched": None if info.searched is None else _json(info.searched),
        "parents": [{"label": label, "run_id": run_id} for label, run_id in info.parents],
        "shiftbench_version": info.provenance.shiftbench_version,
        "git_sha": info.provenance.git_sha,
        "git_dirty": info.provenance.git_dirty,
        "versions": _json(info.provenance.versions),
        "hardware": _json(info.provenance.hardware),
    }


def _result_columns(result: Result) -> dict[str, Any]:
    columns = {name: value for name, value in vars(result).items() if name != "score"}
    complete = result.incomplete_reason is None
    role = role_of(result.evaluation_set)
    return columns | vars(result.score) | {"role": role, "complete": complete}


def _check(results: Sequence[Result]) -> None:
    if not results:
        raise ValueError("a run that is done has results")
    for result in results:
        score = result.score
        if not (0 <= score.value <= 1 and 0 <= score.low <= score.high <= 1):
            raise ValueError(f"{_name(result)}: not a score: {score}")
    keys = Counter((r.variant, r.selection, r.evaluation_set, r.metric) for r in results)
    for key, times in keys.items():
        if times > 1:
            raise ValueError(f"the same result {times} times: {key}")
    headlines = Counter((r.variant, r.selection, r.evaluation_set) for r in results if r.primary)
    for result in results:
        if headlines[result.variant, result.selection, result.evaluation_set] != 1:
            raise ValueError(f"{_name(result)}: a set has one headline metric")


def _name(result: Result) -> str:
    return f"{result.variant or 'weights'} on {result.evaluation_set}"


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)
