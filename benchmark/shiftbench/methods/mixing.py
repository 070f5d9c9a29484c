"""Means of several models' outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from shiftbench.methods.base import Array

    Coefficients = Sequence[float | npt.NDArray[np.float64]]


def mean_logits(coefficients: Coefficients, logits: Sequence[Array]) -> Array:
    """Σ c · z of some logits z (n, classes), computed in float64, as fp32.

    Args:
        coefficients: a number for each, or one for each of its examples, (n, 1).
        logits: of the same examples.
    """
    terms = [c * z.astype(np.float64) for c, z in zip(coefficients, logits, strict=True)]
    mean: Array = np.add.reduce(terms, axis=0).astype(np.float32)
    return mean


def mean_probabilities(coefficients: Coefficients, logits: Sequence[Array]) -> Array:
    """Log Σ c · softmax(z) of some logits z (n, classes), computed in float64, as fp32.

    Its softmax is the mean of the probabilities. Models with coefficient zero play no part.

    Args:
        coefficients: a number for each, or one for each of its examples, (n, 1).
        logits: of the same examples.
    """
    from scipy.special import log_softmax

    with np.errstate(divide="ignore"):  # of a coefficient zero
        terms = [
            np.log(c) + log_softmax(z.astype(np.float64), axis=1)
            for c, z in zip(coefficients, logits, strict=True)
        ]
    mean: Array = np.logaddexp.reduce(terms, axis=0).astype(np.float32)
    return mean
