"""Tests of a difference between two models on the same examples, and Holm's correction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shiftbench.evaluation.intervals import Floats

EXACT_UP_TO = 25  # discordant pairs
ROUNDING = 1e-12  # a difference below is one of the order of summation


def mcnemar(only_first: npt.ArrayLike, only_second: npt.ArrayLike) -> Floats:
    """Two-sided p-value of McNemar's test that two models are equally accurate (McNemar, 1947).

    Up to ``EXACT_UP_TO`` discordant examples it is the exact binomial test. Above, it is the mid-p
    test, which counts the observed outcome by half: the exact test is needlessly conservative
    there, and the asymptotic one rejects too often (Fagerland, Lydersen and Laake, 2013,
    doi 10.1186/1471-2288-13-91).

    Args:
        only_first: how many examples only the first model has right, integers of any shape.
        only_second: how many only the second has, of the same shape.
    """
    from scipy.special import betainc

    b, c = np.broadcast_arrays(np.asarray(only_first, float), np.asarray(only_second, float))
    if np.any(b < 0) or np.any(c < 0):
        raise ValueError("counts are not negative")
    n, least = b + c, np.minimum(b, c)
    # P(X ≤ k) of X ~ Binomial(n, ½) is the incomplete beta function at ½ of n - k and k + 1.
    up_to = np.where(n == 0, 1.0, betainc(np.maximum(n - least, 1), least + 1, 0.5))
    below = np.where(least == 0, 0.0, betainc(n - least + 1, np.maximum(least, 1), 0.5))
    exact = np.minimum(1.0, 2 * up_to)
    mid = up_to + below  # = 2 P(X ≤ k) - P(X = k)
    p: Floats = np.where(n <= EXACT_UP_TO, exact, mid)
    return p


def bootstrap_p(differences: npt.ArrayLike, draws: Floats, units: int) -> Floats:
    """Two-sided p-values of differences from their bootstrap standard errors.

    A difference over its standard error is compared with Student's t of ``units`` - 1 degrees of
    freedom. Unlike the share of resamples beyond 0, this is not limited by how many resamples there
    are, which a correction for many comparisons could not bear. It is never below 2^(1 - units),
    the least that a sign test of as many units can give.

    Args:
        differences: (…) on the examples themselves.
        draws: (…, resamples) of them.
        units: how many examples or clusters were resampled.
    """
    from scipy.special import stdtr

    size = np.abs(np.asarray(differences))
    least = 2.0 ** max(1 - units, -1000)
    errors = draws.std(ddof=1, axis=-1)
    sure = (errors < ROUNDING) | (units < 2)
    p = 2 * stdtr(max(units - 1, 1), -size / np.where(sure, 1.0, errors))
    found: Floats = np.where(size < ROUNDING, 1.0, np.where(sure, least, np.maximum(least, p)))
    return found


def holm(p_values: npt.ArrayLike) -> Floats:
    """Adjusted p-values (Holm, 1979): rejecting those ≤ α errs at all with probability ≤ α.

    Args:
        p_values: (n,) in [0, 1], of one family of hypotheses.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p-values are one row of numbers in [0, 1]")
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1.0, p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted
