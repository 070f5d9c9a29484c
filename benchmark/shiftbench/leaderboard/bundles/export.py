"""Writing bundles."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq

from shiftbench.core.errors import InputError
from shiftbench.core.files import written_atomically
from shiftbench.core.mirror import shown
from shiftbench.evaluation import predictions
from shiftbench.leaderboard import store
from shiftbench.leaderboard.bundles.archive import write_archive
from shiftbench.leaderboard.bundles.layout import (
    MANIFEST,
    PREDICTIONS,
    ROWS,
    RUNS,
    canonical,
    make_manifest,
    summary,
)
from shiftbench.leaderboard.bundles.prediction_checks import check_ids, check_recomputes
from shiftbench.leaderboard.bundles.public import public
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import rows


@dataclass(frozen=True)
class Bundle:
    """An exported bundle.

    Attributes:
        run_ids: ancestors included.
        digest: sha256 of the manifest's content.
    """

    run_ids: tuple[str, ...]
    digest: str


def export(results: Path, run_ids: Collection[str], to: Path) -> Bundle:
    """Write a bundle of some runs and of those that they build on.

    Args:
        results: the results folder.
        run_ids: of runs that are done.
        to: the file, in place of what is there; it ends in ``.zip``.

    Raises:
        InputError: the ending is another, predictions are missing, or rows do not recompute.
    """
    if to.suffix.lower() != ".zip":
        raise InputError(f"{to}: must end in .zip")
    members = sorted(with_ancestors(results, run_ids))
    tables = {run_id: public(store.read(results, [run_id])) for run_id in members}
    with TemporaryDirectory() as folder:
        staged: dict[str, Path] = {}

        def stage(name: str) -> Path:
            staged[name] = Path(folder) / str(len(staged))
            return staged[name]

        for run_id, table in tables.items():
            kept = RunFolder.of(results, run_id).predictions
            if not kept.exists():
                where = shown(results)
                raise InputError(f"run {run_id}: there are no predictions of it in {where}")
            told = predictions.read(kept).replace_schema_metadata(None)
            check_recomputes(rows(table), told, f"run {run_id}")
            check_ids(told, f"run {run_id}")
            pq.write_table(table, stage(f"{ROWS}/{run_id}.parquet"), compression="zstd")
            pq.write_table(told, stage(f"{PREDICTIONS}/{run_id}.parquet"), compression="zstd")
        stage(RUNS).write_bytes(summary(tables))
        manifest = make_manifest({name: _measured(path) for name, path in staged.items()})
        stage(MANIFEST).write_bytes(canonical(manifest))
        try:
            with written_atomically(to) as temporary:
                write_archive(temporary, dict(sorted(staged.items())))
        except OSError as error:
            raise InputError(f"{to}: cannot be written ({error.strerror})") from error
    return Bundle(tuple(members), manifest["digest"])


def with_ancestors(results: Path, run_ids: Collection[str]) -> set[str]:
    """The runs and those that they build on, as far as they are done in the results folder."""
    found: set[str] = set()
    left = set(run_ids)
    while left:
        done = rows(store.read(results, left))
        found |= {row.run_id for row in done}
        left = {parent.run_id for row in done for parent in row.parents} - found
    return found


def _measured(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }
