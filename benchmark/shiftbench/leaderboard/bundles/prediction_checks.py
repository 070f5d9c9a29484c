"""Checks of predictions: against the rows, and against labels of runs that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

    from shiftbench.leaderboard.bundles.labels import DataLabels

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


@dataclass(frozen=True)
class _Known:
    """Ids of an evaluation set in alphabetical order with their labels, and who has them.

    ``checked`` is true if they are those of the data, or of a run that was made here.
    """

    of: str
    ids: npt.NDArray[np.str_]
    labels: npt.NDArray[np.integer]
    checked: bool


class References:
    """Examples and labels of evaluation sets: from the data, or from runs that are known.

    Args:
        results: folder whose runs are known.
        data: labels of the data themselves; ``None`` without.
    """

    def __init__(self, results: Path, data: DataLabels | None = None) -> None:
        self._results = results
        self._data = data
        self._known: dict[SetKey, _Known] = {}
        self._of: dict[SetKey, Row] = {}
        for row in rows(store.read(results)):
            if RunFolder.of(results, row.run_id).predictions.exists():
                first = self._of.setdefault(_set_key(row), row)
                if first.unchecked is not None and row.unchecked is None:
                    self._of[_set_key(row)] = row

    def compare(self, of_run: Sequence[Row], told: pa.Table, where: str) -> list[str]:
        """See that a run was scored on the same examples and labels as others; remember its own.

        Of ID validation, which may be a draw of its own, only labels of common examples count.

        Returns:
            The evaluation sets whose labels nothing could be held against.

        Raises:
            InputError: it was not.
        """
        unchecked = []
        for row in {row.evaluation_set: row for row in of_run}.values():
            name, key = row.evaluation_set, _set_key(row)
            ids, labels = _labels(told, row.variant, name)
            known = self._reference(key)
            others = [other for other in (self._data_of(row), known) if other is not None]
            common = [_common(row, ids, labels, other, where) for other in others]
            checked = any(
                other.checked and n == len(ids) for other, n in zip(others, common, strict=True)
            )
            if not checked:
                unchecked.append(name)
            if known is None:
                self._known[key] = _Known(f"run {row.run_id} of the bundle", ids, labels, checked)
        return unchecked

    def _data_of(self, row: Row) -> _Known | None:
        found = None if self._data is None else self._data.of(row)
        return None if found is None else _Known("the data", *found, checked=True)

    def _reference(self, key: SetKey) -> _Known | None:
        if key not in self._known and key in self._of:
            row = self._of[key]
            table = predictions.read(RunFolder.of(self._results, row.run_id).predictions)
            self._known[key] = _Known(
                f"run {row.run_id} in {self._results}",
                *_labels(table, row.variant, key[1]),
                checked=row.unchecked is None,
            )
        return self._known.get(key)


def _common(row: Row, ids: Any, labels: Any, other: _Known, where: str) -> int:
    """The number of examples of a row's set that another has too, with the same labels.

    Raises:
        InputError: their labels differ, or, but for ID validation, the examples.
    """
    name = row.evaluation_set
    if name != "id-val" and not np.array_equal(ids, other.ids):
        raise InputError(f"{where}: {name} has not the examples that {other.of} has of it")
    _, mine, theirs = np.intersect1d(ids, other.ids, assume_unique=True, return_indices=True)
    if not np.array_equal(labels[mine], other.labels[theirs]):
        raise InputError(f"{where}: {name} has not the labels that {other.of} has of it")
    return len(mine)


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
