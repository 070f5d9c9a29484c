"""Checks of predictions: against the rows, and against labels of runs that are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shiftbench.core.errors import InputError
from shiftbench.evaluation import predictions
from shiftbench.leaderboard import store
from shiftbench.leaderboard.runfolder import RunFolder
from shiftbench.leaderboard.schema import Row, rows
from shiftbench.leaderboard.verify import disagreements

if TYPE_CHECKING:
    import numpy.typing as npt

SetKey = tuple[str, str, str | None, int | None]
"""Digest of a task, one of its sets, the fingerprint of its data, and the most images of a set."""


def check_predictions(of_run: Sequence[Row], told: pa.Table, where: str) -> None:
    """See that predictions are of the variants and sets of the rows, and of the same examples.

    Raises:
        InputError: they are not, or an id or a class is not as it must be.
    """
    parts = {
        (group["variant"], group["set"])
        for group in told.select(["variant", "set"])
        .group_by(["variant", "set"])
        .aggregate([])
        .to_pylist()
    }
    if parts != {(row.variant, row.evaluation_set) for row in of_run}:
        raise InputError(f"{where}: has not the variants and sets of the rows")
    lowest = pc.min(pc.min_element_wise(told["label"], told["prediction"])).as_py()
    if lowest is None or lowest < 0:
        raise InputError(f"{where}: a class is negative")
    check_ids(told, where)
    for name in dict.fromkeys(name for _, name in sorted(parts)):
        of_set = [_labels(told, variant, name) for variant, item in sorted(parts) if item == name]
        for ids, labels in of_set[1:]:
            if not (np.array_equal(ids, of_set[0][0]) and np.array_equal(labels, of_set[0][1])):
                raise InputError(f"{where}: variants have other examples or labels of {name}")


def check_ids(told: pa.Table, where: str) -> None:
    """See that the ids of examples are no absolute paths.

    Raises:
        InputError: some are.
    """
    for beginning in ("/", "~", "\\", "file:"):
        if pc.any(pc.starts_with(told["id"], beginning)).as_py():
            raise InputError(f"{where}: ids of examples are absolute paths")


def check_recomputes(of_run: Sequence[Row], told: pa.Table, where: str) -> None:
    """See that the values of rows follow from the predictions.

    Raises:
        InputError: some do not.
    """
    problems = disagreements(of_run, told)
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise InputError(f"{where}: {problems[0]}{more}")


class References:
    """Examples and labels of evaluation sets, from the runs of a results folder."""

    def __init__(self, results: Path) -> None:
        self._results = results
        self._known: dict[SetKey, tuple[str, Any, Any]] = {}
        self._of: dict[SetKey, tuple[str, str]] = {}
        for row in rows(store.read(results)):
            if RunFolder.of(results, row.run_id).predictions.exists():
                self._of.setdefault(_set_key(row), (row.run_id, row.variant))

    def compare(self, of_run: Sequence[Row], told: pa.Table, where: str) -> None:
        """See that a run was scored on the same examples and labels as others; remember its own.

        Of ID validation, which may be a draw of its own, only labels of common examples count.

        Raises:
            InputError: it was not.
        """
        for row in {row.evaluation_set: row for row in of_run}.values():
            name, key = row.evaluation_set, _set_key(row)
            ids, labels = _labels(told, row.variant, name)
            other = self._reference(key)
            if other is None:
                self._known[key] = (f"run {row.run_id} of the bundle", ids, labels)
                continue
            of, other_ids, other_labels = other
            if name != "id-val" and not np.array_equal(ids, other_ids):
                raise InputError(f"{where}: {name} has not the examples that {of} has of it")
            _, mine, theirs = np.intersect1d(
                ids, other_ids, assume_unique=True, return_indices=True
            )
            if not np.array_equal(labels[mine], other_labels[theirs]):
                raise InputError(f"{where}: {name} has not the labels that {of} has of it")

    def _reference(self, key: SetKey) -> tuple[str, Any, Any] | None:
        if key not in self._known and key in self._of:
            run_id, variant = self._of[key]
            table = predictions.read(RunFolder.of(self._results, run_id).predictions)
            found = _labels(table, variant, key[1])
            self._known[key] = (f"run {run_id} in {self._results}", *found)
        return self._known.get(key)


def _set_key(row: Row) -> SetKey:
    images = row.budget.get("evaluation_images")
    return row.task_digest, row.evaluation_set, row.data_fingerprint, images


def _labels(
    told: pa.Table, variant: str, evaluation_set: str
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int32]]:
    """Ids of one variant and set in their alphabetical order, and their labels."""
    part = told.filter(
        pc.and_(pc.equal(told["variant"], variant), pc.equal(told["set"], evaluation_set))
    )
    ids = np.array(part["id"].to_pylist(), dtype=np.str_)
    order = np.argsort(ids, kind="stable")
    return ids[order], part["label"].to_numpy()[order]
