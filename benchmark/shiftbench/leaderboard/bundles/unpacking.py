"""Reading Parquet files in which a few bytes may stand for gigabytes."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shiftbench.core.errors import InputError
from shiftbench.evaluation.examples import TOP
from shiftbench.leaderboard.bundles import layout

BATCH = 65_536  # rows that are unpacked before they are counted
BATCH_OF_RESULTS = 1024
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}
_OFFSET = 4  # bytes, of a text or a list


def unpacked(content: bytes, most_rows: int | None = None) -> pa.Table:
    """The table of a Parquet file, if it does not unpack to too much.

    What the footer declares is summed before anything is read. Then texts are read as dictionaries
    and batch by batch, since a footer may lie and one long text may stand in every row.

    Args:
        content: of the file.
        most_rows: that it may have; ``None`` for any number that fits.

    Raises:
        InputError: it does.
        pa.ArrowException: the file is broken.
    """
    source = pa.BufferReader(content)
    with pq.ParquetFile(source) as file:
        _check_footer(file.metadata, len(content), most_rows)
        schema = file.schema_arrow
    texts = [item.name for item in schema if item.type == pa.string()]
    batches, total = [], 0
    with pq.ParquetFile(source, read_dictionary=texts) as file:
        for batch in file.iter_batches(BATCH if most_rows is None else BATCH_OF_RESULTS):
            total += sum(map(_bytes, batch.columns))
            if total > layout.MOST_UNPACKED:
                raise _too_large()
            batches.append(batch)
        table = pa.Table.from_batches(batches, file.schema_arrow)
    return table.cast(schema)


def _check_footer(found: pq.FileMetaData, packed: int, most_rows: int | None) -> None:
    """Sum what the columns of all row groups declare."""
    groups = [found.row_group(i) for i in range(found.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    declared = sum(column.total_uncompressed_size for column in columns)
    cells = sum(
        column.num_values * _WIDTHS.get(column.physical_type, _OFFSET) for column in columns
    )
    values = max((column.num_values for column in columns), default=0)
    fair = max(1, found.num_rows) * max(TOP, 64 if most_rows else 0)
    if (
        not layout.unpacks_fairly(packed, declared)
        or cells > layout.MOST_UNPACKED
        or (most_rows is not None and found.num_rows > most_rows)
        or values > fair
    ):
        raise _too_large()


def _bytes(column: pa.Array) -> int:
    """Bytes of a column once its dictionary is written out."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary)
    return _OFFSET * len(column) + (pc.sum(pc.take(lengths, column.indices)).as_py() or 0)


def _too_large() -> InputError:
    return InputError("is too large when it is unpacked")
