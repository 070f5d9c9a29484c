"""Top-5 accuracy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shiftbench.evaluation.examples import Examples
from shiftbench.evaluation.metrics.base import Proportion


class Top5(Proportion):
    """The share of examples whose label is among the five classes of the highest logits.

    Of equal logits the lower class comes first. With five classes or fewer it is always 1.
    """

    name = "top-5"
    title = "top-5 accuracy"
    needs = frozenset({"top_classes"})

    def per_example(self, examples: Examples) -> npt.NDArray[np.bool_]:
        """(n,) which examples are right."""
        found: npt.NDArray[np.bool_] = np.any(
            np.asarray(examples.top_classes) == examples.labels[:, None], axis=1
        )
        return found
