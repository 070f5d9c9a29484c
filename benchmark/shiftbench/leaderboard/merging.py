"""Several results folders read as one, and where each run of them is from.

A run has one identity wherever it is done, so two folders may both have it. Accounts that agree in
all that the identity determines (``bundles.agreement``) count once. Those that do not, since
another device or version computed them, stay apart: each is a run of its own, called
``<run id>@<results>``, and no mean is taken over both. A run that failed counts where no folder has
it done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.leaderboard.bundles.agreement import differences
from shiftbench.leaderboard.bundles.public import public
from shiftbench.leaderboard.runfolder import RunFolder, SearchFolder
from shiftbench.leaderboard.schema import SCHEMA, Row, rows

APART = "@"
"""Stands between a run's id and the results it is from, where several disagree."""


@dataclass(frozen=True)
class Folders:
    """Where the files of runs and of searches are.

    Attributes:
        results: the results folders.
        places: by run id, the folder with its files and its id there; empty where one is read.
        origins: by run id, the names of the results that have it; empty where one is read.
    """

    results: tuple[Path, ...] = ()
    places: Mapping[str, tuple[Path, str]] = field(default_factory=dict)
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Path | Folders | None) -> Folders:
        """One results folder, none, or several as they are."""
        if isinstance(results, Folders):
            return results
        return cls() if results is None else cls((results,))

    def run(self, run_id: str) -> RunFolder | None:
        """The folder of a run; ``None`` where there are no results."""
        if run_id in self.places:
            return RunFolder.of(*self.places[run_id])
        return RunFolder.of(self.results[0], run_id) if self.results else None

    def search(self, search_id: str) -> SearchFolder | None:
        """The folder of a search: the first that has finished it, or else the first."""
        found = [SearchFolder.of(results, search_id) for results in self.results]
        return next((of for of in found if of.finished), found[0] if found else None)


@dataclass(frozen=True)
class Merged:
    """The rows of several results, in the order of run ids, and where they are from."""

    table: pa.Table
    folders: Folders


def merge(results: Mapping[str, tuple[Path, pa.Table]]) -> Merged:
    """Read several results as one.

    Args:
        results: where each is, and its rows, by a name for people.
    """
    kept, called, origins = _decided({name: table for name, (_, table) in results.items()})
    places: dict[str, tuple[Path, str]] = {}
    tables = []
    for name, (location, table) in results.items():
        renamed = called[name]
        for run_id in kept[name]:
            places[renamed.get(run_id, run_id)] = location, run_id
        tables.append(_renamed(_only(table, kept[name]), renamed))
    merged = pa.concat_tables(tables, promote_options="default").combine_chunks()
    folders = tuple(where for where, _ in results.values())
    found = Folders(folders, places, origins)
    ordered = merged.sort_by([("run_id", "ascending")]) if len(merged) else merged
    return Merged(ordered.replace_schema_metadata(SCHEMA.metadata), found)


def names_of(results: Sequence[str]) -> list[str]:
    """A short name for each of several results: the ends of their paths that tell them apart.

    Raises:
        InputError: one is given twice.
    """
    plain = [str(one).split("?", 1)[0].rstrip("/") or "/" for one in results]
    for name in plain:
        if plain.count(name) > 1:
            raise InputError(f"--results {name}: is given twice")
    parts = [name.split("/") for name in plain]
    for length in range(1, max(map(len, parts), default=0) + 1):
        ends = ["/".join(of[-length:]) for of in parts]
        if len({*ends}) == len(ends):
            return ends
    return plain


def _decided(
    tables: Mapping[str, pa.Table],
) -> tuple[dict[str, set[str]], dict[str, dict[str, str]], dict[str, tuple[str, ...]]]:
    """Which results a run is read from.

    Returns:
        by name the runs that are read from there; by name what those of its runs that stay apart
        are called, also where another name's equal account is read; and by the id that a run is to
        have, the names of all that have it.
    """
    statuses = {
        name: dict(zip(table["run_id"].to_pylist(), table["status"].to_pylist(), strict=True))
        for name, table in tables.items()
    }
    having: dict[str, list[str]] = defaultdict(list)
    for name, of in statuses.items():
        for run_id in of:
            having[run_id].append(name)
    kept: dict[str, set[str]] = {name: set() for name in tables}
    called: dict[str, dict[str, str]] = {name: {} for name in tables}
    origins: dict[str, tuple[str, ...]] = {}
    shared = {run_id for run_id, names in having.items() if len(names) > 1}
    accounts = {name: _accounts(_only(table, shared)) for name, table in tables.items()}
    for run_id, names in having.items():
        done = [name for name in names if statuses[name][run_id] == "done"]
        groups: list[list[str]] = []
        for name in done or names[:1]:
            for group in groups:
                if not differences(accounts[group[0]][run_id], accounts[name][run_id]):
                    group.append(name)
                    break
            else:
                groups.append([name])
        for group in groups:
            kept[group[0]].add(run_id)
            own = f"{run_id}{APART}{group[0]}" if len(groups) > 1 else run_id
            origins[own] = tuple(group if done else names)
            if own != run_id:
                for name in group:
                    called[name][run_id] = own
    return kept, called, origins


def _accounts(table: pa.Table) -> dict[str, list[Row]]:
    """The rows of runs that are done, by run id, as a bundle would have them."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows(public(table)):
        found[row.run_id].append(row)
    return found


def _only(table: pa.Table, run_ids: Iterable[str]) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.is_in(table["run_id"], pa.array([*run_ids], pa.string())))


def _renamed(table: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """The table with other ids of some runs, as parents too."""
    if not names:
        return table
    ids = [names.get(run_id, run_id) for run_id in table["run_id"].to_pylist()]
    parents = [
        [{**parent, "run_id": names.get(parent["run_id"], parent["run_id"])} for parent in of]
        for of in table["parents"].to_pylist()
    ]
    for name, values in (("run_id", ids), ("parents", parents)):
        position = table.schema.get_field_index(name)
        item = table.schema.field(position)
        table = table.set_column(position, item, pa.array(values, item.type))
    return table
