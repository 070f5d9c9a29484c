"""Area under the risk-coverage curve."""

from __future__ import annotations

import numpy as np

from shiftbench.evaluation.examples import Examples
from shiftbench.evaluation.intervals import Floats
from shiftbench.evaluation.metrics.ranked import RankedMetric


class AURC(RankedMetric):
    """The error among the most confident examples, averaged over how many are answered.

    AURC = 1/n Σ_i (errors among the i most confident) / i (Geifman, Uziel and El-Yaniv, 2019, arXiv
    1805.08206), with the highest softmax probability as the confidence. Examples of equal
    confidence count by their mean over all their orders.
    """

    name = "aurc"
    title = "AURC"
    higher_is_better = False

    def amounts(self, examples: Examples) -> Floats:
        """(n,) a one for each error."""
        return (~examples.correct).astype(np.float64)

    def of_levels(self, mass: Floats, amount: Floats) -> Floats:
        """The mean risk, level by level.

        Where M examples with E errors are more confident than a level of m examples, of which a
        share r are errors, the expected risk at M + j is (E + j r) / (M + j). Summed over j it is
        m r + (E - M r) (H(M + m) - H(M)), with the harmonic numbers H.
        """
        reached, wrong = mass.cumsum(axis=1), amount.cumsum(axis=1)
        harmonic = np.append(0.0, np.cumsum(1 / np.arange(1, reached[:, -1].max() + 1)))
        spread = harmonic[reached.astype(np.int64)] - harmonic[(reached - mass).astype(np.int64)]
        rate = amount / np.maximum(mass, 1)
        before = (wrong - amount) - (reached - mass) * rate
        total: Floats = (amount + before * spread).sum(axis=1) / reached[:, -1]
        return total
