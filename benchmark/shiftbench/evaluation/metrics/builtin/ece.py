"""Expected calibration error with bins of equal width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shiftbench.evaluation.examples import Examples
from shiftbench.evaluation.intervals import Floats
from shiftbench.evaluation.metrics.base import SumMetric, tally

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def bins_of(argument: str | None, name: str) -> int:
    """The number of bins that a metric's text names.

    Raises:
        ValueError: it names none.
    """
    text = argument or ""
    if not (text.isascii() and text.isdigit() and str(int(text)) == text and int(text) > 0):
        raise ValueError(f'takes a number of bins, such as "{name}:15"')
    return int(text)


class ECE(SumMetric):
    """The gap between confidence and accuracy, averaged over bins of equal width.

    ``ece:15`` has 15 bins (j/15, (j+1)/15] of the highest softmax probability, each weighted by its
    examples (Guo et al., 2017, arXiv 1706.04599, equation 3). Noise within a bin raises it, in
    resamples once more, so its interval is of resamples that are moved to its value.
    """

    name = "ece"
    higher_is_better = False
    needs = frozenset({"top_logits", "log_sum_exp"})
    resamples_lie_beside = True

    def __init__(self, argument: str | None = None) -> None:
        self.bins = bins_of(argument, self.name)
        self.argument = argument
        self.title = f"ECE ({self.bins} bins)"

    def contributions(self, examples: Examples) -> csr_array:
        """(1 + bins, n): each counts once, and in its bin with right less confidence."""
        from scipy.sparse import vstack

        edges = np.arange(self.bins + 1) / self.bins
        inside = np.searchsorted(edges, examples.confidence, side="left") - 1
        gaps = examples.correct - examples.confidence
        once = np.zeros(len(examples), dtype=np.int64)
        parts = [tally(once, 1), tally(np.clip(inside, 0, self.bins - 1), self.bins, gaps)]
        return vstack(parts, format="csr")

    def of_sums(self, sums: Floats) -> Floats:
        """The weighted mean (b,) of the bins' gaps."""
        mean: Floats = np.abs(sums[:, 1:]).sum(axis=1) / sums[:, 0]
        return mean
