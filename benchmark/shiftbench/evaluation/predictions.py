"""Predictions kept per example, so that any metric can be computed later without the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shiftbench.core.errors import InputError, RunFailedError
from shiftbench.core.files import written_atomically
from shiftbench.evaluation.metrics import GROUP_COLUMNS, Score, score

if TYPE_CHECKING:
    from shiftbench.data.images import ImageSet

TOP = 5

SCHEMA = pa.schema(
    [
        pa.field("set", pa.string(), nullable=False),
        pa.field("variant", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("prediction", pa.int32(), nullable=False),
        pa.field("top_classes", pa.list_(pa.int32()), nullable=False),
        pa.field("top_logits", pa.list_(pa.float32()), nullable=False),
        *(pa.field(name, pa.string()) for name in GROUP_COLUMNS),
    ]
)
ROWS_AT_ONCE = 4096


def top_k(
    logits: npt.NDArray[np.floating], k: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The ``k`` highest logits of each row, highest first; of equal ones the lower class first.

    Args:
        logits: (n, classes).
        k: at most the number of classes.

    Returns:
        classes (n, k) int32, the first column being the argmax, and their logits (n, k) float32.

    Raises:
        RunFailedError: a logit is not finite.
    """
    n = len(logits)
    classes = np.empty((n, k), dtype=np.int32)
    values = np.empty((n, k), dtype=np.float32)
    for start in range(0, n, ROWS_AT_ONCE):
        left = np.array(logits[start : start + ROWS_AT_ONCE])
        if not np.isfinite(left).all():
            raise RunFailedError("the model's logits are not finite")
        rows = np.arange(len(left))
        for rank in range(k):
            best = left.argmax(axis=1)
            classes[start + rows, rank] = best
            values[start + rows, rank] = left[rows, best]
            left[rows, best] = -np.inf
    return classes, values


def to_table(
    evaluation_set: str, variant: str, images: ImageSet, logits: npt.NDArray[np.floating]
) -> pa.Table:
    """The predictions of one variant on one evaluation set, a row for each example in its order.

    The columns ``region`` and ``location`` are there for the metrics that group by them.

    Args:
        evaluation_set: its name.
        variant: the name of the weights.
        images: gives ids, labels and metadata.
        logits: (n, classes of the set), after its projection.

    Raises:
        RunFailedError: a logit is not finite.
    """
    if logits.ndim != 2 or len(logits) != len(images):
        raise ValueError(f"{len(images)} images, but logits of shape {logits.shape}")
    n, classes = logits.shape
    top_classes, top_logits = top_k(logits, min(TOP, classes))
    columns = {
        "set": pa.repeat(pa.scalar(evaluation_set), n),
        "variant": pa.repeat(pa.scalar(variant), n),
        "id": images.ids.tolist(),
        "label": images.labels.astype(np.int32),
        "prediction": np.ascontiguousarray(top_classes[:, 0]),
        "top_classes": _lists(top_classes, pa.int32()),
        "top_logits": _lists(top_logits, pa.float32()),
    }
    for name in GROUP_COLUMNS:
        column = images.metadata.get(name)
        columns[name] = pa.nulls(n, pa.string()) if column is None else column.astype(str).tolist()
    return pa.table(columns, schema=SCHEMA)


def write(path: Path, table: pa.Table) -> None:
    """Write predictions, with the table's metadata, so that they appear whole or not at all."""
    import pyarrow.parquet as pq

    with written_atomically(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read(path: Path) -> pa.Table:
    """Read what ``write`` wrote.

    Raises:
        InputError: the file is absent, broken, or holds something else.
    """
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as predictions ({error})") from error
    if table.schema.remove_metadata() != SCHEMA:
        raise InputError(
            f"{path}: holds no predictions (its columns are {', '.join(table.column_names)})"
        )
    return table


def rescore(table: pa.Table, metric: str) -> Score:
    """Score the predictions of one variant on one evaluation set from the file alone.

    Args:
        table: of ``to_table``.
        metric: one of ``shiftbench.evaluation.metrics.METRICS``.

    Raises:
        InputError: a column that the metric needs is empty.
    """
    metadata: Mapping[str, npt.NDArray[np.generic]] = {
        name: table[name].to_numpy().astype(str)
        for name in GROUP_COLUMNS
        if table[name].null_count == 0
    }
    return score(metric, table["label"].to_numpy(), table["prediction"].to_numpy(), metadata)


def _lists(rows: npt.NDArray[np.generic], of: pa.DataType) -> pa.Array:
    n, k = rows.shape
    offsets = np.arange(0, (n + 1) * k, k, dtype=np.int32) if k else np.zeros(n + 1, np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(rows.ravel(), of))
