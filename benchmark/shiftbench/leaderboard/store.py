"""The leaderboard: a folder with a Parquet file for each run. DuckDB and pandas read it as it is.

A file is written whole or not at all, and is named after its run, so running again replaces rows
instead of adding them, and any number of processes may write at once. The results folder may be in
an object store, such as ``s3://bucket/results``, of which ``core.mirror`` keeps a copy here.

Opening thousands of files takes long, so ``compact`` copies their rows into one file beside the
folder; runs and reports see to it that this is done in time (``keep_compact``). It is a copy and
nothing else: ``read`` takes from it the rows of files that are as they were then, and opens the
others. So nobody has to wait for anybody, and whatever is written, deleted or killed meanwhile, no
row is lost or seen twice.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.core.files import remove
from shiftbench.core.locks import locked
from shiftbench.core.mirror import refresh_file, shown
from shiftbench.leaderboard.files import COPY, STAMPS_KEY, Choice, Files, Stamp, reason
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import SCHEMA
from shiftbench.leaderboard.versions import with_unknown

Status = Literal["done", "failed"]

MANY = 16
"""Files that are opened without further ado."""
SHARE = 0.02
"""Part of the files that may be outside of the copy; making it takes about as long as opening so
many."""

_log = logging.getLogger(__name__)


def folder(results: Path) -> Path:
    """The leaderboard's folder in a results folder."""
    return results / "leaderboard"


def write_run(results: Path, run_id: str, table: pa.Table) -> None:
    """Write the rows of a run in place of what was known of it.

    Rows of a run that is done are never replaced by one that says that it failed.

    Args:
        results: the results folder.
        run_id: of all the rows.
        table: of ``schema.to_table`` or ``schema.failed``.
    """
    unknown = table.select([name for name in table.column_names if name not in SCHEMA.names])
    if not table.schema.equals(with_unknown(unknown.schema), check_metadata=True):
        raise ValueError("the table does not have the leaderboard's schema")
    if set(table["run_id"].to_pylist()) != {run_id}:
        raise ValueError(f"the rows are not all of run {run_id}")
    files = Files.of(results)
    with _alone(RunFolder.of(files.root, run_id)):
        if "failed" in table["status"].to_pylist() and status_of(results, run_id) == "done":
            return
        # Statistics are for skipping parts of large files: here they would be a third of the file.
        files.write(f"leaderboard/{run_id}.parquet", table, write_statistics=False)


@contextmanager
def _alone(run: RunFolder) -> Iterator[None]:
    """No other process writes a run's rows meanwhile, where the file system has locks."""
    with locked(run.lock) if run.path.is_dir() else nullcontext():  # else nobody is at it
        yield


def status_of(results: Path, run_id: str) -> Status | None:
    """The status of one run, from its own file; ``None`` if it has none.

    Raises:
        InputError: the file is broken, of a version that is not read, or another run's.
    """
    refresh_file(folder(results) / f"{run_id}.parquet")
    found = Files.of(results).read_run(run_id, Choice(["run_id", "status"], {}))["status"]
    status: Status | None = found[0].as_py() if len(found) else None
    return status


def forget(results: Path, run_id: str) -> None:
    """Delete the rows of a run."""
    remove(folder(results) / f"{run_id}.parquet")


def read(
    results: Path,
    run_ids: Collection[str] | None = None,
    *,
    columns: Sequence[str] | None = None,
    where: Mapping[str, Collection[str]] | None = None,
) -> pa.Table:
    """All rows, or some of them, in the order of run ids; no row when nothing has run yet.

    Files of an older version come in the columns of this one. Columns that are not known here
    stand behind those of ``SCHEMA``.

    Args:
        results: the results folder.
        run_ids: only of these runs.
        columns: only these columns of ``SCHEMA``, in its order.
        where: only rows whose values are among these, by column of text, such as
            ``{"task": ["imagenet"], "backbone": ["ViT-B-32"]}``.

    Raises:
        InputError: a Parquet file in the folder is broken, of a version that is not read, or no
            run's.
    """
    if columns is None:
        return Files.of(results).read(run_ids, Choice(None, where or {}))
    names = [name for name in SCHEMA.names if name in columns]
    by_run = [name for name in SCHEMA.names if name in {*names, "run_id"}]
    return Files.of(results).read(run_ids, Choice(by_run, where or {})).select(names)


def statuses(results: Path, run_ids: Collection[str] | None = None) -> dict[str, Status]:
    """The status of each run of a results folder, by run id.

    Raises:
        InputError: a Parquet file in the folder is broken, of a version that is not read, or no
            run's.
    """
    table = read(results, run_ids, columns=["run_id", "status"])
    return dict(zip(table["run_id"].to_pylist(), table["status"].to_pylist(), strict=True))


@dataclass(frozen=True)
class Compaction:
    """The content of the copy.

    Attributes:
        runs: number of runs in the copy.
        rows: number of rows in the copy.
        recent: runs whose files are too new; they are read from their files.
    """

    runs: int
    rows: int
    recent: int


def compact(results: Path, settled: float = 2.0) -> Compaction:
    """Copy all rows into one file, from which they are read until their runs are done again.

    Args:
        results: the results folder.
        settled: seconds since a file was written before it is copied. One that is written twice
            within the resolution of its time stamp, at most 2 s, may not look changed.

    Raises:
        InputError: a Parquet file in the folder is broken, of a version that is not read, or no
            run's; or the copy cannot be written.
    """
    files = Files.of(results)
    now = time.time()
    listed = files.runs()  # before they are read: what changes meanwhile is not as listed here
    stamps = {run_id: s for run_id, s in listed.items() if now - s.modified / 1e9 >= settled}
    by = [(name, "ascending") for name in ("task", "backbone", "run_id")]
    table = read(results, stamps).sort_by(by)
    table = table.replace_schema_metadata({**SCHEMA.metadata, STAMPS_KEY: json.dumps(stamps)})
    try:
        files.write(COPY, table, write_statistics=True)
    except OSError as error:
        raise InputError(f"{files.where(COPY)}: cannot be written ({reason(error)})") from error
    return Compaction(len(stamps), len(table), len(listed) - len(stamps))


def keep_compact(results: Path) -> None:
    """Copy the rows if enough files have been written since the last time.

    A by-product of runs and reports, so that neither ever has to open thousands of files. Where
    the copy cannot be made, all is read from the files themselves.
    """
    files = Files.of(results)
    try:
        copied, listed = files.copied(), files.runs()
        new = sum(copied.get(run_id) != stamp for run_id, stamp in listed.items())
        if new >= max(MANY, len(listed) * SHARE):
            files.sweep()
            compact(results)
    except (InputError, OSError) as error:
        _log.info("the rows are not compacted: %s", error)


def relabel(table: pa.Table, labels: Mapping[str, Sequence[str]] | None = None) -> pa.Table:
    """The table with the rows of every run under each of its labels.

    Args:
        table: with all columns of ``SCHEMA``.
        labels: of each run, by its id: suites may call the run they share differently. ``None``
            for those that the suite had which asked for the run first.
    """
    if labels is None:
        firsts, others = (table[name].to_pylist() for name in ("label", "also_called"))
        of_rows = [(first, *(more or ())) for first, more in zip(firsts, others, strict=True)]
    else:
        of_rows = [tuple(labels[run_id]) for run_id in table["run_id"].to_pylist()]
    rows = [row for row, names in enumerate(of_rows) for _ in names]
    column = [name for names in of_rows for name in names]
    if column == table["label"].to_pylist():
        return table
    position = table.schema.get_field_index("label")
    field = table.schema.field(position)
    repeated = table.take(pa.array(rows, pa.int64()))
    return repeated.set_column(position, field, pa.array(column, field.type))


def stamps(results: Path) -> dict[str, Stamp]:
    """Time and size of each run's file, by run id: they change whenever rows do.

    Raises:
        InputError: the files cannot be listed.
    """
    return Files.of(results).runs()


def exists(results: Path) -> bool:
    """True if there is such a results folder. An object store has one once something is in it."""
    return results.is_dir()


def check_writable(results: Path) -> None:
    """Make the leaderboard's folder and see that files can be written there.

    Raises:
        InputError: they cannot.
    """
    try:
        Files.of(results).probe()
    except OSError as error:
        raise InputError(
            f"{shown(results)}: results cannot be written there ({reason(error)}); "
            "choose another folder with --results"
        ) from error
