"""Area under the risk-coverage curve."""

from __future__ import annotations

import numpy as np

from shiftbench.evaluation.examples import Examples
from shiftbench.evaluation.intervals import Floats
from shiftbench.evaluation.metrics.base import Metric


class AURC(Metric):
    """The error among the most confident examples, averaged over how many are answered.

    AURC = 1/n Σ_i (errors among the i most confident) / i (Geifman, Uziel and El-Yaniv, 2019, arXiv
    1805.08206), with the highest softmax probability as the confidence. Examples of equal
    confidence count by their mean over all their orders.
    """

    name = "aurc"
    title = "AURC"
    higher_is_better = False
    needs = frozenset({"top_logits", "log_sum_exp"})

    def values(self, examples: Examples, weights: Floats) -> Floats:
        """The mean risk, level of confidence by level.

        Where M examples with E errors are more confident than a level of m examples, of which a
        share r are errors, the expected risk at M + j is (E + j r) / (M + j). Summed over j it is
        m r + (E - M r) (H(M + m) - H(M)), with the harmonic numbers H.
        """
        levels, level_of = np.unique(-examples.confidence, return_inverse=True)
        order = np.lexsort((examples.correct, level_of))
        starts = np.searchsorted(level_of[order], np.arange(len(levels)))
        drawn = weights[:, order]
        here = np.add.reduceat(drawn, starts, axis=1)
        errors = np.add.reduceat(drawn * ~examples.correct[order], starts, axis=1)
        reached, wrong = here.cumsum(axis=1), errors.cumsum(axis=1)
        harmonic = np.append(0.0, np.cumsum(1 / np.arange(1, reached[:, -1].max() + 1)))
        spread = harmonic[reached.astype(np.int64)] - harmonic[(reached - here).astype(np.int64)]
        rate = errors / np.maximum(here, 1)
        before = (wrong - errors) - (reached - here) * rate
        total: Floats = (errors + before * spread).sum(axis=1) / reached[:, -1]
        return total
