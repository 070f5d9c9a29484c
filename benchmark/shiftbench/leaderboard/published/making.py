"""The Parquet files of published results, made from CSV files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shiftbench.core.errors import InputError
from shiftbench.core.files import written_atomically
from shiftbench.leaderboard.published.cells import Cells
from shiftbench.leaderboard.published.openclip import openclip
from shiftbench.leaderboard.published.papers import papers_of
from shiftbench.leaderboard.published.schema import PUBLISHED_COLUMNS, PublishedRow
from shiftbench.leaderboard.published.soups import soups
from shiftbench.leaderboard.published.testbed import testbed

CONVERTERS: Mapping[str, Callable[[Sequence[Cells]], Iterable[PublishedRow]]] = {
    "imagenet-testbed": testbed,
    "model-soups-finetunes": soups,
    "openclip-zero-shot": openclip,
    "papers": papers_of("papers"),
    "papers-since-2023": papers_of("papers-since-2023"),
}
NOT_RESULTS = ("iwildcam-labels",)
"""CSV files beside them that are no results: the class names that the task iwildcam has."""


def convert(*folders: Path) -> dict[str, pa.Table]:
    """A table for each CSV file of results in some folders, by name.

    Raises:
        InputError: there is none, or an unknown one, or one with a value that is no score.
    """
    paths = {path.stem: path for folder in folders for path in sorted(folder.glob("*.csv"))}
    results = {stem: path for stem, path in paths.items() if stem not in NOT_RESULTS}
    if not results:
        places = ", ".join(map(str, folders))
        raise InputError(f"{places}: there are no CSV files of published results")
    tables = {}
    for stem, path in results.items():
        if stem not in CONVERTERS:
            raise InputError(f"{path}: only these are known: {', '.join(CONVERTERS)}")
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        try:
            rows = list(CONVERTERS[stem](lines))
        except KeyError as error:
            raise InputError(f"{path}: the column or name {error} is missing or unknown") from error
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error
        tables[stem] = PUBLISHED_COLUMNS.table(rows)
    return tables


def write(tables: Mapping[str, pa.Table], folder: Path) -> None:
    """Write each table to a Parquet file; the same tables give the same bytes."""
    for stem, table in tables.items():
        with written_atomically(folder / f"{stem}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd", compression_level=19)
