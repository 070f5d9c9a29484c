"""Predictions kept per example, so that any metric can be computed later without the model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.core.files import written_atomically
from shiftbench.core.mirror import shown
from shiftbench.evaluation.examples import ACCEPTED, FIELDS, LOCATION, Examples, of_logits

if TYPE_CHECKING:
    from shiftbench.data.images import ImageSet
    from shiftbench.evaluation.metrics.base import Metric

SCHEMA = pa.schema(
    [
        pa.field("set", pa.string(), nullable=False),
        pa.field("variant", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("prediction", pa.int32(), nullable=False),
        pa.field("top_classes", pa.list_(pa.int32())),
        pa.field("top_logits", pa.list_(pa.float32())),
        pa.field("log_sum_exp", pa.float64()),
        pa.field("label_logit", pa.float32()),
        pa.field("sum_p2", pa.float32()),
    ]
)
"""Columns of every table of predictions; a text column for each metadata column follows."""


def to_table(
    evaluation_set: str, variant: str, images: ImageSet, logits: npt.NDArray[np.floating]
) -> pa.Table:
    """The predictions of one variant on one evaluation set, a row for each example in its order.

    Args:
        evaluation_set: its name.
        variant: the name of the weights.
        images: gives ids, labels and metadata.
        logits: (n, classes of the set), after its projection.

    Raises:
        RunFailedError: a logit is not finite.
    """
    examples = of_logits(images.labels, logits, images.metadata)
    return table_of(evaluation_set, variant, images.ids, examples)


def table_of(
    evaluation_set: str, variant: str, ids: npt.NDArray[np.str_], examples: Examples
) -> pa.Table:
    """A table of what is known of examples; null is what is not.

    Args:
        evaluation_set: its name.
        variant: the name of the weights.
        ids: (n,) of the examples.
        examples: n of them.

    Raises:
        ValueError: a metadata column is called as one of predictions.
    """
    n = len(examples)
    columns: dict[str, Any] = {
        "set": pa.repeat(pa.scalar(evaluation_set), n),
        "variant": pa.repeat(pa.scalar(variant), n),
        "id": ids.tolist(),
        "label": examples.labels.astype(np.int32),
        "prediction": examples.predictions.astype(np.int32),
    }
    for name in FIELDS:
        column, kind = getattr(examples, name), SCHEMA.field(name).type
        if column is None:
            columns[name] = pa.nulls(n, kind)
        else:
            columns[name] = _lists(column, kind) if column.ndim == 2 else pa.array(column, kind)
    if taken := columns.keys() & examples.metadata.keys():
        raise ValueError(f'metadata cannot have a column "{min(taken)}": predictions have one')
    texts = {name: column.astype(str).tolist() for name, column in examples.metadata.items()}
    schema = pa.schema([*SCHEMA, *(pa.field(name, pa.string()) for name in texts)])
    return pa.table(columns | texts, schema=schema)


def examples_of(table: pa.Table) -> Examples:
    """The examples of one variant on one evaluation set.

    Args:
        table: of ``table_of``, or some of its columns: what is not there is not known.
    """
    known = set(table.column_names)
    n = len(table)
    fields: dict[str, Any] = {}
    for name in known.intersection(FIELDS):
        column = table[name].combine_chunks()
        if column.null_count:
            continue
        is_list = pa.types.is_list(column.type)
        fields[name] = (column.flatten() if is_list else column).to_numpy(zero_copy_only=False)
        if is_list:
            fields[name] = fields[name].reshape(n, -1) if n else fields[name].reshape(0, 1)
    if "top_logits" in fields and not fields["top_logits"].shape[1]:
        del fields["top_logits"]
    if "top_logits" in known and "top_logits" not in fields:
        fields.pop("top_classes", None)  # the class alone, as class-only predictions once had it
    metadata = {
        name: table[name].to_numpy().astype(str)
        for name in table.column_names
        if name not in SCHEMA.names and not table[name].null_count
    }
    if any(len(text.split()) != 1 for text in np.unique(metadata.get(ACCEPTED, ()))):
        fields.pop("label_logit", None)  # of one of several right answers, or of none
    return Examples(table["label"].to_numpy(), table["prediction"].to_numpy(), metadata, **fields)


def columns_for(metrics: Iterable[Metric]) -> list[str]:
    """The columns of predictions that comparing models by these metrics looks at."""
    wanted = dict.fromkeys(["id", "label", "prediction", LOCATION, ACCEPTED])
    for measured in metrics:
        wanted |= dict.fromkeys([*sorted(measured.needs), *measured.columns])
    if "top_classes" in wanted:
        wanted["top_logits"] = None  # tells classes that were ranked from one that was given
    return list(wanted)


def concat(tables: Iterable[pa.Table]) -> pa.Table:
    """Predictions of several variants and sets in one table; metadata that a set lacks is null."""
    return pa.concat_tables(tables, promote_options="default")


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
        raise InputError(f"{shown(path)}: cannot be read as predictions ({error})") from error
    if fault := schema_fault(table.schema):
        raise InputError(f"{shown(path)}: holds no predictions ({fault})")
    return completed(table)


def write_part(path: Path, table: pa.Table) -> None:
    """Write predictions that will soon be read once, in Arrow's file format.

    Of a hundred examples that takes a fifth of the time that Parquet takes, and reading a tenth.
    """
    with (
        written_atomically(path) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_file(file, table.schema) as stream,
    ):
        stream.write_table(table)


def read_part(path: Path) -> pa.Table:
    """Read what ``write_part`` wrote.

    Raises:
        InputError: the file is absent or broken.
    """
    try:
        with pa.OSFile(str(path), "rb") as file:
            return pa.ipc.open_file(file).read_all()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{shown(path)}: cannot be read as predictions ({error})") from error


def check_file(path: Path) -> None:
    """Raise ``InputError`` unless ``path`` is a complete Parquet file (reads its end)."""
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{shown(path)}: truncated, damaged or not Parquet ({error})") from error


def schema_fault(schema: pa.Schema) -> str | None:
    """Why a table with these columns is none of predictions; ``None`` when it is one.

    Columns that may be null may be missing, and text columns beside are metadata.
    """
    for field in SCHEMA:
        places = schema.get_all_field_indices(field.name)
        if len(places) > 1 or (not places and not field.nullable):
            columns = ", ".join(schema.names)
            return f'it has {len(places) or "no"} columns "{field.name}" among {columns}'
        found = schema.field(places[0]) if places else field
        if found.type != field.type or found.nullable > field.nullable:
            return f'"{field.name}" is {found.type} and not {field.type}, or may be null'
    beside = [name for name in schema.names if name not in SCHEMA.names]
    for name in beside:
        if beside.count(name) > 1 or schema.field(name).type != pa.string():
            return f'"{name}" is no single column of text'
    return None


def completed(table: pa.Table) -> pa.Table:
    """A table without a ``schema_fault``, with null in the columns that it lacks."""
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    for name in missing:
        table = table.append_column(
            SCHEMA.field(name), pa.nulls(len(table), SCHEMA.field(name).type)
        )
    beside = [table.schema.field(name) for name in table.column_names if name not in SCHEMA.names]
    schema = pa.schema([*SCHEMA, *beside], metadata=table.schema.metadata)
    return table.select(schema.names).cast(schema)


def _lists(rows: npt.NDArray[np.generic], kind: pa.ListType) -> pa.Array:
    n, k = rows.shape
    offsets = np.arange(0, (n + 1) * k, k, dtype=np.int32) if k else np.zeros(n + 1, np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(rows.ravel(), kind.value_type))
