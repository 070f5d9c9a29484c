"""Taking bundles in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from shiftbench.core.errors import InputError
from shiftbench.evaluation import predictions
from shiftbench.leaderboard import store
from shiftbench.leaderboard.bundles.archive import opened
from shiftbench.leaderboard.bundles.contents import Contents
from shiftbench.leaderboard.bundles.layout import MOST_TEXT, PREDICTIONS, RUNS, is_summary
from shiftbench.leaderboard.bundles.prediction_checks import (
    References,
    check_predictions,
    check_recomputes,
)
from shiftbench.leaderboard.bundles.public import public
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import rows, runs


@dataclass(frozen=True)
class Taken:
    """The runs of a bundle that was taken in.

    Attributes:
        new: run ids that were not there.
        known: run ids that were there with the same rows.
    """

    new: tuple[str, ...]
    known: tuple[str, ...]


def take(file: Path, results: Path) -> Taken:
    """Check a bundle and put its runs into a results folder: all of them, or none.

    Args:
        file: the bundle.
        results: the results folder, made when it is not there.

    Raises:
        InputError: the file is no bundle, was tampered with, its values do not follow from its
            predictions, or a run is there already with other rows. Nothing has been written.
    """
    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    with opened(file) as archive:
        contents = Contents.of(file, archive)
        tables = {run_id: contents.rows(run_id) for run_id in contents.run_ids}
        if not is_summary(contents.read(RUNS, MOST_TEXT), tables):
            raise InputError(f"{file}: {RUNS} does not say what the rows say")
        known = []
        for run_id, table in tables.items():
            here = store.read(results, [run_id])
            if not len(here):
                continue
            if not public(here).equals(table):
                raise InputError(
                    f"{file}: its run {run_id} ({_made(table)}) is not the run {run_id} in "
                    f"{results} ({_made(here)}); nothing was taken in"
                )
            known.append(run_id)
        new = [run_id for run_id in tables if run_id not in known]
        references = References(results)
        for run_id in new:
            told = contents.predictions(run_id)
            of_run = rows(tables[run_id])
            where = f"{file}: {PREDICTIONS}/{run_id}.parquet"
            check_predictions(of_run, told, where)
            check_recomputes(of_run, told, where)
            references.compare(of_run, told, where)
        if new:
            _place(contents, tables, new, results)
    return Taken(tuple(new), tuple(known))


def _place(
    contents: Contents, tables: Mapping[str, pa.Table], new: Sequence[str], results: Path
) -> None:
    """Write all files beside their places, then move them there; take them back if one cannot."""
    store.check_writable(results)
    placed: list[Path] = []
    try:
        with TemporaryDirectory(dir=results, prefix=".import-") as name:
            staging = Path(name)
            for run_id in new:
                told = contents.predictions(run_id)
                predictions.write(RunFolder.of(staging, run_id).predictions, told)
                store.write_run(staging, run_id, tables[run_id])
            for run_id in new:  # rows last: they say that the rest is there
                for source in (
                    RunFolder.of(staging, run_id).predictions,
                    store.folder(staging) / f"{run_id}.parquet",
                ):
                    target = results / source.relative_to(staging)
                    if target.exists():
                        raise InputError(f"{target} is there already; nothing was taken in")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    source.rename(target)
                    placed.append(target)
    except BaseException as error:
        for path in reversed(placed):
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"{results}: cannot be written ({error.strerror})") from error
        raise


def _made(table: pa.Table) -> str:
    run = runs(table)[0]
    return f"{run.label}, {run.status}, finished {run.finished.isoformat(' ', 'seconds')}"
