"""The leaderboard: a folder with a Parquet file for each run. DuckDB and pandas read it as it is.

A file is written whole or not at all, and is named after its run, so running again replaces rows
instead of adding them, and any number of processes may write at once. The results folder may be a
URI of an object store, such as ``s3://bucket/results``.

Opening thousands of files takes long, so ``compact`` copies their rows into one file beside the
folder. It is a copy and nothing else: ``read`` takes from it the rows of files that are as they
were then, and opens the others. So nobody has to wait for anybody, and whatever is written, deleted
or killed meanwhile, no row is lost or seen twice.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from operator import and_
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shiftbench.core.errors import InputError, first_line
from shiftbench.core.files import written_atomically
from shiftbench.core.locations import filesystem, is_remote, kind_of
from shiftbench.leaderboard.schema import SCHEMA, VERSION, VERSION_KEY

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

Location = Path | str
"""A results folder: a path, or a URI of an object store."""

COPY = "leaderboard.parquet"
STAMPS_KEY = b"shiftbench.stamps"
GROUP_ROWS = 10_000
"""Rows of a row group of the copy: a query for one task and backbone reads few of them."""
_REMEDY = "move it away, or delete it to have the run done again"
_COPY_REMEDY = "delete it; it is only a copy, which shiftbench compact makes"


@dataclass(frozen=True)
class RunState:
    """What the leaderboard knows of a run.

    Attributes:
        status: how it ended.
        error: why it failed.
        task: its name.
        backbone: its name.
        device: name of the CPU or GPU.
        world_size: workers that shared the training.
        train_seconds: wall time of its training.
        train_images: images trained on, repetitions included.
        train_steps: optimizer steps.
        evaluation_seconds: to predict all its variants on all sets.
        evaluation_images: images predicted in that time.
    """

    status: Literal["done", "failed"]
    error: str | None
    task: str
    backbone: str
    device: str | None
    world_size: int | None
    train_seconds: float | None
    train_images: int | None
    train_steps: int | None
    evaluation_seconds: float
    evaluation_images: int


def folder(results: Path) -> Path:
    """Where the leaderboard of a results folder is."""
    return results / "leaderboard"


def write_run(results: Location, run_id: str, table: pa.Table) -> None:
    """Write the rows of a run in place of what was known of it.

    Args:
        results: the results folder.
        run_id: of all the rows.
        table: of ``schema.to_table`` or ``schema.failed``.
    """
    if not table.schema.equals(SCHEMA, check_metadata=True):
        raise ValueError("the table does not have the leaderboard's schema")
    if set(table["run_id"].to_pylist()) != {run_id}:
        raise ValueError(f"the rows are not all of run {run_id}")
    # Statistics are for skipping parts of large files: here they would be a third of the file.
    _Place.of(results).write(f"leaderboard/{run_id}.parquet", table, write_statistics=False)


def read(
    results: Location,
    run_ids: Collection[str] | None = None,
    *,
    columns: Sequence[str] | None = None,
    where: Mapping[str, Collection[str]] | None = None,
) -> pa.Table:
    """All rows, or some of them, in the order of run ids; no row when nothing has run yet.

    Args:
        results: the results folder.
        run_ids: only of these runs.
        columns: only these, in the schema's order.
        where: only rows whose values are among these, by column of text, such as
            ``{"task": ["imagenet"], "backbone": ["ViT-B-32"]}``.

    Raises:
        InputError: a Parquet file in the folder is broken, of another version, or no run's.
    """
    place = _Place.of(results)
    files = place.files()
    if run_ids is not None:
        files = {run_id: stamp for run_id, stamp in files.items() if run_id in run_ids}
    names = [name for name in SCHEMA.names if columns is None or name in columns]
    chosen = _Choice([name for name in SCHEMA.names if name in {*names, "run_id"}], where or {})
    copied, table = place.read_copy(files, chosen)
    others = [run_id for run_id in files if run_id not in copied]
    # Not a chunk for each file: filters and sorting would take many times as long.
    table = pa.concat_tables([table, *place.read_files(others, chosen)]).combine_chunks()
    return table.take(pc.sort_indices(table["run_id"])).select(names)  # stable


def read_runs(results: Location, run_ids: Collection[str] | None = None) -> dict[str, RunState]:
    """How the runs of a results folder ended, by run id.

    Raises:
        InputError: a Parquet file in the folder is broken, of another version, or no run's.
    """
    rows = read(results, run_ids, columns=_STATE).to_pylist()
    return {run_id: _state([*of_run]) for run_id, of_run in groupby(rows, lambda r: r["run_id"])}


@dataclass(frozen=True)
class Compaction:
    """What is in the copy.

    Attributes:
        runs: whose rows are.
        rows: how many.
        recent: runs whose files are too new; they are read from their files.
    """

    runs: int
    rows: int
    recent: int


def compact(results: Location, settled: float = 2.0) -> Compaction:
    """Copy all rows into one file, from which they are read until their runs are done again.

    Args:
        results: the results folder.
        settled: seconds since a file was written before it is copied. One that is written twice
            within the resolution of its time stamp, at most 2 s, may not look changed.

    Raises:
        InputError: a Parquet file in the folder is broken, of another version, or no run's; or the
            copy cannot be written.
    """
    place = _Place.of(results)
    now = time.time()
    files = place.files()  # before they are read: what changes meanwhile is not as listed here
    stamps = {run_id: s for run_id, s in files.items() if now - s.modified / 1e9 >= settled}
    by = [(name, "ascending") for name in ("task", "backbone", "run_id")]
    table = read(results, stamps).sort_by(by)
    table = table.replace_schema_metadata({**SCHEMA.metadata, STAMPS_KEY: json.dumps(stamps)})
    try:
        place.write(COPY, table, write_statistics=True)
    except OSError as error:
        raise InputError(f"{place.where(COPY)}: cannot be written ({_reason(error)})") from error
    return Compaction(len(stamps), len(table), len(files) - len(stamps))


def relabel(table: pa.Table, labels: Mapping[str, str]) -> pa.Table:
    """The table with other labels, by run id: suites may call the run they share differently."""
    column = [labels[run_id] for run_id in table["run_id"].to_pylist()]
    position = table.schema.get_field_index("label")
    field = table.schema.field(position)
    return table.set_column(position, field, pa.array(column, field.type))


def exists(results: Location) -> bool:
    """Whether there is such a results folder. An object store has one once something is in it.

    Raises:
        InputError: that cannot be found out.
    """
    return kind_of(str(results)) == "folder"


def check_writable(results: Location) -> None:
    """Make the leaderboard's folder and see that files can be written there.

    Raises:
        InputError: they cannot.
    """
    try:
        _Place.of(results).probe()
    except OSError as error:
        raise InputError(
            f"{results}: results cannot be written there ({_reason(error)}); "
            "choose another folder with --results"
        ) from error


class Stamp(NamedTuple):
    """Tells a file from what it was before.

    Attributes:
        modified: nanoseconds since 1970.
        size: bytes.
    """

    modified: int
    size: int


@dataclass(frozen=True)
class _Place:
    """A results folder: its path on a file system, which may be an object store's."""

    system: FileSystem
    root: str
    remote: bool

    @classmethod
    def of(cls, results: Location) -> _Place:
        system, root = filesystem(str(results))
        return cls(system, root.rstrip("/"), is_remote(str(results)))

    def where(self, name: str) -> str:
        """What a message calls a file: without a URI's query, which may hold keys."""
        scheme = f"{self.system.type_name}://" if self.remote else ""
        return f"{scheme}{self.root}/{name}"

    def files(self) -> dict[str, Stamp]:
        """The files of runs, by run id in its order."""
        from pyarrow.fs import FileSelector, FileType

        try:
            selector = FileSelector(f"{self.root}/leaderboard", allow_not_found=True)
            infos = self.system.get_file_info(selector)
        except OSError as error:
            raise InputError(f"{self.where('leaderboard')}: {_reason(error)}") from error
        return {
            info.base_name.removesuffix(".parquet"): Stamp(info.mtime_ns, info.size)
            for info in sorted(infos, key=lambda info: info.base_name)
            if info.type == FileType.File
            and info.base_name.endswith(".parquet")
            and not info.base_name.startswith(".")
        }

    def read_files(self, run_ids: Sequence[str], chosen: _Choice) -> list[pa.Table]:
        """What is chosen of runs' own files, in this order."""
        if not self.remote:
            return [self._read_file(run_id, chosen) for run_id in run_ids]
        with ThreadPoolExecutor(16) as pool:  # each waits for the network
            return list(pool.map(lambda run_id: self._read_file(run_id, chosen), run_ids))

    def _read_file(self, run_id: str, chosen: _Choice) -> pa.Table:
        name = f"leaderboard/{run_id}.parquet"
        try:
            with self._opened(name, _REMEDY) as (_, file):
                version = file.schema_arrow.metadata[VERSION_KEY].decode()
                if version != VERSION:
                    raise InputError(
                        f"{self.where(name)}: version {version} of the leaderboard's schema, but "
                        f"this shiftbench reads version {VERSION}; {_REMEDY}"
                    )
                table = file.read(chosen.needed)
        except FileNotFoundError:  # deleted since it was listed
            return chosen.of(SCHEMA.empty_table())
        if set(table["run_id"].to_pylist()) != {run_id}:
            raise InputError(
                f"{self.where(name)}: holds rows of another run than its name says; {_REMEDY}"
            )
        return chosen.of(table)

    def read_copy(self, files: Mapping[str, Stamp], chosen: _Choice) -> tuple[set[str], pa.Table]:
        """The runs whose files are as they were when they were copied, and what is chosen."""
        nothing = set[str](), chosen.of(SCHEMA.empty_table())
        if not files:
            return nothing
        try:
            with self._opened(COPY, _COPY_REMEDY) as (source, file):
                metadata = file.schema_arrow.metadata
                if metadata[VERSION_KEY] != VERSION.encode():
                    return nothing
                stamps = json.loads(metadata.get(STAMPS_KEY, b"{}"))
                copied = {name for name, stamp in files.items() if stamps.get(name) == [*stamp]}
                if not copied:
                    return nothing
                table = pq.read_table(source, columns=chosen.needed, filters=chosen.filter)
        except FileNotFoundError:
            return nothing
        if len(copied) < len(stamps):
            table = table.filter(pc.is_in(table["run_id"], pa.array(copied, pa.string())))
        # The reader of data sets calls the elements of lists otherwise.
        schema = pa.schema([SCHEMA.field(name) for name in chosen.needed])
        return copied, chosen.of(table.cast(schema))

    @contextmanager
    def _opened(self, name: str, remedy: str) -> Iterator[tuple[pa.NativeFile, pq.ParquetFile]]:
        """A file of the leaderboard's columns, and the same as Parquet.

        Raises:
            FileNotFoundError: it is not there.
            InputError: it is broken or something else.
        """
        path = f"{self.root}/{name}"
        try:
            if self.remote:  # all at once: a request costs more than its bytes, and it may change
                with self.system.open_input_stream(path) as stream:
                    source: pa.NativeFile = pa.BufferReader(stream.read())
            else:
                source = pa.OSFile(path)
            with source:
                file = pq.ParquetFile(source)
                schema = file.schema_arrow
                version = (schema.metadata or {}).get(VERSION_KEY)
                if version is None or (version == VERSION.encode() and not schema.equals(SCHEMA)):
                    raise InputError(f"{self.where(name)}: not a file of the leaderboard; {remedy}")
                yield source, file
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{self.where(name)}: cannot be read ({reason}); {remedy}") from error

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
        self._put(name, buffer.getvalue())

    def probe(self) -> None:
        """Write a file among the runs' and delete it."""
        name = f"leaderboard/.probe-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
        self._put(name, b"")
        self.system.delete_file(f"{self.root}/{name}")

    def _put(self, name: str, content: bytes | pa.Buffer) -> None:
        path = f"{self.root}/{name}"
        if self.remote:  # an object is there once it is whole
            with self.system.open_output_stream(path) as stream:
                stream.write(content)
        else:
            with written_atomically(Path(path)) as temporary:
                temporary.write_bytes(content)


@dataclass(frozen=True)
class _Choice:
    """Which columns and rows to read.

    Attributes:
        columns: in the schema's order.
        where: accepted values by column of text.
    """

    columns: list[str]
    where: Mapping[str, Collection[str]]

    @property
    def needed(self) -> list[str]:
        """The columns, and those that rows are chosen by."""
        return [*self.columns, *(name for name in self.where if name not in self.columns)]

    @property
    def filter(self) -> pc.Expression | None:
        """The rows, as pyarrow has it."""
        conditions = [pc.field(k).isin(pa.array(v, pa.string())) for k, v in self.where.items()]
        return reduce(and_, conditions) if conditions else None

    def of(self, table: pa.Table) -> pa.Table:
        """What is chosen of a table."""
        if self.where:
            table = table.filter(self.filter)
        return table.select(self.columns).replace_schema_metadata(SCHEMA.metadata)


def _reason(error: OSError) -> str:
    return error.strerror or first_line(error)


_STATE = [
    "run_id",
    *("status", "error", "task", "backbone", "device", "world_size"),
    *("train_seconds", "train_images", "train_steps"),
    *("variant", "evaluation_set", "n", "evaluation_seconds"),
]


def _state(rows: Sequence[Mapping[str, Any]]) -> RunState:
    """How a run ended, from its rows."""
    first = rows[0]
    predicted = {
        (row["variant"], row["evaluation_set"]): (row["evaluation_seconds"], row["n"])
        for row in rows
    }
    timed = [(seconds, n) for seconds, n in predicted.values() if seconds is not None]
    return RunState(
        status=first["status"],
        error=first["error"],
        task=first["task"],
        backbone=first["backbone"],
        device=first["device"],
        world_size=first["world_size"],
        train_seconds=first["train_seconds"],
        train_images=first["train_images"],
        train_steps=first["train_steps"],
        evaluation_seconds=float(sum(seconds for seconds, _ in timed)),
        evaluation_images=int(sum(n for _, n in timed)),
    )
