"""Sets whose images and labels are listed in a table: a CSV or JSON file beside the image files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt

from shiftbench.core import locations
from shiftbench.core.errors import InputError
from shiftbench.core.locations import DirectoryEntry, shown
from shiftbench.data.images import ImageSet, Labels, Names
from shiftbench.data.sources.files import FileImages, fingerprint
from shiftbench.data.sources.listing import entries

Columns = dict[str, list[str]]


def read_table(location: str, wanted: Iterable[str]) -> Columns:
    """Read some columns of a CSV file, as text.

    Raises:
        InputError: the file cannot be read, lacks a column, or a row has another length.
    """
    try:
        rows = csv.reader(io.StringIO(locations.read(location).decode("utf-8-sig"), newline=""))
        header = next(rows, [])
        missing = [name for name in wanted if name not in header]
        if missing:
            raise InputError(f'{location}: there is no column "{missing[0]}"')
        places = {name: header.index(name) for name in wanted}
        columns: Columns = {name: [] for name in wanted}
        for number, row in enumerate(rows, start=2):
            if row and len(row) != len(header):
                raise InputError(f"{location}: row {number} has {len(row)} of {len(header)} fields")
            if row:
                for name, place in places.items():
                    columns[name].append(row[place])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{location}: not a CSV file: {error}") from error
    return columns


def integers(location: str, name: str, texts: list[str]) -> Labels:
    """Return a column's whole numbers (n,) int64.

    Raises:
        InputError: a text is none.
    """
    try:
        return np.array([int(text) for text in texts], np.int64)
    except ValueError as error:
        raise InputError(f"{location}: column {name}: {error}") from error


def listed_set(
    title: str,
    folder: str,
    names: Names,
    labels: Labels,
    metadata: Mapping[str, npt.NDArray[np.generic]],
    *told: str,
) -> ImageSet:
    """Return the listed examples whose image files are there; ``data verify`` counts the others.

    Args:
        title: of the set, for messages.
        folder: location of the image files.
        names: (n,) paths in it; also the ids.
        labels: (n,) int64.
        metadata: columns (n,).
        told: beside names and sizes, what the fingerprint is made of: digests of tables, settings.

    Raises:
        InputError: the folder is not there.
    """
    if locations.kind_of(folder) != "folder":
        raise InputError(f"{title}: there is no folder {folder}")
    listed = _entries_of(folder, names.tolist())
    sizes = {name: entry.size for name, entry in listed.items() if not entry.fault}
    there = np.array([sizes.get(name, 0) > 0 for name in names.tolist()], bool)
    listing = "\n".join(f"{name}\t{sizes[name]}" for name in names[there].tolist())
    return ImageSet(
        ids=names[there],
        labels=labels[there],
        images=FileImages(folder, names[there]),
        fingerprint=fingerprint(*told, listing),
        metadata={name: column[there] for name, column in metadata.items()},
        faults=tuple(_missing(folder, names[~there].tolist(), listed)),
    )


def _entries_of(folder: str, names: list[str]) -> dict[str, DirectoryEntry]:
    """Return what is in every folder that some paths are in, by path."""
    below = sorted({name.rpartition("/")[0] for name in names})
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(partial(_below, folder), below)
    return {path: entry for part in found for path, entry in part}


def _below(folder: str, below: str) -> list[tuple[str, DirectoryEntry]]:
    location = f"{folder}/{below}" if below else folder
    if locations.kind_of(location) != "folder":
        return []
    return [
        (f"{below}/{entry.name}" if below else entry.name, entry) for entry in entries(location)
    ]


def _missing(folder: str, names: list[str], listed: Mapping[str, DirectoryEntry]) -> Iterator[str]:
    """Yield what is wrong with the files that a table names, those not there in one line."""
    absent = [name for name in names if name not in listed]
    for name in names:
        if name in listed:
            yield f"{shown(f'{folder}/{name}')}: {listed[name].fault or 'is empty'}"
    if absent:
        more = f", and {len(absent) - 1:,} more" if len(absent) > 1 else ""
        yield f"{shown(f'{folder}/{absent[0]}')}: is not there{more}"
