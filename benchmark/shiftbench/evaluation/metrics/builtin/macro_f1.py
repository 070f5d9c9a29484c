"""Macro-averaged F1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shiftbench.evaluation.examples import Examples, Integers
from shiftbench.evaluation.intervals import Floats
from shiftbench.evaluation.metrics.base import SumMetric, tally

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class MacroF1(SumMetric):
    """F1 averaged over the classes that labels hold, as ``F1-macro_all`` of ``wilds``."""

    name = "macro-f1"
    title = "macro-F1"

    def contributions(self, examples: Examples) -> csr_array:
        """(3 · classes, n): of each class how many are labelled so, predicted so, both."""
        from scipy.sparse import vstack

        classes, label = np.unique(examples.labels, return_inverse=True)
        n = len(classes)
        found = np.minimum(np.searchsorted(classes, examples.predictions), n - 1)
        parts = [
            tally(label, n),
            tally(found, n, classes[found] == examples.predictions),
            tally(label, n, examples.correct),
        ]
        return vstack(parts, format="csr")

    def of_sums(self, sums: Floats) -> Floats:
        """The mean (b,) over the classes that drawn labels hold."""
        labelled, predicted, both = np.split(sums, 3, axis=1)
        present = labelled > 0
        f1 = 2 * both / np.where(present, labelled + predicted, 1)
        mean: Floats = np.where(present, f1, 0).sum(axis=1) / present.sum(axis=1)
        return mean

    def kinds(self, examples: Examples) -> Integers:
        """The pairs of label and prediction that occur."""
        return np.stack([examples.labels, examples.predictions], axis=1)
