"""Balanced accuracy, also called mean per-class accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shiftbench.evaluation.examples import Examples, Integers
from shiftbench.evaluation.intervals import Floats
from shiftbench.evaluation.metrics.base import SumMetric, tally

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class BalancedAccuracy(SumMetric):
    """Accuracy on the examples of each class, averaged over the classes that labels hold.

    It is ``balanced_accuracy_score`` of scikit-learn, and what CLIP (arXiv 2103.00020, Table 9)
    calls mean per class.
    """

    name = "balanced-accuracy"
    title = "balanced accuracy"

    def contributions(self, examples: Examples) -> csr_array:
        """(2 · classes, n): of each class the examples, and those that are right."""
        from scipy.sparse import vstack

        classes, label = np.unique(examples.labels, return_inverse=True)
        n = len(classes)
        return vstack([tally(label, n), tally(label, n, examples.correct)], format="csr")

    def of_sums(self, sums: Floats) -> Floats:
        """The mean (b,) over the classes that were drawn."""
        labelled, right = np.split(sums, 2, axis=1)
        present = labelled > 0
        recall = right / np.where(present, labelled, 1)
        mean: Floats = recall.sum(axis=1) / present.sum(axis=1)
        return mean

    def kinds(self, examples: Examples) -> Integers:
        """Right and wrong ones of each label."""
        return np.stack([examples.labels, examples.correct.astype(np.int64)], axis=1)
