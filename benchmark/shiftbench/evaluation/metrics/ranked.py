"""The base of metrics that look at examples in the order of their confidence."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from shiftbench.evaluation.examples import Examples, Field
from shiftbench.evaluation.intervals import Counts, Floats
from shiftbench.evaluation.metrics.base import Metric, Statistic


class RankedMetric(Metric):
    """A metric of sums at each level of confidence, the highest softmax probability.

    Examples of equal confidence are one level, so that their order is nothing.
    """

    needs: ClassVar[frozenset[Field]] = frozenset({"top_logits", "log_sum_exp"})

    @abstractmethod
    def amounts(self, examples: Examples) -> Floats:
        """(n,) what each example adds to the sum of its level."""

    @abstractmethod
    def of_levels(self, mass: Floats, amount: Floats) -> Floats:
        """The metric (b,) of how many examples are on each level (b, levels), and of their sums.

        The first level is the most confident one.
        """

    def values(self, examples: Examples, weights: Floats) -> Floats:
        """The metric of weighted levels."""
        return self.statistic(examples)(weights)

    def statistic(self, examples: Examples, clusters: Counts | None = None) -> Statistic:
        """The metric of drawn levels: the examples are sorted once."""
        levels, level_of = np.unique(-examples.confidence, return_inverse=True)
        amounts = self.amounts(examples)
        order = np.lexsort((amounts, level_of))
        starts = np.searchsorted(level_of[order], np.arange(len(levels)))
        each = amounts[order]
        unit_of = order if clusters is None else clusters[order]

        def of(counts: Floats) -> Floats:
            mass = counts[:, unit_of]
            amount = mass * each
            if len(levels) < len(each):
                mass = np.add.reduceat(mass, starts, axis=1)
                amount = np.add.reduceat(amount, starts, axis=1)
            return self.of_levels(mass, amount)

        return of
