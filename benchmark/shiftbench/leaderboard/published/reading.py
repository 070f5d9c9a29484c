"""Reading published results, and the lines of the tables that they were printed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shiftbench.core.errors import InputError, one_line
from shiftbench.core.shipped import shipped
from shiftbench.leaderboard.columns import json_text
from shiftbench.leaderboard.published.cells import without
from shiftbench.leaderboard.published.schema import (
    COLLECTIONS,
    PUBLISHED_SCHEMA,
    UNCROPPED,
    VERSION,
    VERSION_KEY,
    PublishedRow,
    published_rows,
)


def find_published(folder: Path | None = None) -> Path:
    """The folder of published results: ``folder``, or by default the shipped ones.

    Raises:
        InputError: they are not there, or not all of those that are shipped.
    """
    place = shipped("published") if folder is None else folder
    there = {path.stem for path in place.glob("*.parquet")}
    if not there:
        raise InputError(f"{place}: there are no published results (Parquet files)")
    missing = [] if folder is not None else [name for name in COLLECTIONS if name not in there]
    if missing:
        raise InputError(f"{place}: {missing[0]}.parquet is missing")
    return place


def read_published(folder: Path | None = None) -> pa.Table:
    """All published results.

    Args:
        folder: of the Parquet files; by default as ``find_published`` says.

    Raises:
        InputError: there are none, or a file is broken or of another version.
    """
    paths = sorted(find_published(folder).glob("*.parquet"))
    return pa.concat_tables(_read_file(path) for path in paths)


def _read_file(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from error
    version = (table.schema.metadata or {}).get(VERSION_KEY)
    if not table.schema.equals(PUBLISHED_SCHEMA) or version != VERSION.encode():
        raise InputError(
            f"{path}: not published results of version {VERSION}, which this shiftbench reads"
        )
    return table


@dataclass(frozen=True)
class PublishedLine:
    """The values that belong together: one line of a published table.

    Attributes:
        first: the first of its rows, for what all of them share.
        cells: value in [0, 1] by evaluation set.
        uncropped: true if its value on ObjectNet is of images that were not cropped.
    """

    first: PublishedRow
    cells: Mapping[str, float]
    uncropped: bool = False


def published_lines(table: pa.Table) -> list[PublishedLine]:
    """The lines of published tables, in their order.

    Two that agree in all but the values, such as two quoted re-runs, are told apart by a set that
    comes again.
    """
    found: list[dict[str, PublishedRow]] = []
    current: dict[tuple[Any, ...], dict[str, PublishedRow]] = {}
    for row in published_rows(table):
        key = (
            *(row.collection, row.source, without(row.note, UNCROPPED), row.task, row.backbone),
            *(row.shots, row.label, row.parent, row.variant, row.selection),
            None if row.config is None else json_text(row.config),
        )
        if key not in current or row.evaluation_set in current[key]:
            current[key] = {}
            found.append(current[key])
        current[key][row.evaluation_set] = row
    return [
        PublishedLine(
            first=next(iter(of_line.values())),
            cells={name: row.value for name, row in of_line.items()},
            uncropped=any(UNCROPPED in (row.note or "") for row in of_line.values()),
        )
        for of_line in found
    ]


def average_of_cells(cells: Mapping[str, float], sets: Sequence[str]) -> float | None:
    """The mean over evaluation sets, each counting alike; ``None`` when one is missing.

    WiSE-FT's "avg shifts" is this over the five shifts of ImageNet (arXiv 2109.01903, Table 1).
    """
    if not sets or any(name not in cells for name in sets):
        return None
    return sum(cells[name] for name in sets) / len(sets)
