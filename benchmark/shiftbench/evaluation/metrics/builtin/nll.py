"""Negative log-likelihood."""

from __future__ import annotations

from shiftbench.evaluation.examples import Examples, Floats
from shiftbench.evaluation.metrics.base import MeanMetric


class NLL(MeanMetric):
    """The mean of -log p of the label under the softmax, in nats (cross-entropy)."""

    name = "nll"
    title = "NLL"
    higher_is_better = False
    percent = False
    range = (0.0, float("inf"))
    needs = frozenset({"log_sum_exp", "label_logit"})

    def per_example(self, examples: Examples) -> Floats:
        """(n,) -log p of the label."""
        return examples.nll
