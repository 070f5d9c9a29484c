"""Expected calibration error with bins of equally many examples."""

from __future__ import annotations

import numpy as np

from shiftbench.evaluation.examples import Examples
from shiftbench.evaluation.intervals import Floats
from shiftbench.evaluation.metrics.base import Metric
from shiftbench.evaluation.metrics.builtin.ece import bins_of


class AdaptiveECE(Metric):
    """The gap between confidence and accuracy, averaged over bins of equally many examples.

    ``ece-adaptive:15`` sorts by the highest softmax probability and cuts into 15 equal parts
    (Nguyen and O'Connor, 2015, arXiv 1508.05154; Nixon et al., 2019, arXiv 1904.01685). A cut may
    part an example, which counts in both bins by its shares; examples of equal confidence are cut
    alike, so that their order is nothing. Its interval is made as that of ``ece``.
    """

    name = "ece-adaptive"
    higher_is_better = False
    needs = frozenset({"top_logits", "log_sum_exp"})
    resamples_lie_beside = True

    def __init__(self, argument: str | None = None) -> None:
        self.bins = bins_of(argument, self.name)
        self.argument = argument
        self.title = f"adaptive ECE ({self.bins} bins)"

    def values(self, examples: Examples, weights: Floats) -> Floats:
        """Gaps between cuts of the sum of right less confidence over sorted examples."""
        levels, level_of = np.unique(examples.confidence, return_inverse=True)
        order = np.lexsort((examples.correct, level_of))
        starts = np.searchsorted(level_of[order], np.arange(len(levels)))
        drawn = weights[:, order]
        gaps = (examples.correct - examples.confidence)[order]
        mass = np.add.reduceat(drawn, starts, axis=1).cumsum(axis=1)
        gap = np.add.reduceat(drawn * gaps, starts, axis=1).cumsum(axis=1)
        found = np.empty(len(weights))
        for i, (reached, total) in enumerate(zip(mass, gap, strict=True)):
            cuts = np.linspace(0, reached[-1], self.bins + 1)
            at_cuts = np.interp(cuts, np.append(0.0, reached), np.append(0.0, total))
            found[i] = np.abs(np.diff(at_cuts)).sum() / reached[-1]
        return found
