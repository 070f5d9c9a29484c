"""The leaderboard's folder: a Parquet file for each run. DuckDB and pandas read it as it is.

A file is written whole or not at all, and is named after its run, so running again replaces rows
instead of adding them, and any number of processes may write at once.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.errors import InputError
from benchmark.files import written_atomically
from benchmark.leaderboard.schema import SCHEMA, VERSION, VERSION_KEY


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


def write_run(results: Path, run_id: str, table: pa.Table) -> None:
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
    with written_atomically(folder(results) / f"{run_id}.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read(results: Path, run_ids: Collection[str] | None = None) -> pa.Table:
    """All rows, or those of some runs, in the order of run ids; no row when nothing has run yet.

    Raises:
        InputError: a Parquet file in the folder is broken, of another version, or no run's.
    """
    tables = [_read_file(path) for path in _files(results, run_ids)]
    return pa.concat_tables([SCHEMA.empty_table(), *tables])


def read_runs(results: Path, run_ids: Collection[str] | None = None) -> dict[str, RunState]:
    """How the runs of a results folder ended, by run id.

    Raises:
        InputError: a Parquet file in the folder is broken, of another version, or no run's.
    """
    return {path.stem: _state(_read_file(path, _STATE)) for path in _files(results, run_ids)}


def relabel(table: pa.Table, labels: Mapping[str, str]) -> pa.Table:
    """The table with other labels, by run id: suites may call the run they share differently."""
    column = [labels[run_id] for run_id in table["run_id"].to_pylist()]
    position = table.schema.get_field_index("label")
    field = table.schema.field(position)
    return table.set_column(position, field, pa.array(column, field.type))


def check_writable(results: Path) -> None:
    """Make the leaderboard's folder and see that files can be written there.

    Raises:
        InputError: they cannot.
    """
    probe = folder(results) / f".probe-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{results}: results cannot be written there ({error.strerror}); "
            "choose another folder with --results"
        ) from error


_STATE = [
    "run_id",
    *("status", "error", "task", "backbone", "device", "world_size"),
    *("train_seconds", "train_images", "train_steps"),
    *("variant", "evaluation_set", "n", "evaluation_seconds"),
]


def _files(results: Path, run_ids: Collection[str] | None) -> list[Path]:
    # Path.glob's "*" finds hidden files too; unfinished ones end in .tmp.
    paths = sorted(path for path in folder(results).glob("*.parquet"))
    return [path for path in paths if run_ids is None or path.stem in run_ids]


def _read_file(path: Path, columns: list[str] | None = None) -> pa.Table:
    remedy = "move it away, or delete it to have the run done again"
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            version = (schema.metadata or {}).get(VERSION_KEY)
            if version is None:
                raise InputError(f"{path}: not a file of the leaderboard; {remedy}")
            if version != VERSION.encode() or not schema.equals(SCHEMA):
                raise InputError(
                    f"{path}: version {version.decode()} of the leaderboard's schema, but this "
                    f"shiftbench reads version {VERSION}; {remedy}"
                )
            table = file.read(columns)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason}); {remedy}") from error
    if set(table["run_id"].to_pylist()) != {path.stem}:
        raise InputError(f"{path}: holds rows of another run than its name says; {remedy}")
    return table


def _state(table: pa.Table) -> RunState:
    first: Mapping[str, object] = table.slice(0, 1).to_pylist()[0]
    predicted = {
        (row["variant"], row["evaluation_set"]): (row["evaluation_seconds"], row["n"])
        for row in table.select(
            ["variant", "evaluation_set", "evaluation_seconds", "n"]
        ).to_pylist()
    }
    timed = [(seconds, n) for seconds, n in predicted.values() if seconds is not None]
    return RunState(
        status=cast("Literal['done', 'failed']", first["status"]),
        error=cast("str | None", first["error"]),
        task=cast("str", first["task"]),
        backbone=cast("str", first["backbone"]),
        device=cast("str | None", first["device"]),
        world_size=cast("int | None", first["world_size"]),
        train_seconds=cast("float | None", first["train_seconds"]),
        train_images=cast("int | None", first["train_images"]),
        train_steps=cast("int | None", first["train_steps"]),
        evaluation_seconds=float(sum(seconds for seconds, _ in timed)),
        evaluation_images=int(sum(n for _, n in timed)),
    )
