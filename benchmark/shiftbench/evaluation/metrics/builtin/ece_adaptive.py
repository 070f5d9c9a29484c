"""Expected calibration error with bins of equally many examples."""

from __future__ import annotations

import numpy as np

from shiftbench.evaluation.examples import Examples
from shiftbench.evaluation.intervals import Floats
from shiftbench.evaluation.metrics.builtin.ece import bins_of
from shiftbench.evaluation.metrics.ranked import RankedMetric


class AdaptiveECE(RankedMetric):
    """The gap between confidence and accuracy, averaged over bins of equally many examples.

    ``ece-adaptive:15`` sorts by the highest softmax probability and cuts into 15 equal parts
    (Nguyen and O'Connor, 2015, arXiv 1508.05154; Nixon et al., 2019, arXiv 1904.01685). A cut may
    part an example, which counts in both bins by its shares; examples of equal confidence are cut
    alike, so that their order is nothing. Its interval is made as that of ``ece``.
    """

    name = "ece-adaptive"
    higher_is_better = False
    resamples_lie_beside = True

    def __init__(self, argument: str | None = None) -> None:
        self.bins = bins_of(argument, self.name)
        self.argument = argument
        self.title = f"adaptive ECE ({self.bins} bins)"

    def amounts(self, examples: Examples) -> Floats:
        """(n,) right less confidence."""
        gaps: Floats = examples.correct - examples.confidence
        return gaps

    def of_levels(self, mass: Floats, amount: Floats) -> Floats:
        """Gaps between cuts of the running sum of right less confidence."""
        start = np.zeros((len(mass), 1))
        reached = np.hstack([start, mass.cumsum(axis=1)])
        total = np.hstack([start, amount.cumsum(axis=1)])
        found = np.empty(len(mass))
        for i in range(len(mass)):
            cuts = np.linspace(0, reached[i, -1], self.bins + 1)
            at_cuts = np.interp(cuts, reached[i], total[i])
            found[i] = np.abs(np.diff(at_cuts)).sum() / reached[i, -1]
        return found
