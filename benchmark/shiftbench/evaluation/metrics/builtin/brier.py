"""The Brier score."""

from __future__ import annotations

import numpy as np

from shiftbench.evaluation.examples import Examples, Floats
from shiftbench.evaluation.metrics.base import MeanMetric


class Brier(MeanMetric):
    """The mean squared distance between the softmax and the label's unit vector (Brier, 1950).

    It is the sum over all classes, in [0, 2]: Σ p² - 2 p of the label + 1.
    """

    name = "brier"
    title = "Brier score"
    higher_is_better = False
    percent = False
    range = (0.0, 2.0)
    needs = frozenset({"log_sum_exp", "label_logit", "sum_p2"})

    def per_example(self, examples: Examples) -> Floats:
        """(n,) squared distances; rounding takes none below 0."""
        squares = np.asarray(examples.sum_p2, dtype=np.float64)
        distances: Floats = np.maximum(squares - 2 * np.exp(-examples.nll) + 1, 0.0)
        return distances
