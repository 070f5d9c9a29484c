"""Taking bundles in."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.core.files import remove, temporary_folder
from shiftbench.core.mirror import move, shown
from shiftbench.core.words import some
from shiftbench.evaluation import predictions
from shiftbench.leaderboard import store
from shiftbench.leaderboard.bundles.agreement import differences
from shiftbench.leaderboard.bundles.archive import opened
from shiftbench.leaderboard.bundles.contents import Contents
from shiftbench.leaderboard.bundles.layout import (
    DIGEST,
    MOST_TEXT,
    PREDICTIONS,
    ROWS,
    RUNS,
    is_summary,
)
from shiftbench.leaderboard.bundles.prediction_checks import (
    References,
    check_predictions,
    check_recomputes,
)
from shiftbench.leaderboard.bundles.public import public
from shiftbench.leaderboard.files import reason
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import LABELS_UNCHECKED, SCHEMA, failures, rows

if TYPE_CHECKING:
    from shiftbench.leaderboard.bundles.labels import DataLabels

CONFLICTS = "conflicts"
"""Folder in the results with what disagrees with the leaderboard, by run id and content."""


@dataclass(frozen=True)
class Conflict:
    """A run of the bundle that is here with other values.

    Attributes:
        run_id: of both.
        differences: a line for each.
        kept: the folder with the one that is not in the leaderboard.
    """

    run_id: str
    differences: tuple[str, ...]
    kept: Path


@dataclass(frozen=True)
class Taken:
    """The runs of a bundle that was taken in.

    Attributes:
        new: run ids that were not there, and those that were taken in place of others.
        known: run ids that were there with the same values, or that were to stay.
        conflicts: runs that are there with other values, which stay until somebody decides.
        unchecked: by new run id, the evaluation sets whose labels were not checked.
    """

    new: tuple[str, ...]
    known: tuple[str, ...]
    conflicts: tuple[Conflict, ...]
    unchecked: Mapping[str, Sequence[str]]


def take(
    file: Path,
    results: Path,
    *,
    data: DataLabels | None = None,
    theirs: Collection[str] = (),
    ours: Collection[str] = (),
) -> Taken:
    """Check a bundle and put its runs into a results folder: all that fit, or none.

    A run that is there already agrees if it does in all that its id determines; clocks and machines
    do not count. One that does not agree stays as it is here, and the bundle's is kept in
    ``conflicts/``, until ``theirs`` or ``ours`` names it.

    Args:
        file: the bundle.
        results: the results folder, made when it is not there.
        data: labels to check the bundle's by; without, they are held against other runs alone.
        theirs: runs to take in place of those that are here, which go to ``conflicts/``.
        ours: runs that stay as they are here.

    Raises:
        InputError: the file is no bundle, was tampered with, its values do not follow from its
            predictions, or ``theirs`` or ``ours`` names a run that does not disagree. Nothing has
            been written.
    """
    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    with opened(file) as archive:
        contents = Contents.of(file, archive)
        tables = {run_id: contents.rows(run_id) for run_id in contents.run_ids}
        if not is_summary(contents.read(RUNS, MOST_TEXT), tables):
            raise InputError(f"{file}: {RUNS} does not say what the rows say")
        here = {run_id: store.read(results, [run_id]) for run_id in tables}
        found = {run_id: _differences(here[run_id], table) for run_id, table in tables.items()}
        disagree = [run_id for run_id, lines in found.items() if lines]
        for option, asked in (("--theirs", theirs), ("--ours", ours)):
            for run_id in asked:
                if run_id not in disagree:
                    raise InputError(
                        f"{option} {run_id}: no run that disagrees; those are "
                        f"{some(disagree, 10) or 'none'}"
                    )
        undecided = [run_id for run_id in disagree if run_id not in {*theirs, *ours}]
        new = [run_id for run_id in tables if not len(here[run_id]) or run_id in theirs]
        references = References(results, data)
        unchecked: dict[str, list[str]] = {}
        for run_id in (*new, *undecided):
            told = contents.predictions(run_id)
            of_run = rows(tables[run_id])
            where = f"{file}: {PREDICTIONS}/{run_id}.parquet"
            check_predictions(of_run, told, where)
            check_recomputes(of_run, told, where)
            unchecked[run_id] = references.compare(of_run, told, where)
            tables[run_id] = _marked(tables[run_id], unchecked[run_id])
        kept = {
            run_id: results / CONFLICTS / run_id / contents.digest(f"{ROWS}/{run_id}.parquet")
            for run_id in undecided
        }
        if new or kept:
            _place(contents, tables, results, new, kept, [r for r in theirs if len(here[r])])
    return Taken(
        new=tuple(new),
        known=tuple(run_id for run_id in tables if run_id not in {*new, *undecided}),
        conflicts=tuple(Conflict(r, tuple(found[r]), kept[r]) for r in undecided),
        unchecked={run_id: unchecked[run_id] for run_id in new},
    )


def _differences(here: pa.Table, theirs: pa.Table) -> list[str]:
    """The lines in which the rows of one run disagree; none where there are no rows here."""
    if failed := failures(here):
        return [f"it has failed here ({failed[0].error})"]
    return differences(rows(public(here)), rows(theirs)) if len(here) else []


def _marked(table: pa.Table, unchecked: Collection[str]) -> pa.Table:
    """Rows that say of which sets the labels were not checked."""
    position = table.schema.get_field_index("unchecked")
    marks = [
        LABELS_UNCHECKED if name in unchecked else None
        for name in table["evaluation_set"].to_pylist()
    ]
    column = pa.array(marks, pa.string())
    return table.set_column(position, SCHEMA.field("unchecked"), column)


def _place(
    contents: Contents,
    tables: Mapping[str, pa.Table],
    results: Path,
    new: Sequence[str],
    kept: Mapping[str, Path],
    replaced: Sequence[str],
) -> None:
    """Write all files beside their places, then move them there; move them back if one cannot.

    Args:
        contents: of the bundle.
        tables: rows by run id.
        results: the results folder.
        new: runs for the leaderboard.
        kept: folders of the runs that only are kept.
        replaced: runs whose files here are moved to ``conflicts/`` first.
    """
    store.check_writable(results)
    moved: list[tuple[Path, Path]] = []
    try:
        with temporary_folder(results, ".import-") as staging:
            for run_id in (*new, *kept):
                store.write_run(staging, run_id, tables[run_id])
                told = contents.predictions(run_id)
                predictions.write(RunFolder.of(staging, run_id).predictions, told)
            try:
                for source, target in _moves(staging, results, new, kept, replaced):
                    if target.exists():
                        raise InputError(f"{target} is there already; nothing was taken in")
                    move(source, target)
                    moved.append((source, target))
            except BaseException:
                for source, target in reversed(moved):
                    if not source.is_relative_to(staging):
                        move(target, source)
                    else:
                        remove(target)
                raise
    except OSError as error:
        raise InputError(f"{shown(results)}: cannot be written ({reason(error)})") from error


def _moves(
    staging: Path,
    results: Path,
    new: Sequence[str],
    kept: Mapping[str, Path],
    replaced: Sequence[str],
) -> list[tuple[Path, Path]]:
    """What is moved from where to where, in this order."""
    moves = []
    for run_id in replaced:
        row_file, folder = _files(results, run_id)
        digest = hashlib.sha256(row_file.read_bytes()).hexdigest()[:DIGEST]
        aside = results / CONFLICTS / run_id / digest
        moves.append((row_file, aside / "rows.parquet"))
        if folder.exists():
            moves.append((folder, aside / "run"))
    for run_id, aside in kept.items():
        if not aside.exists():  # else it was kept before
            row_file, folder = _files(staging, run_id)
            moves += [(folder, aside / "run"), (row_file, aside / "rows.parquet")]
    for run_id in new:  # rows last: they say that the rest is there
        told = RunFolder.of(staging, run_id).predictions
        row_file, _ = _files(staging, run_id)
        moves += [(path, results / path.relative_to(staging)) for path in (told, row_file)]
    return moves


def _files(results: Path, run_id: str) -> tuple[Path, Path]:
    """The file of a run's rows, and its folder."""
    return store.folder(results) / f"{run_id}.parquet", RunFolder.of(results, run_id).path
