"""The leaderboard's columns, defined once: what a row is in Python, in Arrow and in the docs.

A table has two kinds of rows. A run that is done has a ``Row`` for every variant × selection ×
evaluation set × metric; a run that failed has one ``FailedRun``. Both begin with what describes
the run itself (``RunInfo``). A new column is a new field here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import pyarrow as pa

from shiftbench.core.errors import one_line
from shiftbench.core.locations import without_credentials
from shiftbench.data.sources.registry import plugin_origins as source_origins
from shiftbench.data.tasks.definition import IN_NO_IDENTITY
from shiftbench.evaluation.metrics.registry import plugin_origins as metric_origins
from shiftbench.evaluation.results import Result, Role, Selection, role_of
from shiftbench.leaderboard.columns import Column, Columns, digest, where
from shiftbench.leaderboard.result_checks import check_results
from shiftbench.suite.task_metrics import metrics_named

if TYPE_CHECKING:
    from shiftbench.data.tasks.definition import Task

VERSION = "3.0"
"""Another first number means that the meaning of columns changed; other additions are readable."""
VERSION_KEY = b"shiftbench.leaderboard"

IMPORTED, ELSEWHERE = "imported", "made elsewhere"
"""The ``origin`` of runs whose predictions, or whose weights, were made elsewhere."""

LABELS_UNCHECKED = "labels not checked"

REAL = "real"
"""The ``data_kind`` of everything but miniature data."""


class Parent(NamedTuple):
    """A run that another one builds on directly.

    Attributes:
        label: what the suite calls the parent's configuration of its method.
        run_id: the parent's identity.
    """

    label: str
    run_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInfo:
    """The columns that all rows of a run share. Times have a time zone.

    Raises:
        ValueError: a time has none.
    """

    run_id: Annotated[str, Column("identity of the run: a hash of all that can change its outcome")]
    suite: Annotated[str, Column("name of the suite that asked for the run first", cleaned=True)]
    task: Annotated[str, Column("name of the task")]
    task_digest: Annotated[
        str, Column("digest of the task's full definition and its plugins' code: a name may recur")
    ]
    shifts: Annotated[
        tuple[str, ...] | None,
        Column("names of all shifts of the task's definition, whichever a row is of"),
    ] = None
    data_kind: Annotated[
        str, Column("which data the task's names stand for: `real` or `miniature/<version>`")
    ]
    backbone: Annotated[str, Column("name of the pretrained model", cleaned=True)]
    method: Annotated[str, Column("registered name of the method", cleaned=True)]
    label: Annotated[
        str, Column("what the suite calls this configuration of the method", cleaned=True)
    ]
    also_called: Annotated[
        tuple[str, ...] | None, Column("other labels that the suite has for the same run, if any")
    ] = None
    reference: Annotated[
        bool, Column("true for the method that others are compared with (zero-shot)")
    ] = False
    transductive: Annotated[
        bool | None, Column("true if what it says of an image depends on other test images")
    ] = None
    origin: Annotated[str, Column("distribution and version that provide the method", cleaned=True)]
    config: Annotated[Mapping[str, Any], Column("the method's settings, defaults included")]
    budget: Annotated[
        Mapping[str, Any], Column("limits on steps and evaluation images that are part of the run")
    ]
    parents: Annotated[
        tuple[Parent, ...], Column("label and run id of each run that this one builds on directly")
    ]
    seed: Annotated[int, Column("seed of the run")]
    seeded: Annotated[
        bool, Column("true if the method itself uses the seed (its parents may in any case)")
    ]
    shots: Annotated[
        int | None, Column("training images of each class; null for all", "images per class")
    ]
    held_out: Annotated[
        float | None,
        Column(
            "part of the training set that is held out for ID validation and was not trained on; "
            "0 for none, null where nothing was trained",
            "fraction of the images of every class",
        ),
    ] = None
    trains_on_id_val: Annotated[
        bool | None,
        Column(
            "true if ID validation images are among those trained on: values on them are of seen "
            "images, and no variant is selected on them; null where that is not known"
        ),
    ] = None
    started: Annotated[datetime, Column("when the run began", "UTC")]
    finished: Annotated[datetime, Column("when the run was recorded", "UTC")]
    trainings: Annotated[
        int | None,
        Column(
            "trainings of the run and of all that it builds on, each once, the trials of their "
            "searches among them, however short; null where not known",
            "trainings",
        ),
    ] = None
    train_seconds: Annotated[
        float | None,
        Column(
            "wall time of the training, with world_size workers throughout; 0 for a run that only "
            "derives weights",
            "seconds",
        ),
    ] = None
    train_images: Annotated[
        int | None, Column("images trained on, repetitions included", "images")
    ] = None
    train_steps: Annotated[int | None, Column("optimizer steps", "steps")] = None
    world_size: Annotated[int | None, Column("workers that shared the training", "workers")] = None
    precision: Annotated[
        str | None, Column("number format of the forward pass, such as `fp32` or `bf16`")
    ] = None
    batch_size: Annotated[int | None, Column("global batch size", "images")] = None
    device: Annotated[
        str | None, Column("name of the CPU or GPU that trained and predicted", cleaned=True)
    ] = None
    peak_memory_bytes: Annotated[
        int | None, Column("peak memory of the training process, or of the GPU", "bytes")
    ] = None
    train_fingerprint: Annotated[str | None, Column("fingerprint of the training set's files")] = (
        None
    )
    distance: Annotated[
        float | None, Column("Euclidean distance ‖θ - θ0‖₂ of the weights from the pretrained ones")
    ] = None
    details: Annotated[Mapping[str, Any], Column("what else the method tells of its training")] = (
        field(default_factory=dict)
    )
    search_id: Annotated[
        str | None,
        Column("identity of the search that the settings come from; several runs may share it"),
    ] = None
    searched: Annotated[Mapping[str, Any] | None, Column("the settings that the search found")] = (
        None
    )
    search_trials: Annotated[
        int | None, Column("configurations that the search tried", "trials")
    ] = None
    search_steps: Annotated[
        int | None, Column("optimizer steps of all trials of the search", "steps")
    ] = None
    search_images: Annotated[
        int | None, Column("images trained on in all trials of the search", "images")
    ] = None
    search_seconds: Annotated[
        float | None, Column("time of all trials, training and scoring", "seconds")
    ] = None
    leakage: Annotated[
        str | None,
        Column("test images that the method has seen; null when there are none", cleaned=True),
    ] = None
    shiftbench_version: Annotated[str, Column("version of the package")]
    git_sha: Annotated[
        str | None,
        Column(
            "commit of the code: the one that `SHIFTBENCH_GIT_SHA` names, or else the one that is "
            "checked out, if the package runs from a checkout"
        ),
    ]
    git_dirty: Annotated[bool | None, Column("true if the package's files differ from that commit")]
    versions: Annotated[
        Mapping[str, Any], Column("versions of Python and of packages that can change a number")
    ]
    hardware: Annotated[
        Mapping[str, Any],
        Column(
            "processor, cores, memory in bytes and GPUs",
            public_keys=("cpu", "cores", "memory_bytes", "gpus"),
        ),
    ]

    def __post_init__(self) -> None:
        for moment in (self.started, self.finished):
            if moment.tzinfo is None:
                raise ValueError(f"{moment} needs a time zone")

    @property
    def labels(self) -> tuple[str, ...]:
        """All that the suite calls this configuration of the method."""
        return (self.label, *(self.also_called or ()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Row(RunInfo):
    """One variant of a run that is done, scored with one metric on one evaluation set."""

    status: Annotated[Literal["done"], Column("how the run ended: `done` or `failed`")] = "done"
    variant: Annotated[
        str, Column("name of the weights, such as `alpha=0.5`; empty where a run has one variant")
    ]
    selection: Annotated[
        Selection | None,
        Column(
            "how the variant was chosen: `fixed`, `id-val`, `ood-val` or `oracle`; null for a "
            "point that nobody chose. A variant chosen in several ways has a row for each"
        ),
    ]
    evaluation_set: Annotated[str, Column("name of the evaluation set in the task")]
    role: Annotated[
        Role, Column("what the set is for: `id-val`, `id-test`, `ood-val`, `shift`, or `also`")
    ]
    metric: Annotated[str, Column("name of the metric")]
    primary: Annotated[bool, Column("true if this is the set's headline metric")]
    value: Annotated[float, Column("the metric's value", "of the metric; accuracies are fractions")]
    low: Annotated[float, Column("lower end of the 95% interval", "of the metric")]
    high: Annotated[float, Column("upper end of the 95% interval", "of the metric")]
    interval: Annotated[str, Column("how the interval was computed")]
    n: Annotated[int, Column("examples that the value is of", "images")]
    complete: Annotated[bool, Column("true if no file of the data was missing")]
    incomplete_reason: Annotated[
        str | None, Column("what was missing from the data; null when nothing was", cleaned=True)
    ] = None
    data_remark: Annotated[
        str | None,
        Column(
            "other things to know of the data's files, such as how many were not read",
            cleaned=True,
        ),
    ] = None
    evaluation_seconds: Annotated[
        float | None, Column("time to predict this variant on this set", "seconds")
    ] = None
    data_fingerprint: Annotated[str | None, Column("fingerprint of the evaluation set's files")] = (
        None
    )
    unchecked: Annotated[
        str | None,
        Column(
            f"what nobody has checked of a row that came in a bundle: `{LABELS_UNCHECKED}`; else "
            "null"
        ),
    ] = None

    @property
    def key(self) -> tuple[str, Selection | None, str, str]:
        """Variant, selection, evaluation set and metric: a run has one row of each."""
        return self.variant, self.selection, self.evaluation_set, self.metric


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedRun(RunInfo):
    """A run that failed."""

    status: Annotated[Literal["failed"], Column("how the run ended: `done` or `failed`")] = "failed"
    error: Annotated[str, Column("why the run failed, in one line; null for runs that are done")]
    error_file: Annotated[
        str | None,
        Column("path of the whole error message, relative to the results folder"),
    ] = None

    @property
    def reason(self) -> str:
        """Why it failed and where the whole message is, for people."""
        where = "" if self.error_file is None else f" (whole message: {self.error_file})"
        return f"{self.error}{where}"


COLUMNS = Columns(Row, FailedRun, metadata={VERSION_KEY: VERSION})
SCHEMA = COLUMNS.schema


_REQUIRED = {"done": COLUMNS.required(Row), "failed": COLUMNS.required(FailedRun)}


# From tables to rows and back


def damage(table: pa.Table) -> str | None:
    """Why a table cannot be rows, whoever wrote it; ``None`` if nothing is in the way.

    Args:
        table: with all columns of ``SCHEMA``, or some.
    """
    names = {*table.column_names}
    if "status" in names:
        for status in table["status"].unique().to_pylist():
            if status not in _REQUIRED:
                return f"the status of a run is {status!r}"
            of_status = where(table, "status", status)
            for name in _REQUIRED[status]:
                if name in names and of_status[name].null_count:
                    return f'a run that is {status} has no "{name}"'
    for name in COLUMNS.json:
        texts = table[name].unique().to_pylist() if name in names else ()
        if not all(text is None or _is_object(text) for text in texts):
            return f'its column "{name}" holds something else than JSON objects'
    return None


def rows(table: pa.Table) -> list[Row]:
    """The rows of runs that are done, in the table's order.

    Equal values of a column are one Python object: a configuration is parsed once, and not for
    every row of its run.

    Args:
        table: with all columns of ``SCHEMA``; others are ignored.
    """
    return COLUMNS.read(Row, where(table, "status", "done"))


def failures(table: pa.Table) -> list[FailedRun]:
    """The runs of a table that failed, in its order.

    Args:
        table: with all columns of ``SCHEMA``; others are ignored.
    """
    return COLUMNS.read(FailedRun, where(table, "status", "failed"))


def runs(table: pa.Table) -> list[Row | FailedRun]:
    """The first row of every run of a table, in the table's order: it says all about the run.

    Args:
        table: with all columns of ``SCHEMA``; others are ignored.
    """
    if not len(table):
        return []
    first: dict[str, int] = {}
    for position, run_id in enumerate(table["run_id"].to_pylist()):
        first.setdefault(run_id, position)
    firsts = table.take(pa.array(first.values(), pa.int64()))
    found: list[Row | FailedRun] = [*rows(firsts), *failures(firsts)]
    by_id = {run.run_id: run for run in found}
    return [by_id[run_id] for run_id in first]


def to_table(items: Sequence[Row | FailedRun]) -> pa.Table:
    """A table of ``SCHEMA`` with these rows."""
    return COLUMNS.table(items)


def done(info: RunInfo, results: Sequence[Result]) -> pa.Table:
    """The rows of a run that is done.

    Raises:
        ValueError: no result, the same result twice, no or several headline metrics of a set, or a
            value outside its metric's range or its interval's order.
    """
    check_results(results)
    shared = _values_of(info)
    return to_table([Row(**shared, **_result_columns(result)) for result in results])


def failed(info: RunInfo, error: str, error_file: str | None = None) -> pa.Table:
    """The one row of a run that failed.

    Args:
        info: of the run.
        error: the reason; it is put on one line, without credentials in its URLs.
        error_file: path of the whole message, relative to the results folder.
    """
    line = one_line(without_credentials(error))  # a library's error may quote a proxy's URL
    return to_table([FailedRun(**_values_of(info), error=line, error_file=error_file)])


def task_digest(task: Task) -> str:
    """The digest of a task's definition that rows carry, and by which tasks are compared.

    The code of plugins that read its images or score on them is a part of the definition.
    """
    recorded = task.recorded().without_also()
    sources, metrics = source_origins(recorded), metric_origins(metrics_named(recorded, None))
    code = ({"sources": sources} if sources else {}) | ({"metrics": metrics} if metrics else {})
    return digest(recorded.model_dump(mode="json", exclude={*IN_NO_IDENTITY}) | code)


def shifts_of(task: Task) -> tuple[str, ...]:
    """The shifts of a task that rows carry: those that a mean is over."""
    return tuple(name for name in task.evaluation_sets() if role_of(name) == "shift")


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _values_of(info: RunInfo) -> dict[str, Any]:
    return {item.name: getattr(info, item.name) for item in fields(info)}


def _result_columns(result: Result) -> dict[str, Any]:
    columns = {name: value for name, value in vars(result).items() if name != "score"}
    complete = result.incomplete_reason is None
    role = role_of(result.evaluation_set)
    return columns | vars(result.score) | {"role": role, "complete": complete}
