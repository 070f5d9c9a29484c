"""Top-1 accuracy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shiftbench.evaluation.examples import Examples, Integers
from shiftbench.evaluation.metrics.base import Proportion


class Accuracy(Proportion):
    """The share of examples whose prediction is the label."""

    name = "accuracy"
    title = "accuracy"

    def per_example(self, examples: Examples) -> npt.NDArray[np.bool_]:
        """(n,) which examples are right."""
        return examples.correct

    def kinds(self, examples: Examples) -> Integers:
        """Right and wrong ones."""
        return examples.correct.astype(np.int64)[:, None]
