"""Worst-group accuracy over a metadata column, or a product of columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from shiftbench.core.errors import InputError
from shiftbench.evaluation.examples import Examples
from shiftbench.evaluation.intervals import Counts, Floats, worst_of_groups
from shiftbench.evaluation.metrics.base import SumMetric, tally

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class WorstGroup(SumMetric):
    """The lowest accuracy over groups of examples (Sagawa et al., 2020, arXiv 1911.08731).

    ``worst-group:year`` groups by one column; ``worst-group:region*year`` by each pair of values
    that occurs. The interval is Clopper–Pearson's over all groups and takes examples to be
    independent.
    """

    name = "worst-group"
    left_out: ClassVar[str | None] = None
    """Groups whose name contains this are not scored."""

    def __init__(self, argument: str | None = None) -> None:
        columns = tuple((argument or "").split("*"))
        if not all(columns) or len(set(columns)) < len(columns):
            raise ValueError(
                'takes a metadata column, such as "worst-group:region", '
                'or several, such as "worst-group:region*year"'
            )
        self.argument = argument
        self.columns = columns
        self.title = f"worst-group accuracy ({' × '.join(columns)})"

    def contributions(self, examples: Examples) -> csr_array:
        """(2 · groups, n): of each group the examples, and those that are right."""
        from scipy.sparse import vstack

        names, group, kept = self._groups(examples)
        right = examples.correct & kept
        parts = [tally(group, len(names), kept), tally(group, len(names), right)]
        return vstack(parts, format="csr")

    def of_sums(self, sums: Floats) -> Floats:
        """The minimum (b,); a group that a resample leaves out is not its worst."""
        trials, hits = np.split(sums, 2, axis=1)
        present = trials > 0
        accuracy = hits / np.where(present, trials, 1)
        worst: Floats = np.where(present, accuracy, 1.0).min(axis=1)
        return worst

    def exact_interval(self, examples: Examples) -> tuple[float, float, str]:
        """Clopper–Pearson over all groups, and the worst of them."""
        names, group, kept = self._groups(examples)
        trials = np.bincount(group[kept], minlength=len(names))
        hits = np.bincount(group[kept & examples.correct], minlength=len(names))
        low, high = worst_of_groups(hits, trials)
        worst = names[int(np.argmin(hits / trials))]
        return low, high, f"Clopper-Pearson, worst of {len(names)} {self._noun()}: {worst}"

    def _noun(self) -> str:
        return "groups"

    def _groups(self, examples: Examples) -> tuple[list[str], Counts, npt.NDArray[np.bool_]]:
        """Names of the scored groups, the group (n,) of each example, and which are scored."""
        columns = [examples.metadata[name].astype(str) for name in self.columns]
        found, group_of = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
        names = [" × ".join(row) for row in found.tolist()]
        scored = np.array([self.left_out is None or self.left_out not in name for name in names])
        if not scored.any():
            raise InputError(
                f'metric "{self.text}" has no {" and ".join(self.columns)} to score: all are '
                f'called "{self.left_out}" ({len(examples)} examples)'
            )
        group_of = group_of.reshape(-1)
        place = (np.cumsum(scored) - 1)[group_of]
        kept = scored[group_of]
        return (
            [name for name, one in zip(names, scored, strict=True) if one],
            np.where(kept, place, 0).astype(np.int64),
            kept,
        )
