"""The Parquet files of a leaderboard."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import reduce
from operator import and_
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shiftbench.core.errors import InputError, first_line, one_line
from shiftbench.core.files import sweep_temporaries, written_atomically
from shiftbench.core.mirror import placed, shown
from shiftbench.leaderboard.schema import SCHEMA, damage
from shiftbench.leaderboard.versions import (
    MAJOR,
    check_readable,
    conformed,
    major_of,
    with_unknown,
)

COPY = "leaderboard.parquet"
STAMPS_KEY = b"shiftbench.stamps"
GROUP_ROWS = 10_000
"""Rows of a row group of the copy: a query for one task and backbone reads few of them."""
_NO_ROWS = pa.Table.from_batches([], SCHEMA)  # empty_table() would import pandas
_REMEDY = "move it away, or delete it to have the run done again"
_COPY_REMEDY = "delete it; it is only a copy, which shiftbench compact makes"


class Stamp(NamedTuple):
    """Tells a file from what it was before.

    Attributes:
        modified: nanoseconds since 1970.
        size: bytes.
    """

    modified: int
    size: int


@dataclass(frozen=True)
class Choice:
    """Columns and rows to read.

    Attributes:
        columns: in the schema's order; ``None`` for all, those that are not known included.
        where: accepted values by column of text.
    """

    columns: Sequence[str] | None
    where: Mapping[str, Collection[str]]

    @property
    def needed(self) -> list[str] | None:
        """The columns and those that rows are chosen by; ``None`` for all."""
        if self.columns is None:
            return None
        return [*self.columns, *(name for name in self.where if name not in self.columns)]

    @property
    def filter(self) -> pc.Expression | None:
        """The rows, as pyarrow has it."""
        conditions = [pc.field(k).isin(pa.array(v, pa.string())) for k, v in self.where.items()]
        return reduce(and_, conditions) if conditions else None

    def of(self, table: pa.Table) -> pa.Table:
        """The chosen part of a table."""
        if self.where:
            table = table.filter(self.filter)
        return table if self.columns is None else table.select(self.columns)


@dataclass(frozen=True)
class Files:
    """The files of a results folder.

    Attributes:
        root: the folder.
    """

    root: Path

    @classmethod
    def of(cls, results: Path) -> Files:
        """The files of a results folder."""
        return cls(results)

    def where(self, name: str) -> str:
        """The name of a file in messages."""
        return shown(self.root / name)

    def runs(self) -> dict[str, Stamp]:
        """The files of runs, by run id in its order."""
        found = {}
        try:
            with os.scandir(self.root / "leaderboard") as entries:
                for entry in entries:
                    if entry.name.endswith(".parquet") and not entry.name.startswith("."):
                        with suppress(FileNotFoundError):
                            of = entry.stat()
                            stamp = Stamp(of.st_mtime_ns, of.st_size)
                            found[entry.name.removesuffix(".parquet")] = stamp
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InputError(f"{self.where('leaderboard')}: {reason(error)}") from error
        return dict(sorted(found.items()))

    def read(self, run_ids: Collection[str] | None, choice: Choice) -> pa.Table:
        """The chosen rows of runs, of all by default, in the order of run ids.

        Raises:
            InputError: a file is broken, of a version that is not read, or no run's; or files have
                a column that is not known here in different types.
        """
        stamps = self.runs()
        if run_ids is not None:
            stamps = {run_id: stamp for run_id, stamp in stamps.items() if run_id in run_ids}
        copied, table = self._read_copy(stamps, choice)
        others = [run_id for run_id in stamps if run_id not in copied]
        try:
            tables = {COPY: table} | {_name(id_): self.read_run(id_, choice) for id_ in others}
            table = pa.concat_tables(tables.values(), promote_options="default")
        except pa.ArrowException as error:
            raise InputError(f"{self.where('leaderboard')}: {first_line(error)}") from error
        # Not a chunk for each file: filters and sorting would take many times as long.
        table = table.combine_chunks()
        if damage(table) is not None:  # looked for in all at once: there may be thousands
            self._refuse_damaged(tables)
        return _documented(table.take(pc.sort_indices(table["run_id"])))  # stable

    def read_run(self, run_id: str, choice: Choice) -> pa.Table:
        """The chosen part of a run's own file; no row if it was deleted since it was listed.

        Raises:
            InputError: it is broken, of a version that is not read, or another run's.
        """
        name = _name(run_id)
        try:
            with self._opened(name, _REMEDY) as (_, file, schema, major):
                check_readable(major, self.where(name), _REMEDY)
                if schema.equals(SCHEMA):
                    table = file.read(choice.needed)
                else:
                    table = conformed(file.read(), major, self.where(name), _REMEDY)
        except FileNotFoundError:
            return choice.of(_NO_ROWS)
        if set(table["run_id"].to_pylist()) != {run_id}:
            raise InputError(
                f"{self.where(name)}: holds rows of another run than its name says; {_REMEDY}"
            )
        return choice.of(table)

    def _refuse_damaged(self, tables: Mapping[str, pa.Table]) -> None:
        """Name the first file whose rows no report could be made of.

        Raises:
            InputError: there is one.
        """
        for name, table in tables.items():
            found = damage(table)
            if found is not None:
                remedy = _COPY_REMEDY if name == COPY else _REMEDY
                raise InputError(f"{self.where(name)}: is damaged: {found}; {remedy}")

    def _read_copy(self, stamps: Mapping[str, Stamp], choice: Choice) -> tuple[set[str], pa.Table]:
        """The runs whose files are as they were when they were copied, and their chosen rows."""
        nothing = set[str](), choice.of(_NO_ROWS)
        if not stamps:
            return nothing
        try:
            with self._opened(COPY, _COPY_REMEDY) as (source, file, schema, major):
                if major != MAJOR:
                    return nothing
                then = json.loads(schema.metadata.get(STAMPS_KEY, b"{}"))
                copied = {name for name, stamp in stamps.items() if then.get(name) == [*stamp]}
                if not copied:
                    return nothing
                known = [name for name in SCHEMA.names if name in schema.names]
                complete = len(known) == len(SCHEMA)
                columns = choice.needed if complete else None
                if complete and choice.where:  # takes pandas' import to skip row groups
                    table = pq.read_table(source, columns=columns, filters=choice.filter)
                else:
                    table = file.read(columns)
                if choice.needed is None or not complete:
                    table = conformed(table, major, self.where(COPY), _COPY_REMEDY)
        except FileNotFoundError:
            return nothing
        if len(copied) < len(then):
            table = table.filter(pc.is_in(table["run_id"], pa.array(copied, pa.string())))
        return copied, choice.of(table)

    def copied(self) -> dict[str, Stamp]:
        """The files that are in the copy, as they were then; none if it cannot be read."""
        try:
            with self._opened(COPY, _COPY_REMEDY) as (_, _, schema, major):
                stamps = json.loads(schema.metadata.get(STAMPS_KEY, b"{}"))
                return {run_id: Stamp(*s) for run_id, s in stamps.items()} if major == MAJOR else {}
        except (FileNotFoundError, InputError):
            return {}

    def sweep(self) -> None:
        """Delete copies that were not finished since their process was killed."""
        sweep_temporaries(self.root, f".{COPY}.*.tmp")

    @contextmanager
    def _opened(
        self, name: str, remedy: str
    ) -> Iterator[tuple[pa.NativeFile, pq.ParquetFile, pa.Schema, int]]:
        """A file of the leaderboard, the same as Parquet, its schema and its major version.

        Raises:
            FileNotFoundError: it is not there.
            InputError: it is broken or something else.
        """
        try:
            with pa.OSFile(str(self.root / name)) as source:
                file = pq.ParquetFile(source)
                schema = file.schema_arrow
                major = major_of(schema.metadata)
                if major is None:
                    raise InputError(f"{self.where(name)}: not a file of the leaderboard; {remedy}")
                yield source, file, schema, major
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            text = one_line(error)
            raise InputError(f"{self.where(name)}: cannot be read ({text}); {remedy}") from error

    def write(self, name: str, table: pa.Table, *, write_statistics: bool) -> None:
        """Write a Parquet file whole or not at all."""
        buffer = pa.BufferOutputStream()
        pq.write_table(
            table,
            buffer,
            compression="zstd",
            row_group_size=GROUP_ROWS,
            write_statistics=write_statistics,
        )
        with written_atomically(self.root / name) as temporary:
            temporary.write_bytes(buffer.getvalue())

    def probe(self) -> None:
        """Write a file among the runs' and delete it."""
        probe = self.root / f"leaderboard/.probe-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
        place = placed(probe)
        if place is not None:  # nothing here: an empty folder would look like results
            place.remote.write(place.name, b"")
            place.remote.delete([place.name])
            return
        with written_atomically(probe):
            pass
        probe.unlink(missing_ok=True)


def _name(run_id: str) -> str:
    """The path of a run's file in a results folder."""
    return f"leaderboard/{run_id}.parquet"


def _documented(table: pa.Table) -> pa.Table:
    """The table with the schema's own fields, whatever a reader of Parquet made of them."""
    unknown = [name for name in table.column_names if name not in SCHEMA.names]
    schema = with_unknown(table.select(unknown).schema)
    chosen = [schema.field(name) for name in table.column_names]
    return table.cast(pa.schema(chosen, metadata=SCHEMA.metadata))


def reason(error: OSError) -> str:
    """The reason of a failed operation on files, in a few words."""
    return error.strerror or first_line(error)
