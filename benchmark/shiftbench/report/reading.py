"""Predictions that a report looks at: each file is read once, and only what is asked of it."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.data.tasks.definition import ID_TEST, OUTLIERS
from shiftbench.leaderboard.merging import Folders
from shiftbench.report.ranking import RankedMethod, Ranking

if TYPE_CHECKING:
    from shiftbench.evaluation.metrics.base import Metric

Tables = Mapping[tuple[str, str], pa.Table]
"""Predictions by variant and evaluation set."""


def ranked_methods(ranking: Ranking) -> list[RankedMethod]:
    """The methods whose predictions are looked at: those that rank."""
    return [method for method in ranking.methods if method.rank is not None]


def sets_of(ranking: Ranking) -> tuple[str, ...]:
    """The evaluation sets whose predictions are looked at: ID test and what ranks."""
    wanted = dict.fromkeys((ID_TEST, *ranking.by, *outliers_of(ranking)))
    return tuple(name for name in wanted if name in ranking.metrics)


def outliers_of(ranking: Ranking) -> list[str]:
    """The sets of images of none of the task's classes."""
    return [name for name in ranking.metrics if name.startswith(OUTLIERS)]


class Reader:
    """Predictions of runs, kept from a run's first ranking to its last.

    Args:
        rankings: that look at them, one after the other.
        folders: of the runs.
        measures: metrics that are looked at beside those of the sets.
    """

    def __init__(
        self, rankings: Sequence[Ranking], folders: Folders, measures: Sequence[Metric]
    ) -> None:
        self.folders = folders
        self._measures = measures
        self._variants: dict[str, set[str]] = {}  # that are looked at
        self._last: dict[str, Ranking] = {}  # that looks at a run
        self._tables: dict[str, Tables | InputError] = {}
        for ranking in rankings:
            for method in ranked_methods(ranking):
                for member in method.members:
                    self._variants.setdefault(member.run_id, set()).add(member.variant)
                    self._last[member.run_id] = ranking

    def read(
        self, run_id: str, variant: str, ranking: Ranking, sets: Sequence[str]
    ) -> dict[str, pa.Table]:
        """Predictions of a run's variant by evaluation set: what the sets' metrics look at.

        Raises:
            InputError: some are not there, or cannot be read.
        """
        of_run = self._of_run(run_id, ranking)
        for name in sets:
            if (variant, name) not in of_run:
                what = variant or "the weights"
                raise InputError(f"{run_id}: has no predictions of {what} on {name}")
        return {name: of_run[variant, name] for name in sets}

    def find(self, run_id: str, variant: str, ranking: Ranking, set_name: str) -> pa.Table | None:
        """Predictions of a run's variant on one set; ``None`` where they are not there."""
        try:
            return self._of_run(run_id, ranking).get((variant, set_name))
        except InputError:  # what compares methods says so
            return None

    def forget(self, ranking: Ranking) -> None:
        """Let go of what no later ranking looks at."""
        for run_id in [run_id for run_id in self._tables if self._last[run_id] is ranking]:
            del self._tables[run_id]

    def _of_run(self, run_id: str, ranking: Ranking) -> Tables:
        if run_id not in self._tables:
            try:
                self._tables[run_id] = by_variant_and_set(self._table(run_id, ranking))
            except InputError as error:
                self._tables[run_id] = error
        found = self._tables[run_id]
        if isinstance(found, InputError):
            raise found
        return found

    def _table(self, run_id: str, ranking: Ranking) -> pa.Table:
        from shiftbench.evaluation.detection import MCM
        from shiftbench.evaluation.metrics.registry import metric
        from shiftbench.evaluation.predictions import columns_for

        folder = self.folders.run(run_id)
        if folder is None:
            raise InputError("no results folder")
        sets = sets_of(ranking)
        measured = [*(metric(ranking.metrics[name]) for name in sets), *self._measures]
        columns = ["set", "variant", *columns_for(measured)]
        columns += [MCM] if outliers_of(ranking) else []
        wanted = {"variant": self._variants[run_id], "set": sets}
        try:
            return rows_of(folder.predictions, columns, wanted)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{folder.predictions}: cannot be read ({error})") from error


def rows_of(path: Path, columns: Sequence[str], wanted: Mapping[str, Collection[str]]) -> pa.Table:
    """Those columns of a Parquet file that it has, of rows with wanted values.

    One part of the file at a time, by the plain reader: that of data sets takes twice as long.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found = []
    with pq.ParquetFile(path, read_dictionary=[*wanted]) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            part = file.read_row_group(group, columns=there, use_threads=False)
            masks = (pc.is_in(part[name], pa.array(sorted(of))) for name, of in wanted.items())
            mask = functools.reduce(pc.and_, masks)
            found.append(part if pc.all(mask).as_py() else part.filter(mask))
        return pa.concat_tables(found) if found else file.schema_arrow.empty_table()


def by_variant_and_set(table: pa.Table) -> dict[tuple[str, str], pa.Table]:
    """The parts of a table of predictions. What stands together there is not copied."""
    if not len(table):
        return {}
    variants, sets = (
        table[name].unify_dictionaries().combine_chunks().dictionary_encode()
        for name in ("variant", "set")
    )
    codes = variants.indices.to_numpy() * len(sets.dictionary) + sets.indices.to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist()]
    parts: dict[tuple[str, str], list[pa.Table]] = {}
    for start, end in zip(starts, [*starts[1:], len(table)], strict=True):
        variant, name = divmod(int(codes[start]), len(sets.dictionary))
        key = variants.dictionary[variant].as_py(), sets.dictionary[name].as_py()
        parts.setdefault(key, []).append(table.slice(start, end - start))
    return {key: pa.concat_tables(of) if len(of) > 1 else of[0] for key, of in parts.items()}
